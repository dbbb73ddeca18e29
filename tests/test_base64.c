// server/base64.c: the vectors of RFC 4648, every byte and every length there and back, and each
// way to be wrong refused at its byte. Text and bytes lie in heap blocks of their exact size, so
// that AddressSanitizer sees any access behind them.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "base64.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct decoded {
    enum status status;
    uint8_t *bytes;
    size_t count;
};

static struct decoded decode(const char *text, size_t length)
{
    size_t room = base64_max_bytes(length);
    char *copy = malloc(length + 1);
    struct decoded decoded = {.bytes = malloc(room + 1)};
    assert_non_null(copy);
    assert_non_null(decoded.bytes);
    // Both from the end of their block, where one byte more is one too many.
    memcpy(copy + 1, text, length);
    decoded.bytes[0] = 0x55;
    decoded.status = base64_decode(copy + 1, length, decoded.bytes + 1, &decoded.count);
    assert_int_equal(decoded.bytes[0], 0x55);
    if (decoded.status == STATUS_OK)
        assert_in_range(decoded.count, 0, room);
    free(copy);
    return decoded;
}

static void expect_text(const char *text, const char *expected)
{
    struct decoded decoded = decode(text, strlen(text));
    if (decoded.status != STATUS_OK)
        fail_msg("\"%s\": %s", text, status_detail(decoded.status));
    assert_int_equal(decoded.count, strlen(expected));
    assert_memory_equal(decoded.bytes + 1, expected, decoded.count);
    free(decoded.bytes);
}

static void expect_refused(const char *text, size_t length, const char *words)
{
    struct decoded decoded = decode(text, length);
    if (decoded.status != STATUS_BAD_REQUEST || !strstr(status_detail(STATUS_BAD_REQUEST), words))
        fail_msg("\"%s\": %s: %s", text, status_code(decoded.status),
                 status_detail(decoded.status));
    free(decoded.bytes);
}

// A plain encoder to compare with.
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

static void vectors_of_the_rfc(void **state)
{
    (void)state;
    expect_text("", "");
    expect_text("Zg==", "f");
    expect_text("Zm8=", "fo");
    expect_text("Zm9v", "foo");
    expect_text("Zm9vYg==", "foob");
    expect_text("Zm9vYmE=", "fooba");
    expect_text("Zm9vYmFy", "foobar");
    expect_text("+/+/", "\xfb\xff\xbf");
    expect_text("-_-_", "\xfb\xff\xbf"); // section 5
    expect_text("-/+_", "\xfb\xff\xbf");
}

static void padding_may_be_missing(void **state)
{
    (void)state;
    expect_text("Zg", "f");
    expect_text("Zm8", "fo");
    expect_text("Zm9vYg", "foob");
    expect_text("Zm9vYmE\n", "fooba");
    expect_text(" Z g ", "f");
    expect_text("data:;base64,Zm8", "fo");
}

static void there_and_back(void **state)
{
    (void)state;
    uint8_t bytes[600];
    char text[800];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 167 + i / 256);
    for (size_t count = 0; count <= sizeof bytes; count++) {
        size_t length = encode(bytes, count, text);
        struct decoded decoded = decode(text, length);
        assert_int_equal(decoded.status, STATUS_OK);
        assert_int_equal(decoded.count, count);
        assert_memory_equal(decoded.bytes + 1, bytes, count);
        free(decoded.bytes);
    }
}

static void whitespace_is_skipped(void **state)
{
    (void)state;
    expect_text(" \t\r\n\f", "");
    expect_text(" Zm9v Ym Fy ", "foobar");
    expect_text("Zm9v\r\nYmFy\r\n", "foobar");
    expect_text("Z m\t9\fv\nY\rg = = ", "foob");
    expect_refused("Zm9v\vYmFy", 9, "byte 4: 0x0b is out of place");
    expect_refused("Zm9v\0YmFy", 9, "byte 4: 0x00 is out of place");
}

