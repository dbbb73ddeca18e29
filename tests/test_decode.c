// The way of a picture row by row: image_read() of any window against the same part of
// image_decode(), preprocess_bytes() against preprocess_image(), and fast decoding, over JPEGs of
// every kind that libjpeg can write.

#include "jpeg_files.h"
#include "preprocess.h"
#include "windows.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static int64_t now_ns = 1000000000;

int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

// Each look at the clock takes a millisecond.
int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    (void)clock;
    now_ns += 1000000;
    *time = (struct timespec){now_ns / 1000000000, now_ns % 1000000000};
    return 0;
}

static struct jpeg_file read_golden(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/images/%s", GOLDEN_DIR, name);
    struct jpeg_file file = {.bytes = malloc(1 << 16)};
    FILE *stream = fopen(path, "rb");
    assert_true(stream && file.bytes);
    file.length = fread(file.bytes, 1, 1 << 16, stream);
    fclose(stream);
    return file;
}

// ---- windows

static void windows_equal_the_whole(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1},   {2, 3},    {1, 70},   {70, 1},   {15, 17},
                                   {16, 16}, {33, 100}, {100, 33}, {129, 97}, {257, 190}};
    int bad = 0;
    for (int k = 0; k < JPEG_KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct jpeg_file file = jpeg_make(&jpeg_kinds[k], sizes[i][0], sizes[i][1], false);
            bad += wrong_windows(jpeg_kinds[k].name, file.bytes, file.length, 0, 60);
            for (int shortest = 1; shortest < 100; shortest *= 3) // all the reductions
                bad += wrong_windows(jpeg_kinds[k].name, file.bytes, file.length, shortest, 20);
            free(file.bytes);
        }
    assert_int_equal(bad, 0);
}

// Rows outside the window are skipped in several pieces.
static void windows_of_large_pictures(void **state)
{
    (void)state;
    static const int sizes[][2] = {{700, 300}, {100, 1700}};
    int bad = 0;
    for (int k = 0; k < JPEG_KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct jpeg_file file = jpeg_make(&jpeg_kinds[k], sizes[i][0], sizes[i][1], false);
            bad += wrong_windows(jpeg_kinds[k].name, file.bytes, file.length, 0, 8);
            bad += wrong_windows(jpeg_kinds[k].name, file.bytes, file.length, 60, 8);
            free(file.bytes);
        }
    assert_int_equal(bad, 0);
}

// In every format; EXIF behind a PNG's pixels too.
static void windows_of_turned_pictures(void **state)
{
    (void)state;
    static const char *const names[] = {
        "exif-1-le.jpg", "exif-2-be.jpg", "exif-3-le.jpg",    "exif-4-be.jpg",
        "exif-5-le.jpg", "exif-6-be.jpg", "exif-7-le.jpg",    "exif-8-be.jpg",
        "exif-3.png",    "exif-5.png",    "exif-6-after.png", "rgb-8-interlaced.png",
        "exif-3.webp",   "exif-6.webp",   "exif-8.webp",      "animation-turned.webp"};
    int bad = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct jpeg_file file = read_golden(names[i]);
        bad += wrong_windows(names[i], file.bytes, file.length, 0, 60);
        free(file.bytes);
    }
    assert_int_equal(bad, 0);
}

// ---- crops

static void same_crop(const struct jpeg_file *file, const char *name,
                      const struct preprocess *recipe)
{
    size_t size = (size_t)recipe->crop * (size_t)recipe->crop * 3;
    uint8_t *whole = malloc(size), *streamed = malloc(size);
    struct image image;
    struct preprocessed done;
    assert_true(whole && streamed);
    assert_int_equal(image_decode(file->bytes, file->length, &exact_limits, &image), STATUS_OK);
    assert_int_equal(preprocess_image(recipe, &image, whole), STATUS_OK);
    assert_int_equal(
        preprocess_bytes(recipe, file->bytes, file->length, &exact_limits, streamed, &done),
        STATUS_OK);
    assert_int_equal(done.width, image.width);
    assert_int_equal(done.height, image.height);
    if (memcmp(whole, streamed, size) != 0)
        fail_msg("%s, %d x %d, resize %d, crop %d: not the same crop", name, image.width,
                 image.height, recipe->resize, recipe->crop);
    image_release(&image);
    free(whole);
    free(streamed);
}

static void crops_equal_the_whole(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {5, 3000}, {3000, 5}, {231, 230}, {375, 501}};
    static const int recipes[][2] = {{256, 224}, {40, 3}, {17, 16}, {1, 1}};
    for (int k = 0; k < JPEG_KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct jpeg_file file = jpeg_make(&jpeg_kinds[k], sizes[i][0], sizes[i][1], false);
            for (size_t r = 0; r < sizeof recipes / sizeof *recipes; r++)
                for (int filter = 0; filter < 2; filter++) {
                    struct preprocess recipe = {.resize = recipes[r][0], .crop = recipes[r][1]};
                    recipe.interpolation = (enum interpolation)filter;
                    same_crop(&file, jpeg_kinds[k].name, &recipe);
                }
            free(file.bytes);
        }
}

