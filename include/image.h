#pragma once
// Encoded bytes (JPEG, PNG, WebP) -> RGB8, as Pillow's Image.open(...).convert("RGB") gives it:
// gray is replicated, alpha dropped, a palette looked up, CMYK taken as Adobe's inverted kind; and
// turned as exif_transpose() does it. README.md says where we differ. Of an animation it is the
// first frame. A picture goes to a sink row by row, and only the part of it
// that the sink asks for; image_decode() keeps all of it. png_write() goes the other way.
// Reentrant; nothing is shared between calls.

#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Whoever waits for a picture may stop its decoding: embedded in what the functions need. What they
// return, if it is a failure, ends image_read().
struct image_guard {
    // Before the decoder allocates in proportion to the picture: so many pixels more are decoded,
    // for which it holds at most so many bytes more until image_read() returns.
    enum status (*admit)(struct image_guard *guard, int64_t pixels, int64_t bytes);
    // Every millisecond or so of work.
    enum status (*check)(struct image_guard *guard);
    // Before work that may take longer than that and does not check.
    enum status (*unwatched)(struct image_guard *guard);
};

struct image_limits {
    int64_t max_pixels;     // width * height; checked from the header, before any allocation
    bool apply_orientation; // turn the picture as its metadata say
    // A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as the sink's shortest side is
    // kept. Crops of photos then differ by 0.4 of 255 on average, 15 at most, from the exact ones.
    bool fast_decode;
    struct image_guard *guard; // NULL: none
};

// Of the picture as it is looked at: after orientation. The sink gets a picture of
// (width / reduction, height / reduction) pixels, rounded up; 1 but for fast decoding.
struct image_size {
    int width, height, reduction;
};

// A part of the picture that the sink gets.
struct image_window {
    int left, top, width, height;
};

// Takes a picture: embedded in what the functions need. They are called from within image_read().
struct image_sink {
    int shortest; // fast decoding keeps so many pixels of the shorter side
    // Once, before any row: says in *window what part is wanted, which must not be empty.
    enum status (*begin)(struct image_sink *sink, const struct image_size *size,
                         struct image_window *window);
    // The next `count` rows of the window, 1 to IMAGE_ROWS, from the top. Valid during the call.
    void (*rows)(struct image_sink *sink, const uint8_t *const *rows, int count);
};

enum { IMAGE_ROWS = 16 };

// STATUS_UNSUPPORTED_IMAGE  neither a JPEG, a PNG nor a WebP
// STATUS_IMAGE_TOO_LARGE    more than max_pixels; a PNG with a side of more than 2^20
// STATUS_BAD_IMAGE          damaged, truncated or not decodable, be it outside the window; the
//                           detail says what
// STATUS_OUT_OF_MEMORY
// and whatever the sink's begin or the guard returned. On failure the sink may have had some of the
// rows.
enum status image_read(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                       struct image_sink *sink) CHECKED;

// The pixels belong to the struct: image_release() frees them.
struct image {
    uint8_t *rgb; // (height, width, 3), no padding
    int width;    // as it is looked at
    int height;
};

// The whole picture, never reduced. On failure *image is empty (rgb NULL).
enum status image_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                         struct image *image) CHECKED;

// The same to a sink as image_read() of such a picture. Fails only where the sink's begin does.
enum status image_send(const struct image *image, struct image_sink *sink) CHECKED;

void image_release(struct image *image);

// rgb: (height, width, 3), no padding. The bytes are malloc'ed: the caller frees them. On failure,
// STATUS_OUT_OF_MEMORY or STATUS_INTERNAL, *bytes is NULL.
enum status png_write(const uint8_t *rgb, int width, int height, uint8_t **bytes,
                      size_t *length) CHECKED;
