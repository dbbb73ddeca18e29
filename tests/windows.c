#include "windows.h"
#include "jpeg_files.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct image_limits exact_limits = {.max_pixels = 1 << 25, .apply_orientation = true};
const struct image_limits fast_limits = {
    .max_pixels = 1 << 25, .apply_orientation = true, .fast_decode = true};

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

enum status read_window(const uint8_t *bytes, size_t length, int shortest,
                        const struct image *whole, struct image_window window, int *wrong)
{
    struct cutter cutter = {
        .sink = {shortest, cutter_begin, cutter_rows}, .whole = whole, .window = window};
    enum status status =
        image_read(bytes, length, shortest ? &fast_limits : &exact_limits, &cutter.sink);
    if (status == STATUS_OK && whole)
        assert_int_equal(cutter.rows, window.height);
    *wrong = cutter.wrong;
    return status;
}

int read_whole(const uint8_t *bytes, size_t length, const struct image_limits *limits, int shortest,
               struct image *image)
{
    struct cutter keeper = {.sink = {shortest, cutter_begin, cutter_rows}, .keep = image};
    assert_int_equal(image_read(bytes, length, limits, &keeper.sink), STATUS_OK);
    assert_int_equal(keeper.rows, image->height);
    return keeper.reduction;
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

int wrong_windows(const char *name, const uint8_t *bytes, size_t length, int shortest, int count)
{
    struct image whole;
    int bad = 0, wrong;
    if (shortest)
        read_whole(bytes, length, &fast_limits, shortest, &whole);
    else
        assert_int_equal(image_decode(bytes, length, &exact_limits, &whole), STATUS_OK);
    for (int i = 0; i < count; i++) {
        struct image_window window = random_window(&whole);
        assert_int_equal(read_window(bytes, length, shortest, &whole, window, &wrong), STATUS_OK);
        if (wrong)
            print_error("%s, %d x %d: %d wrong rows in %d x %d at %d, %d\n", name, whole.width,
                        whole.height, wrong, window.width, window.height, window.left, window.top);
        bad += wrong != 0;
    }
    image_release(&whole);
    return bad;
}

static bool damaged_alike(const uint8_t *bytes, size_t length, int *decoded)
{
    struct image whole;
    char detail[256];
    int wrong = 0;
    enum status status = image_decode(bytes, length, &exact_limits, &whole), again;
    if (status == STATUS_OK) {
        again = read_window(bytes, length, 0, &whole, random_window(&whole), &wrong);
        (*decoded)++;
    } else {
        struct image_window first_pixel = {.width = 1, .height = 1};
        snprintf(detail, sizeof detail, "%s", status_detail(status));
        again = read_window(bytes, length, 0, NULL, first_pixel, &wrong);
        if (again == status)
            wrong = strcmp(detail, status_detail(again)) != 0;
    }
    image_release(&whole);
    return status == again && !wrong;
}

int wrong_damaged_windows(const char *name, const uint8_t *bytes, size_t length, int rounds,
                          int *decoded)
{
    int bad = 0;
    uint8_t *damaged = malloc(length);
    assert_non_null(damaged);
    for (int round = 0; round < rounds; round++) {
        memcpy(damaged, bytes, length);
        for (int flips = 0; flips <= round % 3; flips++)
            damaged[jpeg_random((uint32_t)length)] ^= (uint8_t)(1 << jpeg_random(8));
        if (!damaged_alike(damaged, length, decoded)) {
            print_error("%s, round %d: not the same\n", name, round);
            bad++;
        }
    }
    free(damaged);
    return bad;
}