// Of all the strips of rows, a look at the clock before and one behind each.
static void time_of_the_resize(void **state)
{
    (void)state;
    enum { SIDE = 3 * IMAGE_ROWS };
    struct preprocess recipe = {.resize = SIDE, .crop = SIDE};
    struct jpeg_file file = jpeg_make(&jpeg_kinds[0], SIDE, SIDE, true);
    struct preprocessed done;
    uint8_t out[SIDE * SIDE * 3];
    assert_int_equal(preprocess_bytes(&recipe, file.bytes, file.length, &exact_limits, out, &done),
                     STATUS_OK);
    assert_int_equal(done.resample_ns, 3 * 1000000);
    free(file.bytes);
}

// ---- turned and reduced

// A copy of the JPEG with EXIF of that orientation.
static struct jpeg_file with_orientation(const struct jpeg_file *file, int orientation)
{
    uint8_t exif[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, '*', 0, 0, 0, 8,
                      0,    1,    1, 18, 0,   3,   0,   0,   0, 1, 0,   0,   0, 0,   0, 0, 0, 0};
    struct jpeg_file copy = {malloc(file->length + sizeof exif), file->length + sizeof exif};
    assert_non_null(copy.bytes);
    exif[29] = (uint8_t)orientation;
    memcpy(copy.bytes, file->bytes, 2);
    memcpy(copy.bytes + 2, exif, sizeof exif);
    memcpy(copy.bytes + 2 + sizeof exif, file->bytes + 2, file->length - 2);
    return copy;
}

// Where the picture as it is stored has the pixel that is at x, y of the upright one.
static const uint8_t *stored_pixel(const struct image *stored, int orientation, int x, int y)
{
    int column = orientation >= 5 ? y : x, row = orientation >= 5 ? x : y;
    if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8)
        column = stored->width - 1 - column;
    if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7)
        row = stored->height - 1 - row;
    return stored->rgb + ((size_t)row * (size_t)stored->width + (size_t)column) * 3;
}

// Sides that the reduction divides, and those that it does not.
static void turned_pictures_are_reduced_alike(void **state)
{
    (void)state;
    static const int sizes[][2] = {{96, 80}, {97, 81}, {95, 87}, {103, 64}};
    static const int kinds[] = {0, 2, 13}; // with crops and without
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes * 3; i++)
        for (int shortest = 8; shortest <= 32; shortest *= 2) {
            struct jpeg_file file =
                jpeg_make(&jpeg_kinds[kinds[i % 3]], sizes[i / 3][0], sizes[i / 3][1], false);
            struct image stored, turned;
            int reduction = read_whole(file.bytes, file.length, &fast_limits, shortest, &stored);
            assert_int_equal(reduction, 64 / shortest);
            for (int orientation = 1; orientation <= 8; orientation++) {
                struct jpeg_file copy = with_orientation(&file, orientation);
                read_whole(copy.bytes, copy.length, &fast_limits, shortest, &turned);
                assert_int_equal(turned.width, orientation < 5 ? stored.width : stored.height);
                assert_int_equal(turned.height, orientation < 5 ? stored.height : stored.width);
                const uint8_t *pixel = turned.rgb;
                for (int y = 0; y < turned.height; y++)
                    for (int x = 0; x < turned.width; x++, pixel += 3)
                        assert_memory_equal(pixel, stored_pixel(&stored, orientation, x, y), 3);
                assert_int_equal(wrong_windows("turned", copy.bytes, copy.length, shortest, 10), 0);
                image_release(&turned);
                free(copy.bytes);
            }
            image_release(&stored);
            free(file.bytes);
        }
}

// ---- damage

// A window at the top sees nothing of the end, and yet the file must be whole.
static void refuses_truncation_outside_the_window(void **state)
{
    (void)state;
    const struct image_window first_pixel = {.width = 1, .height = 1};
    int wrong;
    for (int k = 0; k < JPEG_KINDS; k++) {
        struct jpeg_file file = jpeg_make(&jpeg_kinds[k], 65, 90, false);
        struct jpeg_file cut_file = {malloc(file.length), 3};
        assert_non_null(cut_file.bytes);
        memcpy(cut_file.bytes, file.bytes, file.length);
        for (; cut_file.length < file.length; cut_file.length += 7) {
            enum status status =
                read_window(cut_file.bytes, cut_file.length, 0, NULL, first_pixel, &wrong);
            assert_int_equal(status, STATUS_BAD_IMAGE);
            assert_string_equal(status_detail(status), "jpeg: premature end of file");
        }
        free(cut_file.bytes);
        free(file.bytes);
    }
}

static void windows_share_the_damage(void **state)
{
    (void)state;
    enum { ROUNDS = 300 };
    int bad = 0, decoded = 0;
    for (int k = 0; k < JPEG_KINDS; k++) {
        struct jpeg_file file = jpeg_make(&jpeg_kinds[k], 65, 90, false);
        bad += wrong_damaged_windows(jpeg_kinds[k].name, file.bytes, file.length, ROUNDS, &decoded);
        free(file.bytes);
    }
    assert_in_range(decoded, JPEG_KINDS * ROUNDS / 2, JPEG_KINDS * ROUNDS - 1);
    assert_int_equal(bad, 0);
}

