// A TIFF directory is a 16-bit count and then entries of 12 bytes: tag, type, number of values (32
// bits), the values if they fit into four bytes, else the offset of them. Every offset comes from
// outside and is checked here. What is read of a damaged directory is what Pillow reads of it.

#include "exif.h"
#include <stdbool.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x0112, HEADER_BYTES = 8, ENTRY_BYTES = 12 };

enum type {
    TYPE_SHORT = 3,
    TYPE_LONG = 4,
    TYPE_RATIONAL = 5,
    TYPE_SBYTE = 6,
    TYPE_SSHORT = 8,
    TYPE_SLONG = 9,
    TYPE_SRATIONAL = 10,
    TYPE_FLOAT = 11,
    TYPE_DOUBLE = 12,
    TYPE_IFD = 13,
    TYPE_LONG8 = 16,
};

// Of one value, by type. Entries of other types are passed over.
static const uint8_t value_bytes[] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};

static uint64_t read_number(const uint8_t *at, int bytes, bool big_endian)
{
    uint64_t number = 0;
    for (int i = 0; i < bytes; i++)
        number = number << 8 | at[big_endian ? i : bytes - 1 - i];
    return number;
}

static uint32_t read16(const uint8_t *at, bool big_endian)
{
    return (uint32_t)read_number(at, 2, big_endian);
}

static uint32_t read32(const uint8_t *at, bool big_endian)
{
    return (uint32_t)read_number(at, 4, big_endian);
}

static double read_double(const uint8_t *at, bool big_endian)
{
    uint64_t bits = read_number(at, 8, big_endian);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float read_float(const uint8_t *at, bool big_endian)
{
    uint32_t bits = read32(at, big_endian);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// A fraction or a float counts where it equals a whole number; bytes and text never do.
static bool is_value(const uint8_t *at, uint32_t type, bool big, int wanted)
{
    switch (type) {
    case TYPE_SHORT:
    case TYPE_LONG:
    case TYPE_SBYTE:
    case TYPE_SSHORT:
    case TYPE_SLONG:
    case TYPE_IFD:
    case TYPE_LONG8: // what is wanted is small and positive: the sign need not be looked at
        return read_number(at, value_bytes[type], big) == (uint64_t)wanted;
    case TYPE_RATIONAL: {
        uint64_t denominator = read32(at + 4, big);
        return denominator != 0 && read32(at, big) == denominator * (uint64_t)wanted;
    }
    case TYPE_SRATIONAL: {
        int64_t numerator = (int32_t)read32(at, big), denominator = (int32_t)read32(at + 4, big);
        return denominator != 0 && numerator == denominator * wanted;
    }
    case TYPE_FLOAT:
        return read_float(at, big) == (float)wanted;
    case TYPE_DOUBLE:
        return read_double(at, big) == wanted;
    default:
        return false;
    }
}

static int orientation_at(const uint8_t *at, uint32_t type, bool big)
{
    for (int orientation = 2; orientation <= 8; orientation++)
        if (is_value(at, type, big, orientation))
            return orientation;
    return 1;
}

// Pillow takes marks whose version is in the other byte order, and BigTIFF's of this one.
static bool read_mark(const uint8_t *tiff, bool *big)
{
    static const char marks[][5] = {"II*\0", "II\0*", "MM\0*", "MM*\0", "MM\0+"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (memcmp(tiff, marks[i], 4) == 0) {
            *big = tiff[0] == 'M';
            return true;
        }
    }
    return false;
}

int exif_orientation(const uint8_t *tiff, size_t length)
{
    bool big;
    if (length < HEADER_BYTES || !read_mark(tiff, &big))
        return 0;
    size_t directory = read32(tiff + 4, big);
    if (directory > length - 2)
        return 0;
    int orientation = 0;
    size_t count = read16(tiff + directory, big);
    for (size_t i = 0; i < count; i++) {
        size_t at = directory + 2 + i * ENTRY_BYTES;
        if (at > length || length - at < ENTRY_BYTES)
            break;
        const uint8_t *entry = tiff + at, *values = entry + 8;
        uint32_t type = read16(entry + 2, big);
        uint64_t bytes = type < sizeof value_bytes ? value_bytes[type] : 0;
        bytes *= read32(entry + 4, big);
        if (bytes > 4) {
            size_t offset = read32(values, big);
            if (offset > length || length - offset < bytes)
                break; // of whatever tag it is: nothing after it counts
            values = tiff + offset;
        }
        if (bytes > 0 && read16(entry, big) == TAG_ORIENTATION)
            orientation = orientation_at(values, type, big);
    }
    return orientation;
}

int exif_block_orientation(const uint8_t *block, size_t length)
{
    static const char prefix[6] = "Exif\0";
    bool prefixed = length >= sizeof prefix && memcmp(block, prefix, sizeof prefix) == 0;
    size_t skip = prefixed ? sizeof prefix : 0;
    return exif_orientation(block + skip, length - skip);
}
