#include "base64.h"
#include <stdbool.h>
#include <string.h>
#include <strings.h>

// Six bits for each character of the alphabet, under a mark that no other character has.
enum { DIGIT = 0x40 };
#define D(character, value) [character] = DIGIT | (value)
static const uint8_t digits[256] = {
    D('A', 0),  D('B', 1),  D('C', 2),  D('D', 3),  D('E', 4),  D('F', 5),  D('G', 6),  D('H', 7),
    D('I', 8),  D('J', 9),  D('K', 10), D('L', 11), D('M', 12), D('N', 13), D('O', 14), D('P', 15),
    D('Q', 16), D('R', 17), D('S', 18), D('T', 19), D('U', 20), D('V', 21), D('W', 22), D('X', 23),
    D('Y', 24), D('Z', 25), D('a', 26), D('b', 27), D('c', 28), D('d', 29), D('e', 30), D('f', 31),
    D('g', 32), D('h', 33), D('i', 34), D('j', 35), D('k', 36), D('l', 37), D('m', 38), D('n', 39),
    D('o', 40), D('p', 41), D('q', 42), D('r', 43), D('s', 44), D('t', 45), D('u', 46), D('v', 47),
    D('w', 48), D('x', 49), D('y', 50), D('z', 51), D('0', 52), D('1', 53), D('2', 54), D('3', 55),
    D('4', 56), D('5', 57), D('6', 58), D('7', 59), D('8', 60), D('9', 61), D('+', 62), D('/', 63),
    D('-', 62), D('_', 63),
};
#undef D

size_t base64_max_bytes(size_t length)
{
    return length / 4 * 3 + length % 4 * 3 / 4;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r';
}

// Where the base64 begins: behind the comma of a data: URI.
static enum status skip_uri_head(const uint8_t *text, size_t length, size_t *start)
{
    static const char scheme[] = "data:", marker[] = ";base64";
    size_t marker_length = sizeof marker - 1;
    *start = 0;
    if (length < sizeof scheme - 1 ||
        strncasecmp((const char *)text, scheme, sizeof scheme - 1) != 0)
        return STATUS_OK;
    const uint8_t *comma = memchr(text, ',', length);
    if (!comma)
        return status_fail(STATUS_BAD_REQUEST, "data URI: no comma ends its head");
    size_t head = (size_t)(comma - text);
    if (head < sizeof scheme - 1 + marker_length ||
        strncasecmp((const char *)comma - marker_length, marker, marker_length) != 0)
        return status_fail(STATUS_BAD_REQUEST, "data URI: only base64 is understood: \";base64\" "
                                               "is missing before the comma");
    *start = head + 1;
    return STATUS_OK;
}

// A group of four that is not simply four digits: with whitespace among them, or the last one, with
// its padding or without, or wrong. Moves *at after the group; *size: the bytes in it, 0 at the end
// of the text.
static enum status read_group(const uint8_t *text, size_t length, size_t *at, uint32_t *bits,
                              size_t *size)
{
    int count = 0, padding = 0;
    *bits = 0;
    for (; *at < length && count < 4; ++*at) {
        uint8_t c = text[*at], digit = digits[c];
        if (is_space(c))
            continue;
        if (c == '=' && count >= 2)
            padding++;
        else if (!digit || padding > 0)
            return status_fail(STATUS_BAD_REQUEST, "base64: byte %zu: 0x%02x is out of place", *at,
                               c);
        *bits = *bits << 6 | (digit & 63u);
        count++;
    }
    if (count == 1 || (padding > 0 && count < 4))
        return status_fail(STATUS_BAD_REQUEST,
                           "base64: byte %zu: the text ends within a group of four: it is cut off",
                           *at);
    if (count > 0 && padding == 0) { // digits that were left out stand for what padding does
        padding = 4 - count;
        *bits <<= 6 * padding;
    }
    *size = count > 0 ? 3 - (size_t)padding : 0;
    if (padding > 0 && *bits & ((1u << 8 * padding) - 1))
        return status_fail(STATUS_BAD_REQUEST,
                           "base64: byte %zu: bits are left over in the last character", *at - 1);
    return STATUS_OK;
}

enum status base64_decode(const char *text, size_t length, uint8_t *bytes, size_t *count)
{
    const uint8_t *c = (const uint8_t *)text;
    uint8_t *out = bytes;
    size_t at, size = 3;
    TRY(skip_uri_head(c, length, &at));
    while (size == 3) {
        for (; length - at >= 4; at += 4, out += 3) {
            uint32_t d0 = digits[c[at]], d1 = digits[c[at + 1]], d2 = digits[c[at + 2]],
                     d3 = digits[c[at + 3]];
            if (!(d0 & d1 & d2 & d3 & DIGIT))
                break;
            uint32_t bits = (d0 & 63) << 18 | (d1 & 63) << 12 | (d2 & 63) << 6 | (d3 & 63);
            out[0] = (uint8_t)(bits >> 16);
            out[1] = (uint8_t)(bits >> 8);
            out[2] = (uint8_t)bits;
        }
        uint32_t bits;
        TRY(read_group(c, length, &at, &bits, &size));
        for (size_t i = 0; i < size; i++)
            *out++ = (uint8_t)(bits >> (16 - 8 * i));
    }
    for (; at < length; at++)
        if (!is_space(c[at]))
            return status_fail(STATUS_BAD_REQUEST, "base64: byte %zu: more text behind the end",
                               at);
    *count = (size_t)(out - bytes);
    return STATUS_OK;
}