// ---- fast decoding

// Mean and largest difference of a crop from the exact one.
static void fast_error(const struct jpeg_file *file, const struct preprocess *recipe, double *mean,
                       int *most)
{
    int size = recipe->crop * recipe->crop * 3;
    uint8_t *exact = malloc((size_t)size), *reduced = malloc((size_t)size);
    struct preprocessed done, fast_done;
    assert_true(exact && reduced);
    assert_int_equal(
        preprocess_bytes(recipe, file->bytes, file->length, &exact_limits, exact, &done),
        STATUS_OK);
    assert_int_equal(
        preprocess_bytes(recipe, file->bytes, file->length, &fast_limits, reduced, &fast_done),
        STATUS_OK);
    assert_int_equal(done.width, fast_done.width);
    assert_int_equal(done.height, fast_done.height);
    long sum = 0;
    *most = 0;
    for (int i = 0; i < size; i++) {
        int difference = abs(exact[i] - reduced[i]);
        sum += difference;
        *most = difference > *most ? difference : *most;
    }
    *mean = (double)sum / size;
    free(exact);
    free(reduced);
}

// The shorter side keeps at least 3/2 of the resize: 60 pixels for 40.
static void fast_decoding_is_close(void **state)
{
    (void)state;
    static const struct {
        int width, height;
        bool reduced;
    } sizes[] = {{119, 119, false}, {120, 121, true},  {300, 119, false}, {239, 333, true},
                 {480, 480, true},  {1003, 999, true}, {3000, 121, true}};
    for (int k = 0; k < JPEG_KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct jpeg_file file =
                jpeg_make(&jpeg_kinds[k], sizes[i].width, sizes[i].height, true);
            struct preprocess recipe = {.resize = 40, .crop = 32};
            double mean;
            int most;
            fast_error(&file, &recipe, &mean, &most);
            if (sizes[i].reduced ? mean == 0 || mean > 3 || most > 14 : most > 0)
                fail_msg("%s, %d x %d: %.2f on average, %d at most", jpeg_kinds[k].name,
                         sizes[i].width, sizes[i].height, mean, most);
            free(file.bytes);
        }
}

// A side that the reduction does not divide ends in part of a sample: taken for a whole one, it
// shifts the picture's far end by up to 7 of the file's pixels.
static void fast_decoding_keeps_the_place(void **state)
{
    (void)state;
    static const int sizes[][2] = {{31, 31},   {61, 61},   {63, 65},   {121, 121},
                                   {124, 124}, {121, 300}, {300, 121}, {127, 123}};
    struct preprocess recipe = {.resize = 10, .crop = 10};
    for (int k = 0; k < JPEG_KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            if (jpeg_kinds[k].h > 2) // chroma of 4 pixels a sample ends in a larger part
                continue;
            struct jpeg_file file = jpeg_make(&jpeg_kinds[k], sizes[i][0], sizes[i][1], true);
            double mean;
            int most;
            fast_error(&file, &recipe, &mean, &most);
            if (mean > 0.8 || most > 3)
                fail_msg("%s, %d x %d: %.2f on average, %d at most", jpeg_kinds[k].name,
                         sizes[i][0], sizes[i][1], mean, most);
            free(file.bytes);
        }
}

static void reduction_keeps_the_shortest_side(void **state)
{
    (void)state;
    static const int cases[][2] = {{1, 8},  {25, 8},  {26, 4},  {50, 4},
                                   {51, 2}, {101, 2}, {102, 1}, {0, 1}};
    struct jpeg_file file = jpeg_make(&jpeg_kinds[2], 333, 203, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int allowed = 0; allowed < 2; allowed++) {
            struct image image;
            int reduction = allowed ? cases[i][1] : 1;
            assert_int_equal(read_whole(file.bytes, file.length,
                                        allowed ? &fast_limits : &exact_limits, cases[i][0],
                                        &image),
                             reduction);
            assert_int_equal(image.width, (333 + reduction - 1) / reduction);
            assert_int_equal(image.height, (203 + reduction - 1) / reduction);
            image_release(&image);
        }
    free(file.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_equal_the_whole),
        cmocka_unit_test(windows_of_large_pictures),
        cmocka_unit_test(windows_of_turned_pictures),
        cmocka_unit_test(crops_equal_the_whole),
        cmocka_unit_test(time_of_the_resize),
        cmocka_unit_test(turned_pictures_are_reduced_alike),
        cmocka_unit_test(refuses_truncation_outside_the_window),
        cmocka_unit_test(windows_share_the_damage),
        cmocka_unit_test(fast_decoding_is_close),
        cmocka_unit_test(fast_decoding_keeps_the_place),
        cmocka_unit_test(reduction_keeps_the_shortest_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
