// Decoding under a guard: what it is told before memory is taken, how often it is asked, and that
// it is obeyed.

#include "image.h"
#include "jpeg_files.h"
#include <arpa/inet.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <webp/encode.h>
#include <zlib.h>

enum { WIDTH = 1000, HEIGHT = 700, PIXELS = WIDTH * HEIGHT };

struct watcher {
    struct image_guard guard;
    struct image_sink sink;
    struct image_window window; // no width: all of the picture
    int64_t pixels, bytes;      // admitted
    int admits, checks, unwatched, begins, rows;
    int fail_at; // the check that fails; 0: none
    enum status admittance;
    int64_t before, most; // bytes that are allocated
};

static struct watcher *of_sink(struct image_sink *sink)
{
    return (struct watcher *)((char *)sink - offsetof(struct watcher, sink));
}

static void measure(struct watcher *watcher)
{
    struct mallinfo2 info = mallinfo2();
    int64_t now = (int64_t)(info.uordblks + info.hblkhd) - watcher->before;
    watcher->most = now > watcher->most ? now : watcher->most;
}

static enum status admit(struct image_guard *guard, int64_t pixels, int64_t bytes)
{
    struct watcher *watcher = (struct watcher *)guard;
    watcher->admits++;
    watcher->pixels += pixels;
    watcher->bytes += bytes;
    measure(watcher);
    assert_int_equal(watcher->begins, 0);
    return watcher->admittance;
}

static enum status check(struct image_guard *guard)
{
    struct watcher *watcher = (struct watcher *)guard;
    measure(watcher);
    if (++watcher->checks == watcher->fail_at)
        return status_fail(STATUS_CANCELLED, "check %d", watcher->checks);
    return STATUS_OK;
}

static enum status unwatched(struct image_guard *guard)
{
    struct watcher *watcher = (struct watcher *)guard;
    watcher->unwatched++;
    return STATUS_OK;
}

static enum status begin(struct image_sink *sink, const struct image_size *size,
                         struct image_window *window)
{
    struct watcher *watcher = of_sink(sink);
    watcher->begins++;
    *window = watcher->window.width ? watcher->window
                                    : (struct image_window){0, 0, size->width, size->height};
    return STATUS_OK;
}

static void rows(struct image_sink *sink, const uint8_t *const *lines, int count)
{
    (void)lines;
    of_sink(sink)->rows += count;
    measure(of_sink(sink));
}

static struct watcher watch(void)
{
    struct mallinfo2 info = mallinfo2();
    return (struct watcher){.guard = {admit, check, unwatched},
                            .sink = {.begin = begin, .rows = rows},
                            .before = (int64_t)(info.uordblks + info.hblkhd)};
}

// ---- files --------------------------------------------------------------------------------------

// Orientation 6: the picture lies on its side.
static const uint8_t exif[] = "Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
                              "\0\0\0\0";

// A copy with more bytes in it.
static struct jpeg_file insert(const struct jpeg_file file, size_t at, const void *bytes,
                               size_t count)
{
    struct jpeg_file longer = {malloc(file.length + count), file.length + count};
    assert_non_null(longer.bytes);
    memcpy(longer.bytes, file.bytes, at);
    memcpy(longer.bytes + at, bytes, count);
    memcpy(longer.bytes + at + count, file.bytes + at, file.length - at);
    return longer;
}

static struct jpeg_file turned_jpeg(const struct jpeg_file upright)
{
    uint8_t segment[4 + sizeof exif - 1] = {0xff, 0xe1, 0, sizeof segment - 2};
    memcpy(segment + 4, exif, sizeof exif - 1);
    return insert(upright, 2, segment, sizeof segment);
}

static struct jpeg_file turned_png(const struct jpeg_file upright)
{
    enum { TIFF = sizeof exif - 1 - 6, AFTER_IHDR = 33 };
    uint8_t chunk[12 + TIFF] = {0, 0, 0, TIFF, 'e', 'X', 'I', 'f'};
    memcpy(chunk + 8, exif + 6, TIFF);
    const uint32_t crc = htonl((uint32_t)crc32(0, chunk + 4, 4 + TIFF));
    memcpy(chunk + 8 + TIFF, &crc, 4);
    return insert(upright, AFTER_IHDR, chunk, sizeof chunk);
}

static uint8_t *colours(void)
{
    uint8_t *rgb = malloc((size_t)PIXELS * 3);
    assert_non_null(rgb);
    for (int i = 0; i < PIXELS * 3; i++)
        rgb[i] = (uint8_t)(i / 64 * 7 + i % 3);
    return rgb;
}

static struct jpeg_file png_file(void)
{
    uint8_t *rgb = colours(), *bytes;
    size_t length;
    assert_int_equal(png_write(rgb, WIDTH, HEIGHT, &bytes, &length), STATUS_OK);
    free(rgb);
    return (struct jpeg_file){bytes, length};
}

static struct jpeg_file webp_file(bool lossless)
{
    uint8_t *rgb = colours(), *theirs;
    size_t length = lossless ? WebPEncodeLosslessRGB(rgb, WIDTH, HEIGHT, WIDTH * 3, &theirs)
                             : WebPEncodeRGB(rgb, WIDTH, HEIGHT, WIDTH * 3, 50, &theirs);
    struct jpeg_file file = {malloc(length), length};
    assert_true(length > 0 && file.bytes);
    memcpy(file.bytes, theirs, length);
    WebPFree(theirs);
    free(rgb);
    return file;
}

