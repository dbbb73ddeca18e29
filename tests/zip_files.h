#pragma once
// ZIP archives for the tests of .pth files, made in memory as torch.save makes them, or not quite.

#include <stddef.h>
#include <stdint.h>

struct zip_part {
    const char *name;
    const void *data;
    size_t bytes;
};

struct zip_file {
    uint8_t *bytes; // a heap block of the exact size, the caller's to free
    size_t length;
    size_t directory; // where it begins
    size_t end64;     // where ZIP64's end record begins, 0 if there is none
};

// zip64: every size and place is left to the ZIP64 fields, as those of a huge archive are.
struct zip_file zip_make(const struct zip_part *parts, size_t count, int zip64);
