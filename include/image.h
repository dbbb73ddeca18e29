#pragma once
// Encoded bytes (JPEG, PNG) -> RGB8, as Pillow's Image.open(...).convert("RGB") gives it: gray is
// replicated, alpha dropped, a palette looked up, CMYK taken as Adobe's inverted kind. One
// difference: 16-bit samples keep their high byte, where Pillow clips gray to white. Reentrant;
// nothing is shared between calls.

#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image_limits {
    int64_t max_pixels;     // width * height; checked from the header, before any allocation
    bool apply_orientation; // turn the picture as its EXIF orientation says
};

// The pixels belong to the struct: image_release() frees them.
struct image {
    uint8_t *rgb; // (height, width, 3), no padding
    int width;    // as it is looked at: after orientation
    int height;
};

// STATUS_UNSUPPORTED_IMAGE  neither a JPEG nor a PNG
// STATUS_IMAGE_TOO_LARGE    more than max_pixels
// STATUS_BAD_IMAGE          damaged, truncated or not decodable; the detail says what
// STATUS_OUT_OF_MEMORY
// On failure *image is empty (rgb NULL).
enum status image_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                         struct image *image) CHECKED;

void image_release(struct image *image);
