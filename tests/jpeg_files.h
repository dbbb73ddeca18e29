#pragma once
// JPEGs for the tests of decoding, made in memory: every layout of chroma, progressive, arithmetic,
// restarts, gray, CMYK.

#include <stdbool.h>
#include <stdint.h>

struct jpeg_kind {
    const char *name;
    int components; // 1, 3, 4: gray, YCbCr, YCCK
    int h, v;       // of the first component (and of K); 1 x 1 the others
    int other_h;    // of the second, if not 0
    bool progressive, scans, arithmetic;
    unsigned restart; // MCUs
};

enum { JPEG_KINDS = 17 };
extern const struct jpeg_kind jpeg_kinds[JPEG_KINDS];

struct jpeg_file {
    uint8_t *bytes; // the caller's to free
    unsigned long length;
};

// smooth: waves that a resize keeps; else blocks of colour and noise, all frequencies.
struct jpeg_file jpeg_make(const struct jpeg_kind *kind, int width, int height, bool smooth);

// The next of a fixed sequence, below a limit.
uint32_t jpeg_random(uint32_t below);
