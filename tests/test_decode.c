// The way of a picture row by row: image_read() of any window against the same part of
// image_decode(), preprocess_bytes() against preprocess_image(), and fast decoding, over JPEGs of
// every kind that libjpeg can write.

#include "jpeg_files.h"
#include "preprocess.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

static const struct image_limits limits = {.max_pixels = 1 << 25, .apply_orientation = true};
static const struct image_limits fast = {
    .max_pixels = 1 << 25, .apply_orientation = true, .fast_decode = true};

// ---- windows

// Asks for a window. Keeps it, or compares it with that part of a picture that was kept.
struct cutter {
    struct image_sink sink;
    struct image *keep;        // allocated by begin; all of the picture
    const struct image *whole; // else, or NULL: pixels do not matter
    struct image_window window;
    int reduction, rows, wrong;
};

static enum status cutter_begin(struct image_sink *sink, const struct image_size *size,
                                struct image_window *window)
{
    struct cutter *cutter = (struct cutter *)sink;
    int width = (size->width + size->reduction - 1) / size->reduction;
    int height = (size->height + size->reduction - 1) / size->reduction;
    cutter->reduction = size->reduction;
    if (cutter->keep) {
        *cutter->keep = (struct image){malloc((size_t)width * (size_t)height * 3), width, height};
        assert_non_null(cutter->keep->rgb);
        cutter->window = (struct image_window){0, 0, width, height};
    } else if (cutter->whole) {
        assert_true(width == cutter->whole->width && height == cutter->whole->height);
    }
    *window = cutter->window;
    return STATUS_OK;
}

static void cutter_rows(struct image_sink *sink, const uint8_t *const *rows, int count)
{
    struct cutter *cutter = (struct cutter *)sink;
    const struct image *whole = cutter->keep ? cutter->keep : cutter->whole;
    size_t bytes = (size_t)cutter->window.width * 3;
    assert_in_range(count, 1, IMAGE_ROWS);
    for (int i = 0; whole && i < count; i++, cutter->rows++) {
        size_t y = (size_t)(cutter->window.top + cutter->rows);
        uint8_t *at = whole->rgb + (y * (size_t)whole->width + (size_t)cutter->window.left) * 3;
        if (cutter->keep)
            memcpy(at, rows[i], bytes);
        else
            cutter->wrong += memcmp(at, rows[i], bytes) != 0;
    }
}

// shortest: for a fast decoding of that; 0 is exact.
static enum status cut(const struct jpeg_file *file, int shortest, const struct image *whole,
                       struct image_window window, int *wrong)
{
    struct cutter cutter = {
        .sink = {shortest, cutter_begin, cutter_rows}, .whole = whole, .window = window};
    enum status status =
        image_read(file->bytes, file->length, shortest ? &fast : &limits, &cutter.sink);
    if (status == STATUS_OK && whole)
        assert_int_equal(cutter.rows, window.height);
    *wrong = cutter.wrong;
    return status;
}

static struct image_window random_window(const struct image *image)
{
    struct image_window window;
    window.width = 1 + (int)jpeg_random((uint32_t)image->width);
    window.height = 1 + (int)jpeg_random((uint32_t)image->height);
    if (jpeg_random(2)) // a small one, well inside of a large picture
        window.width = 1 + window.width / 8;
    window.left = (int)jpeg_random((uint32_t)(image->width - window.width + 1));
    window.top = (int)jpeg_random((uint32_t)(image->height - window.height + 1));
    return window;
}

static int wrong_windows(const struct jpeg_file *file, const char *name, int shortest, int count)
{
    struct image whole;
    int bad = 0, wrong;
    struct cutter keeper = {.sink = {shortest, cutter_begin, cutter_rows}, .keep = &whole};
    if (shortest)
        assert_int_equal(image_read(file->bytes, file->length, &fast, &keeper.sink), STATUS_OK);
    else
        assert_int_equal(image_decode(file->bytes, file->length, &limits, &whole), STATUS_OK);
    for (int i = 0; i < count; i++) {
        struct image_window window = random_window(&whole);
        assert_int_equal(cut(file, shortest, &whole, window, &wrong), STATUS_OK);
        if (wrong)
            print_error("%s, %d x %d: %d wrong rows in %d x %d at %d, %d\n", name, whole.width,
                        whole.height, wrong, window.width, window.height, window.left, window.top);
        bad += wrong != 0;
    }
    image_release(&whole);
    return bad;
}

static void windows_equal_the_whole(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1},   {2, 3},    {1, 70},   {70, 1},   {15, 17},
                                   {16, 16}, {33, 100}, {100, 33}, {129, 97}, {257, 190}};
    int bad = 0;
    for (int k = 0; k < JPEG_KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct jpeg_file file = jpeg_make(&jpeg_kinds[k], sizes[i][0], sizes[i][1], false);
            bad += wrong_windows(&file, jpeg_kinds[k].name, 0, 60);
            for (int shortest = 1; shortest < 100; shortest *= 3) // all the reductions
                bad += wrong_windows(&file, jpeg_kinds[k].name, shortest, 20);
            free(file.bytes);
        }
    assert_int_equal(bad, 0);
}

