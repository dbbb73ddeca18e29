// png_write(): what it writes, image_decode() reads back.

#include "image.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// smooth: one colour; else noise, which no filter makes smaller.
static uint8_t *pixels(int width, int height, bool smooth)
{
    size_t length = (size_t)width * (size_t)height * 3;
    uint8_t *rgb = malloc(length);
    assert_non_null(rgb);
    uint32_t random = 1;
    for (size_t i = 0; i < length; i++) {
        random = random * 1664525 + 1013904223;
        rgb[i] = smooth ? (uint8_t)(i % 3 * 90) : (uint8_t)(random >> 24);
    }
    return rgb;
}

static void comes_back(int width, int height, bool smooth)
{
    struct image_limits limits = {.max_pixels = 1 << 20};
    struct image image;
    uint8_t *bytes, *rgb = pixels(width, height, smooth);
    size_t length, raw = (size_t)width * (size_t)height * 3;
    assert_int_equal(png_write(rgb, width, height, &bytes, &length), STATUS_OK);
    assert_memory_equal(bytes, "\x89PNG\r\n\x1a\n", 8);
    size_t filters = (size_t)height; // a byte for each row
    assert_true(length < (smooth ? raw / 20 : raw + filters + raw / 100) + 128);
    assert_int_equal(image_decode(bytes, length, &limits, &image), STATUS_OK);
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    assert_memory_equal(image.rgb, rgb, raw);
    image_release(&image);
    free(bytes);
    free(rgb);
}

static void reads_back(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {1, 300}, {300, 1}, {17, 13}, {224, 224}, {518, 518}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int smooth = 0; smooth < 2; smooth++)
            comes_back(sizes[i][0], sizes[i][1], smooth);
}

static void refuses_what_is_no_size(void **state)
{
    (void)state;
    static const int sizes[][2] = {{0, 1}, {1, 0}, {-1, 1}, {1, -1}};
    const uint8_t rgb[3] = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *bytes = (uint8_t *)sizes;
        size_t length = 1;
        assert_int_equal(png_write(rgb, sizes[i][0], sizes[i][1], &bytes, &length),
                         STATUS_INTERNAL);
        assert_true(!bytes && length == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_back),
        cmocka_unit_test(refuses_what_is_no_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
