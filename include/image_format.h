#pragma once
// What the decoders of one format each (image_jpeg.c, image_png.c, image_webp.c) share with
// image.c, and nobody else needs. A decoder works in the order of the file; image.c turns what EXIF
// says must be.

#include "image.h"

struct image_receiver;

// STATUS_BAD_IMAGE for an empty picture, STATUS_IMAGE_TOO_LARGE for one over the limit.
enum status image_check_size(const char *format, int64_t width, int64_t height,
                             const struct image_limits *limits) CHECKED;

// Before memory is allocated for the picture: the most that the decoder will hold at once, what
// image.c needs to turn the picture included.
enum status image_admit(struct image_receiver *receiver, int64_t pixels, int64_t bytes) CHECKED;

// After so many pixels of work: whether to go on.
enum status image_check(struct image_receiver *receiver, int64_t pixels) CHECKED;

// Before so many pixels of work without a check.
enum status image_unwatched(struct image_receiver *receiver, int64_t pixels) CHECKED;

// Whether a picture of this orientation will be turned, which takes 3 bytes a pixel more, twice if
// its rows come one by one.
bool image_turns(const struct image_receiver *receiver, int orientation);

// Once, when the size is known, here as the file stores it. *window: what is wanted of the reduced
// picture, in the same order.
enum status image_begin(struct image_receiver *receiver, const struct image_size *size,
                        int orientation, struct image_window *window) CHECKED;

// The next rows of the window, as the sink's `rows`.
void image_rows(struct image_receiver *receiver, const uint8_t *const *rows, int count);

// All the rows of the window, cut out of the picture as it is stored.
enum status image_rows_of(struct image_receiver *receiver, const struct image *image,
                          const struct image_window *window) CHECKED;

// Each calls image_begin(), then sends rows until the window is full.
enum status image_read_jpeg(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                            struct image_receiver *receiver, int shortest) CHECKED;
enum status image_read_png(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                           struct image_receiver *receiver) CHECKED;
enum status image_read_webp(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                            struct image_receiver *receiver) CHECKED;