// Every kind of JPEG and a PNG, each upright and turned, then the kinds of WebP.
enum { FIRST_PNG = 2 * JPEG_KINDS, FIRST_WEBP = FIRST_PNG + 2, FILES = FIRST_WEBP + 2 };
static struct jpeg_file files[FILES];

static int open_files(void **state)
{
    (void)state;
    for (int i = 0; i < JPEG_KINDS; i++) {
        files[2 * i] = jpeg_make(&jpeg_kinds[i], WIDTH, HEIGHT, true);
        files[2 * i + 1] = turned_jpeg(files[2 * i]);
    }
    files[FIRST_PNG] = png_file();
    files[FIRST_PNG + 1] = turned_png(files[FIRST_PNG]);
    files[FIRST_WEBP] = webp_file(false);
    files[FIRST_WEBP + 1] = webp_file(true);
    return 0;
}

static int close_files(void **state)
{
    (void)state;
    for (int i = 0; i < FILES; i++)
        free(files[i].bytes);
    return 0;
}

static enum status read_file(struct watcher *watcher, int i)
{
    const struct image_limits limits = {
        .max_pixels = 1 << 25, .apply_orientation = true, .guard = &watcher->guard};
    return image_read(files[i].bytes, files[i].length, &limits, &watcher->sink);
}

// ---- tests --------------------------------------------------------------------------------------

static void admits_what_is_taken(void **state)
{
    (void)state;
    for (int i = 0; i < FILES; i++) {
        struct watcher watcher = watch();
        assert_int_equal(read_file(&watcher, i), STATUS_OK);
        assert_int_equal(watcher.admits, 1);
        assert_int_equal(watcher.pixels, PIXELS);
        assert_true(watcher.rows == WIDTH || watcher.rows == HEIGHT);
        // What libwebp holds meanwhile is not seen here, nor anything under a sanitizer.
        const bool too_much = i < FIRST_WEBP && watcher.bytes > 2 * watcher.most + (1 << 20);
        if (watcher.most > 0 && (watcher.most > watcher.bytes || too_much))
            fail_msg("file %d: %lld bytes taken, %lld admitted", i, (long long)watcher.most,
                     (long long)watcher.bytes);
    }
}

static void begins_nothing_that_is_not_admitted(void **state)
{
    (void)state;
    for (int i = 0; i < FILES; i++) {
        struct watcher watcher = watch();
        watcher.admittance = STATUS_OUT_OF_MEMORY;
        assert_int_equal(read_file(&watcher, i), STATUS_OUT_OF_MEMORY);
        assert_int_equal(watcher.begins + watcher.checks, 0);
        assert_true(watcher.most < 1 << 18);
    }
}

// A window of one pixel, at the top or at the bottom: the rest is work all the same.
static void checks_while_rows_are_skipped(void **state)
{
    (void)state;
    for (int i = 0; i < FIRST_WEBP; i++)
        for (int bottom = 0; bottom < 2; bottom++) {
            struct watcher watcher = watch();
            watcher.window = (struct image_window){
                .top = bottom ? (i % 2 ? WIDTH : HEIGHT) - 1 : 0, .width = 1, .height = 1};
            assert_int_equal(read_file(&watcher, i), STATUS_OK);
            if (watcher.checks < PIXELS / (1 << 17))
                fail_msg("file %d: %d checks in %d pixels", i, watcher.checks, PIXELS);
            assert_int_equal(watcher.unwatched, 0);
        }
}

// The window is copied, turned, and copied again.
static void checks_while_pictures_are_turned(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * JPEG_KINDS; i += 2) {
        struct watcher upright = watch(), on_its_side = watch();
        assert_int_equal(read_file(&upright, i), STATUS_OK);
        assert_int_equal(read_file(&on_its_side, i + 1), STATUS_OK);
        if (on_its_side.checks - upright.checks < 3 * PIXELS / (1 << 17))
            fail_msg("file %d: %d checks, %d upright", i, on_its_side.checks, upright.checks);
    }
}

// Large pictures in a format whose decoder cannot be asked.
static void tells_what_cannot_be_checked(void **state)
{
    (void)state;
    for (int i = FIRST_WEBP; i < FILES; i++) {
        struct watcher watcher = watch();
        assert_int_equal(read_file(&watcher, i), STATUS_OK);
        assert_int_equal(watcher.unwatched, 1);
    }
}

static void stops_where_it_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < FILES; i++) {
        char detail[16];
        struct watcher all = watch();
        assert_int_equal(read_file(&all, i), STATUS_OK);
        assert_true(all.checks >= 3);
        for (int at = 1; at <= all.checks; at += all.checks / 3) {
            struct watcher watcher = watch();
            watcher.fail_at = at;
            assert_int_equal(read_file(&watcher, i), STATUS_CANCELLED);
            snprintf(detail, sizeof detail, "check %d", at);
            assert_string_equal(status_detail(STATUS_CANCELLED), detail);
            assert_int_equal(watcher.checks, at);
            assert_true(watcher.rows <= all.rows);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(admits_what_is_taken),
        cmocka_unit_test(begins_nothing_that_is_not_admitted),
        cmocka_unit_test(checks_while_rows_are_skipped),
        cmocka_unit_test(checks_while_pictures_are_turned),
        cmocka_unit_test(tells_what_cannot_be_checked),
        cmocka_unit_test(stops_where_it_is_told),
    };
    return cmocka_run_group_tests(tests, open_files, close_files);
}