static void every_character_outside_the_alphabet(void **state)
{
    (void)state;
    static const char accepted[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                   "+/-_ \t\n\f\r";
    for (int c = 0; c < 256; c++) {
        char text[12] = "Zm9vYmFyZm9";
        text[5] = (char)c;
        text[11] = 'v';
        bool good = c && strchr(accepted, c);
        // A space takes the place of a digit: then the last group is one short.
        const char *words = good ? "byte 11: bits are left over" : "byte 5: 0x";
        if (good && !strchr(" \t\n\f\r", c)) {
            struct decoded decoded = decode(text, sizeof text);
            assert_int_equal(decoded.status, STATUS_OK);
            free(decoded.bytes);
        } else {
            expect_refused(text, sizeof text, words);
        }
    }
}

static void what_may_have_been_cut_off(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"Z", "byte 1: the text ends within"},
        {"Zm", "byte 1: bits are left over"},
        {"Zm9", "byte 2: bits are left over"},
        {"Zm9vY", "byte 5: the text ends within"},
        {"Zg=", "byte 3: the text ends within"},
        {"Zm9vZg=", "byte 7: the text ends within"},
        {"=", "byte 0: 0x3d is out of place"},
        {"Z===", "byte 1: 0x3d is out of place"},
        {"====", "byte 0: 0x3d is out of place"},
        {"Zm9v====", "byte 4: 0x3d is out of place"},
        {"Zg=v", "byte 3: 0x76 is out of place"},
        {"Zm8==", "byte 4: more text behind the end"},
        {"Zg==Zg==", "byte 4: more text behind the end"},
        {"Zg== x", "byte 5: more text behind the end"},
        {"Zm9=", "byte 3: bits are left over"},
        {"Zh==", "byte 3: bits are left over"},
        {"Zv==", "byte 3: bits are left over"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i].text, strlen(bad[i].text), bad[i].words);
}

static void data_uris(void **state)
{
    (void)state;
    expect_text("data:;base64,Zm9v", "foo");
    expect_text("data:image/png;base64,Zm9v", "foo");
    expect_text("DATA:image/svg+xml;charset=utf-8;BASE64,Zm9v", "foo");
    expect_text("data:image/png;base64,", "");
    expect_text("data:image/png;base64,Zm9v\nYg==", "foob");
    // Without its colon it is base64 that begins like a URI.
    expect_text("data", "\x75\xab\x5a");
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"data:", "data URI: no comma"},
        {"data:image/png;base64", "data URI: no comma"},
        {"data:,Zm9v", "data URI: only base64"},
        {"data:base64,Zm9v", "data URI: only base64"},
        {"data:image/png,Zm9v", "data URI: only base64"},
        {"data:image/png;base64;x,Zm9v", "data URI: only base64"},
        {"data:image/png;base64,Zm9v,", "base64: byte 26: 0x2c is out of place"},
        {"data:image/png;base64,Zg%3D%3D", "base64: byte 24: 0x25 is out of place"},
        {"data;base64,Zm9v", "base64: byte 4: 0x3b is out of place"},
        {" data:;base64,Zm9v", "base64: byte 5: 0x3a is out of place"},
        {"http://x/y.png", "base64: byte 4: 0x3a is out of place"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i].text, strlen(bad[i].text), bad[i].words);
}

static void every_truncation(void **state)
{
    (void)state;
    static const char text[] = "data:image/png;base64,Zm9v\r\nYmFyZm8=";
    for (size_t length = 0; length < sizeof text; length++) {
        struct decoded decoded = decode(text, length);
        bool whole =
            length == 0 || length == 4 || length >= sizeof text - 2 || // without the padding
            (length >= 22 && (length == 22 || (length >= 26 && length <= 28) || length == 32));
        assert_int_equal(decoded.status, whole ? STATUS_OK : STATUS_BAD_REQUEST);
        free(decoded.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_the_rfc),
        cmocka_unit_test(padding_may_be_missing),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(whitespace_is_skipped),
        cmocka_unit_test(every_character_outside_the_alphabet),
        cmocka_unit_test(what_may_have_been_cut_off),
        cmocka_unit_test(data_uris),
        cmocka_unit_test(every_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
