#pragma once
// image_read() of any window of a picture against the same part of the whole, for the tests of
// decoding.

#include "image.h"

extern const struct image_limits exact_limits, fast_limits; // orientation applied

// Compares a window with that part of `whole`; NULL: pixels do not matter. shortest: for a fast
// decoding of that; 0 is exact. *wrong: rows that differ.
enum status read_window(const uint8_t *bytes, size_t length, int shortest,
                        const struct image *whole, struct image_window window, int *wrong);

// All of the picture, reduced as `limits` let it be. Returns the reduction; the image is the
// caller's to release.
int read_whole(const uint8_t *bytes, size_t length, const struct image_limits *limits, int shortest,
               struct image *image);

// How many of `count` random windows are not as in the whole. Prints them.
int wrong_windows(const char *name, const uint8_t *bytes, size_t length, int shortest, int count);

// Damages the file `rounds` times, a few bits each. Whatever is wrong with it, a window has the
// status, the detail and the pixels of the whole: returns how often it has not. Adds to *decoded
// how many damaged files were decoded.
int wrong_damaged_windows(const char *name, const uint8_t *bytes, size_t length, int rounds,
                          int *decoded);
