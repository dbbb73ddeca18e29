// libFuzzer entry for base64_decode(): what is accepted is exactly what an encoder makes of the
// result, but for whitespace, the head of a data: URI, the URL-safe alphabet and the padding.

#include "base64.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static size_t encode(const uint8_t *bytes, size_t count, char *text)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t length = 0;
    for (size_t i = 0; i < count; i += 3) {
        uint32_t bits = 0;
        for (size_t j = i; j < i + 3; j++)
            bits = bits << 8 | (j < count ? bytes[j] : 0);
        for (size_t j = 0; j < 4; j++)
            text[length++] = i + j > count ? '=' : alphabet[bits >> (18 - 6 * j) & 63];
    }
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const uint8_t *comma =
        length > 0 && memchr(bytes, ':', length) ? memchr(bytes, ',', length) : NULL;
    size_t count, kept = 0, room = base64_max_bytes(length);
    uint8_t *decoded = malloc(room > 0 ? room : 1);
    char *again = malloc(room / 3 * 4 + 4), *plain = malloc(length + 4);
    if (!decoded || !again || !plain)
        abort();
    if (base64_decode((const char *)bytes, length, decoded, &count) == STATUS_OK) {
        for (const uint8_t *c = comma ? comma + 1 : bytes; c < bytes + length; c++)
            if (!memchr(" \t\n\f\r", *c, 5))
                plain[kept++] = (char)(*c == '-' ? '+' : *c == '_' ? '/' : *c);
        for (size_t digits = kept; digits % 4 != 0; digits++)
            plain[kept++] = '=';
        if (count > room || encode(decoded, count, again) != kept ||
            memcmp(again, plain, kept) != 0)
            abort();
    }
    free(decoded);
    free(again);
    free(plain);
    return 0;
}
