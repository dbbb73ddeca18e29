// A TIFF directory is a 16-bit count and then entries of 12 bytes: tag, type, number of values (32
// bits), the value or the offset of it. Every offset comes from outside and is checked here.

#include "exif.h"
#include <stdbool.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, HEADER_BYTES = 8, ENTRY_BYTES = 12 };

static uint32_t read16(const uint8_t *at, bool big_endian)
{
    return big_endian ? (uint32_t)at[0] << 8 | at[1] : (uint32_t)at[1] << 8 | at[0];
}

static uint32_t read32(const uint8_t *at, bool big_endian)
{
    uint32_t first = read16(at, big_endian), second = read16(at + 2, big_endian);
    return big_endian ? first << 16 | second : second << 16 | first;
}

int exif_orientation(const uint8_t *tiff, size_t length)
{
    if (length < HEADER_BYTES)
        return 1;
    bool big = memcmp(tiff, "MM\0*", 4) == 0;
    if (!big && memcmp(tiff, "II*\0", 4) != 0)
        return 1;
    size_t directory = read32(tiff + 4, big);
    if (directory > length - 2)
        return 1;
    size_t count = read16(tiff + directory, big);
    for (size_t i = 0; i < count; i++) {
        size_t at = directory + 2 + i * ENTRY_BYTES;
        if (at > length || length - at < ENTRY_BYTES)
            return 1;
        const uint8_t *entry = tiff + at;
        if (read16(entry, big) != TAG_ORIENTATION)
            continue;
        uint32_t value = read16(entry + 8, big);
        bool sound = read16(entry + 2, big) == TYPE_SHORT && read32(entry + 4, big) == 1;
        return sound && value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}
