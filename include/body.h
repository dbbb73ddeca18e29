#pragma once
// Every form of request body -> a list of images and the fields beside them: the image itself,
// multipart/form-data, JSON with base64, and each of them compressed. Reentrant.
//
// What is made of a body (the decompressed bytes, JSON's values, decoded base64) is taken from the
// budget first. The rest is not copied: images may point into the source's bytes, which must
// outlive the struct.

#include "budget.h"
#include "inflate.h"
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct body_source {
    const char *content_type, *content_encoding; // NULL where absent
    const uint8_t *bytes;
    size_t length;
    int max_images;
    size_t max_bytes;      // once decompressed
    struct budget *budget; // NULL: none
};

struct upload {
    char name[256]; // the part's file name, or "image-1", "image-2", ...; UTF-8
    const uint8_t *bytes;
    size_t length;
    bool cropped; // the bytes are the model's (S, S, 3) pixels
};

struct body {
    struct upload *images; // (count)
    int count;
    char top_k[24], logits[24]; // fields as text, "" where absent
    // Private.
    struct inflated plain;
    uint8_t *decoded; // the images that came as base64
    struct budget *budget;
    int64_t charged; // for decoded, and JSON's values while there are any
};

// A body that is neither multipart/form-data nor application/json is one image, whatever its type
// says.
// STATUS_NO_IMAGE, STATUS_BAD_REQUEST (malformed; says what), STATUS_BAD_TOP_K (JSON's is no whole
// number), STATUS_TOO_MANY_IMAGES, STATUS_UNSUPPORTED_IMAGE (JSON under another type), and those of
// inflate_body(). A failure leaves nothing to release.
enum status body_parse(const struct body_source *source, struct body *body) CHECKED;
bool body_is_json(const char *content_type); // NULL: none was given
void body_release(struct body *body);