// As JPEG and as PNG; EXIF behind a PNG's pixels too.
static void windows_of_turned_pictures(void **state)
{
    (void)state;
    static const char *const names[] = {
        "exif-1-le.jpg", "exif-2-be.jpg", "exif-3-le.jpg",    "exif-4-be.jpg",
        "exif-5-le.jpg", "exif-6-be.jpg", "exif-7-le.jpg",    "exif-8-be.jpg",
        "exif-3.png",    "exif-5.png",    "exif-6-after.png", "rgb-8-interlaced.png"};
    int bad = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct jpeg_file file = read_golden(names[i]);
        bad += wrong_windows(&file, names[i], 0, 60);
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
    assert_int_equal(image_decode(file->bytes, file->length, &limits, &image), STATUS_OK);
    assert_int_equal(preprocess_image(recipe, &image, whole), STATUS_OK);
    assert_int_equal(preprocess_bytes(recipe, file->bytes, file->length, &limits, streamed, &done),
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

// ---- damage

static const struct image_window first_pixel = {.width = 1, .height = 1};

// A window at the top sees nothing of the end, and yet the file must be whole.
static void refuses_truncation_outside_the_window(void **state)
{
    (void)state;
    int wrong;
    for (int k = 0; k < JPEG_KINDS; k++) {
        struct jpeg_file file = jpeg_make(&jpeg_kinds[k], 65, 90, false);
        struct jpeg_file cut_file = {malloc(file.length), 3};
        assert_non_null(cut_file.bytes);
        memcpy(cut_file.bytes, file.bytes, file.length);
        for (; cut_file.length < file.length; cut_file.length += 7) {
            enum status status = cut(&cut_file, 0, NULL, first_pixel, &wrong);
            assert_int_equal(status, STATUS_BAD_IMAGE);
            assert_string_equal(status_detail(status), "jpeg: premature end of file");
        }
        free(cut_file.bytes);
        free(file.bytes);
    }
}

// Whatever is wrong with a file, a window of it has the status, the detail and the pixels of the
// whole. Returns whether it does.
static bool damaged_alike(const struct jpeg_file *file, int *decoded)
{
    struct image whole;
    char detail[256];
    int wrong = 0;
    enum status status = image_decode(file->bytes, file->length, &limits, &whole), again;
    if (status == STATUS_OK) {
        again = cut(file, 0, &whole, random_window(&whole), &wrong);
        (*decoded)++;
    } else {
        snprintf(detail, sizeof detail, "%s", status_detail(status));
        again = cut(file, 0, NULL, first_pixel, &wrong);
        if (again == status)
            wrong = strcmp(detail, status_detail(again)) != 0;
    }
    image_release(&whole);
    return status == again && !wrong;
}

static void windows_share_the_damage(void **state)
{
    (void)state;
    enum { ROUNDS = 300 };
    int bad = 0, decoded = 0;
    for (int k = 0; k < JPEG_KINDS; k++) {
        struct jpeg_file file = jpeg_make(&jpeg_kinds[k], 65, 90, false);
        struct jpeg_file damaged = {malloc(file.length), file.length};
        assert_non_null(damaged.bytes);
        for (int round = 0; round < ROUNDS; round++) {
            memcpy(damaged.bytes, file.bytes, file.length);
            for (int flips = 0; flips <= round % 3; flips++)
                damaged.bytes[jpeg_random((uint32_t)file.length)] ^= (uint8_t)(1 << jpeg_random(8));
            if (!damaged_alike(&damaged, &decoded)) {
                print_error("%s, round %d: not the same\n", jpeg_kinds[k].name, round);
                bad++;
            }
        }
        free(damaged.bytes);
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
    assert_int_equal(preprocess_bytes(recipe, file->bytes, file->length, &limits, exact, &done),
                     STATUS_OK);
    assert_int_equal(
        preprocess_bytes(recipe, file->bytes, file->length, &fast, reduced, &fast_done), STATUS_OK);
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

static void reduction_keeps_the_shortest_side(void **state)
{
    (void)state;
    static const int cases[][2] = {{1, 8},  {25, 8},  {26, 4},  {50, 4},
                                   {51, 2}, {101, 2}, {102, 1}, {0, 1}};
    struct jpeg_file file = jpeg_make(&jpeg_kinds[2], 333, 203, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int allowed = 0; allowed < 2; allowed++) {
            struct image image;
            struct cutter keeper = {.sink = {cases[i][0], cutter_begin, cutter_rows},
                                    .keep = &image};
            int reduction = allowed ? cases[i][1] : 1;
            assert_int_equal(
                image_read(file.bytes, file.length, allowed ? &fast : &limits, &keeper.sink),
                STATUS_OK);
            assert_int_equal(keeper.reduction, reduction);
            assert_int_equal(image.width, (333 + reduction - 1) / reduction);
            assert_int_equal(image.height, (203 + reduction - 1) / reduction);
            assert_int_equal(keeper.rows, image.height);
            image_release(&image);
        }
    free(file.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_equal_the_whole),
        cmocka_unit_test(windows_of_turned_pictures),
        cmocka_unit_test(crops_equal_the_whole),
        cmocka_unit_test(refuses_truncation_outside_the_window),
        cmocka_unit_test(windows_share_the_damage),
        cmocka_unit_test(fast_decoding_is_close),
        cmocka_unit_test(reduction_keeps_the_shortest_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
