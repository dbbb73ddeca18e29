#pragma once
// What the decoders of one format each (image_jpeg.c, image_png.c, image_webp.c) share with
// image.c, and nobody else needs. A decoder works in the order of the file; image.c turns what EXIF
// says must be.

#include "image.h"

struct image_receiver;

// STATUS_BAD_IMAGE for an empty picture, STATUS_IMAGE_TOO_LARGE for one over the limit.
enum status image_check_size(const char *format, int64_t width, int64_t height,
                             const struct image_limits *limits) CHECKED;

// Once, when the size is known, here as the file stores it. *window: what is wanted of the reduced
// picture, in the same order.
enum status image_begin(struct image_receiver *receiver, const struct image_size *size,
                        int orientation, struct image_window *window) CHECKED;

// The next rows of the window, as the sink's `rows`.
void image_rows(struct image_receiver *receiver, const uint8_t *const *rows, int count);

// All the rows of the window, cut out of the picture as it is stored.
void image_rows_of(struct image_receiver *receiver, const struct image *image,
                   const struct image_window *window);

// Each calls image_begin(), then sends rows until the window is full.
enum status image_read_jpeg(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                            struct image_receiver *receiver, int shortest) CHECKED;
enum status image_read_png(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                           struct image_receiver *receiver) CHECKED;
enum status image_read_webp(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                            struct image_receiver *receiver) CHECKED;
