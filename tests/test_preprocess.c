// preprocess_image() against torchvision on Pillow: the hash of every result that
// golden/make_preprocess.py wrote to golden/preprocess.txt, over the same generated pictures.

#include "preprocess.h"
#include "resample.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t noise(uint32_t index, uint32_t seed)
{
    uint32_t value = (index + seed) * 2654435761u;
    value = (value ^ (value >> 15)) * 2246822519u;
    return value >> 24;
}

static struct image generate(int width, int height)
{
    struct image image = {.width = width, .height = height};
    size_t columns = (size_t)width;
    image.rgb = malloc((size_t)height * columns * 3);
    assert_non_null(image.rgb);
    uint8_t *to = image.rgb;
    for (size_t y = 0; y < (size_t)height; y++)
        for (size_t x = 0; x < columns; x++)
            for (size_t c = 0; c < 3; c++) {
                uint32_t fine = noise((uint32_t)((y * columns + x) * 3 + c), 1);
                uint32_t coarse = noise((uint32_t)((y / 8 * columns + x / 8) * 3 + c), 2);
                *to++ = (uint8_t)((fine + 3 * coarse) / 4);
            }
    return image;
}

static uint64_t fnv1a64(const uint8_t *bytes, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static uint64_t hash_of_result(const struct preprocess *recipe, const struct image *image)
{
    size_t size = (size_t)recipe->crop * (size_t)recipe->crop * 3;
    uint8_t *out = malloc(size); // its own block: a sanitizer sees a byte too many
    assert_non_null(out);
    memset(out, 0xa5, size);
    assert_int_equal(preprocess_image(recipe, image, out), STATUS_OK);
    uint64_t hash = fnv1a64(out, size);
    free(out);
    return hash;
}

static void equals_torchvision(void **state)
{
    (void)state;
    FILE *file = fopen(GOLDEN_DIR "/preprocess.txt", "r");
    assert_non_null(file);
    int cases = 0, wrong = 0, width, height;
    struct preprocess recipe = {0};
    struct image image = {0};
    char filter[16];
    uint64_t expected;
    while (fscanf(file, "%d %d %d %d %15s %" SCNx64, &width, &height, &recipe.resize, &recipe.crop,
                  filter, &expected) == 6) {
        bool bicubic = strcmp(filter, "bicubic") == 0;
        recipe.interpolation = bicubic ? INTERPOLATION_BICUBIC : INTERPOLATION_BILINEAR;
        if (image.width != width || image.height != height) {
            free(image.rgb);
            image = generate(width, height);
        }
        if (hash_of_result(&recipe, &image) != expected) {
            print_error("%d x %d, resize %d %s, crop %d: not torchvision's pixels\n", width, height,
                        recipe.resize, filter, recipe.crop);
            wrong++;
        }
        cases++;
    }
    free(image.rgb);
    fclose(file);
    assert_true(cases >= 400);
    assert_int_equal(wrong, 0);
}

// Pillow cannot make the resized picture (256 x 2.5e9 pixels); a constant one stays constant.
static void longest_picture(void **state)
{
    (void)state;
    int length = 10000000;
    struct image wide = {.rgb = malloc((size_t)length * 3), .width = length, .height = 1};
    assert_non_null(wide.rgb);
    memset(wide.rgb, 77, (size_t)length * 3);
    struct image tall = {.rgb = wide.rgb, .width = 1, .height = length};
    for (int bicubic = 0; bicubic < 2; bicubic++) {
        struct preprocess recipe = {.resize = 256, .crop = 224};
        recipe.interpolation = bicubic ? INTERPOLATION_BICUBIC : INTERPOLATION_BILINEAR;
        static uint8_t out[224 * 224 * 3], expected[sizeof out];
        memset(expected, 77, sizeof expected);
        assert_int_equal(preprocess_image(&recipe, &wide, out), STATUS_OK);
        assert_memory_equal(out, expected, sizeof out);
        memset(out, 0, sizeof out);
        assert_int_equal(preprocess_image(&recipe, &tall, out), STATUS_OK);
        assert_memory_equal(out, expected, sizeof out);
    }
    free(wide.rgb);
}

// A crop as large as the picture changes nothing.
static void identity(void **state)
{
    (void)state;
    struct image image = generate(48, 48);
    struct preprocess recipe = {.resize = 48, .crop = 48};
    for (int bicubic = 0; bicubic < 2; bicubic++) {
        uint8_t out[48 * 48 * 3] = {0};
        recipe.interpolation = bicubic ? INTERPOLATION_BICUBIC : INTERPOLATION_BILINEAR;
        assert_int_equal(preprocess_image(&recipe, &image, out), STATUS_OK);
        assert_memory_equal(out, image.rgb, sizeof out);
    }
    free(image.rgb);
}

static uint32_t random_below(uint32_t limit)
{
    static uint32_t index;
    index++;
    return (noise(index, 3) << 16 | noise(index, 4) << 8 | noise(index, 5)) % limit;
}

// Every set gives the bytes of the generic one.
static void instruction_sets_agree(void **state)
{
    (void)state;
    enum { WIDTH = 101, OUTPUTS = 37, MOST = 9, STRIDE = 3 * RESAMPLE_LANES };
    const struct resample *sets[3] = {&resample_generic};
    int count = 1;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        sets[count++] = &resample_v3;
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        sets[count++] = &resample_v4;
#endif
    static uint8_t pixels[RESAMPLE_ROWS][WIDTH * 3], turned[RESAMPLE_COLUMNS_BYTES(WIDTH)],
        narrowed[RESAMPLE_COLUMNS_BYTES(OUTPUTS)], columns[3][RESAMPLE_ROWS * STRIDE],
        row[3][STRIDE];
    static int first[OUTPUTS], counts[OUTPUTS];
    static int32_t weights[OUTPUTS * MOST];
    struct taps taps = {first, counts, weights, MOST};
    const uint8_t *rows[RESAMPLE_ROWS];
    for (int round = 0; round < 50; round++) {
        for (int y = 0; y < RESAMPLE_ROWS; y++) {
            rows[y] = pixels[y];
            for (int x = 0; x < WIDTH * 3; x++) // extremes are common: sums leave 0..255
                pixels[y][x] =
                    (uint8_t)(random_below(3) ? random_below(256) : random_below(2) * 255);
        }
        for (int i = 0; i < OUTPUTS; i++) {
            counts[i] = 1 + (int)random_below(MOST);
            first[i] = (int)random_below((uint32_t)(WIDTH - counts[i] + 1));
            for (int j = 0; j < MOST; j++) // sums below 0, around, and over 255
                weights[i * MOST + j] = (int)random_below(1 << 18) + (i % 3 - 1) * (1 << 19);
        }
        for (int set = 0; set < count; set++) {
            sets[set]->columns(&taps, OUTPUTS, rows, WIDTH, turned, narrowed, columns[set], STRIDE);
            sets[set]->rows(weights, MOST, columns[0], STRIDE, row[set]);
            for (size_t y = 0; y < RESAMPLE_ROWS; y++)
                assert_memory_equal(columns[set] + y * STRIDE, columns[0] + y * STRIDE,
                                    OUTPUTS * 3);
            assert_memory_equal(row[set], row[0], OUTPUTS * 3);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_torchvision),
        cmocka_unit_test(longest_picture),
        cmocka_unit_test(identity),
        cmocka_unit_test(instruction_sets_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
