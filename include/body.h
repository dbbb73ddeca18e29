#pragma once
// Every form of request body -> a list of images and the fields beside them. Nothing is copied:
// the slices point into the body, which must outlive the struct.

#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct upload {
    char name[256]; // the part's file name, or "image-1", "image-2", ...; UTF-8
    const uint8_t *bytes;
    size_t length;
    bool cropped; // the bytes are the model's (S, S, 3) pixels
};

struct body {
    struct upload *images; // (count)
    int count;
    char top_k[16], logits[16]; // form fields as text, "" where absent
};

// content_type may be NULL. A body that is neither multipart/form-data nor application/json is one
// image, whatever its type says.
// STATUS_NO_IMAGE, STATUS_BAD_REQUEST (malformed multipart; says what), STATUS_TOO_MANY_IMAGES,
// STATUS_UNSUPPORTED_MEDIA.
enum status body_parse(const char *content_type, const uint8_t *bytes, size_t length,
                       int max_images, struct body *body) CHECKED;
void body_release(struct body *body);
