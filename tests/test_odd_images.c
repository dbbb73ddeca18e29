// image_decode() of files with odd metadata and odd ends, and of every golden file cut anywhere:
// what Pillow makes of each, as golden/make_odd_images.py wrote it down, but for the differences
// listed here.

#include "image.h"
#include "png_notes.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// We differ on purpose where the list says so. Metadata that are damaged, or more than Pillow's
// limits let through, are passed over: they never decide whether a picture opens. One whose rows
// are not all there is truncated, where Pillow shows black.

// Pillow 13 differs from 9.4, which decides, in these kinds of files:
// - two orientations in one directory: the first counts (exif-*-after-short, exif-short-after-*);
// - after a value that lies beyond the end, the directory is read on (exif-after-a-far-value);
// - EXIF segments of a JPEG are joined, so that an empty one hides none (segments-empty-*,
//   segments-short-*);
// - damage right after the last row of a JPEG is looked at (*-end-frame, stray-frame-*);
// - what follows the pixels of a PNG counts, also where EXIF came before (around-exif-*,
//   exif-none-then-xmp and the like);
// - XMP of no UTF-8, in a bad language, cut off or with more behind it is read (xmp-no-utf-8,
//   xmp-bad-*, xmp-international-cut, xmp-international-longer), and a damaged one in zTXt is
//   passed over (xmp-then-xmp-packed-*);
// - what a palette lacks is black (palette-*).

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

// A block of its own size, so that a sanitizer sees a byte read past it.
static uint8_t *unhex(const char *hex, size_t *length)
{
    *length = strlen(hex) / 2;
    uint8_t *bytes = malloc(*length);
    assert_non_null(bytes);
    for (size_t i = 0; i < *length; i++)
        bytes[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    return bytes;
}

// As the golden lists have it.
static void describe(const uint8_t *bytes, size_t length, bool upright, char text[64])
{
    struct image_limits limits = {.max_pixels = 1 << 20, .apply_orientation = upright};
    struct image image;
    if (image_decode(bytes, length, &limits, &image) != STATUS_OK) {
        snprintf(text, 64, "refused");
        return;
    }
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < (size_t)image.width * (size_t)image.height * 3; i++)
        hash = (hash ^ image.rgb[i]) * 0x100000001b3u;
    snprintf(text, 64, "%dx%d:%016" PRIx64, image.width, image.height, hash);
    image_release(&image);
}

static void equals_pillow(void **state)
{
    (void)state;
    FILE *file = fopen(GOLDEN_DIR "/odd_images.txt", "r");
    assert_non_null(file);
    char *line = NULL;
    size_t room = 0;
    int files = 0, wrong = 0;
    while (getline(&line, &room, file) > 0) {
        char *rest, *name = strtok_r(line, " \n", &rest), *pillow = strtok_r(NULL, " \n", &rest);
        char *expected = strtok_r(NULL, " \n", &rest), *hex = strtok_r(NULL, " \n", &rest);
        char ours[64];
        assert_non_null(hex);
        size_t length;
        uint8_t *bytes = unhex(hex, &length);
        describe(bytes, length, true, ours);
        free(bytes);
        files++;
        if (strcmp(expected, "same") == 0)
            expected = pillow;
        if (strcmp(ours, expected) != 0) {
            print_error("%s: %s, not %s (Pillow: %s)\n", name, ours, expected, pillow);
            wrong++;
        }
    }
    free(line);
    fclose(file);
    assert_in_range(files, 1000, 2000);
    assert_int_equal(wrong, 0);
}

static size_t read_file(const char *name, uint8_t *bytes, size_t room)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/images/%s", GOLDEN_DIR, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t length = fread(bytes, 1, room, file);
    assert_in_range(length, 1, room - 1);
    fclose(file);
    return length;
}

enum { MAX_LENGTH = 1 << 16 };

// Those lengths of a file that Pillow opens: the ones at which all the rows are there, as a PNG's
// are before its end.
static void read_prefixes(const char *name, bool opened[MAX_LENGTH])
{
    FILE *file = fopen(GOLDEN_DIR "/prefixes.txt", "r");
    assert_non_null(file);
    memset(opened, 0, MAX_LENGTH * sizeof *opened);
    char other[64];
    size_t first, last;
    int lines = 0;
    for (; fscanf(file, "%63s %zu %zu", other, &first, &last) == 3; lines++)
        if (strcmp(other, name) == 0)
            memset(opened + first, true, last - first + 1);
    assert_true(lines > 50);
    fclose(file);
}

static void is_cut_as_pillow(const char *name, const char *whole)
{
    static uint8_t bytes[MAX_LENGTH];
    static bool opened[MAX_LENGTH];
    size_t length = read_file(name, bytes, sizeof bytes);
    read_prefixes(name, opened);
    for (size_t cut = 0; cut < length; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, cut);
        char ours[64];
        describe(copy, cut, false, ours);
        free(copy);
        if (strcmp(ours, opened[cut] ? whole : "refused") != 0)
            fail_msg("%s cut to %zu of %zu bytes: %s", name, cut, length, ours);
    }
}

static void truncations_equal_pillow(void **state)
{
    (void)state;
    FILE *list = fopen(GOLDEN_DIR "/images/list.txt", "r");
    assert_non_null(list);
    char name[64], whole[64];
    int upright, width, height, files = 0;
    uint64_t hash;
    while (fscanf(list, "%63s %d %d %d %" SCNx64, name, &upright, &width, &height, &hash) == 5) {
        if (upright)
            continue; // the same file again
        snprintf(whole, sizeof whole, "%dx%d:%016" PRIx64, width, height, hash);
        is_cut_as_pillow(name, whole);
        files++;
    }
    fclose(list);
    assert_true(files >= 100);
}

// Appended to a JPEG whose rows are all there: `tail`, noise up to `at`, and a second frame header,
// which is damage if it is seen.
static void opens_with_a_frame_at(const char tail[5], size_t at, bool opens)
{
    static uint8_t bytes[MAX_LENGTH], longer[2 * MAX_LENGTH];
    size_t length = read_file("gray-8x8.jpg", bytes, sizeof bytes) - 2;
    memset(longer, 'x', sizeof longer);
    memcpy(longer, bytes, length);
    memcpy(longer + length, tail, 4);
    memcpy(longer + at, "\xff\xc0\0\x11", 4);
    char ours[64];
    describe(longer, sizeof longer, true, ours);
    assert_int_equal(strcmp(ours, "refused") != 0, opens);
}

// Pillow gives libjpeg the file in blocks of 64 KiB, and no other once it has all the rows.
static void damage_counts_up_to_the_end_of_the_block(void **state)
{
    (void)state;
    opens_with_a_frame_at("text", 1000, false);
    opens_with_a_frame_at("text", MAX_LENGTH - 30, false);
    opens_with_a_frame_at("text", MAX_LENGTH - 2, true);
    opens_with_a_frame_at("text", MAX_LENGTH, true);
    for (size_t at = MAX_LENGTH; at < MAX_LENGTH + 2000; at++) // a comment leads up to one of them
        opens_with_a_frame_at("\xff\xfe\xff\xff", at, true);
}

// "XML:com.adobe.xmp", and tiff:Orientation="6" or "3" packed.
static const uint8_t packed_6[] = {
    0x58, 0x4d, 0x4c, 0x3a, 0x63, 0x6f, 0x6d, 0x2e, 0x61, 0x64, 0x6f, 0x62, 0x65, 0x2e, 0x78, 0x6d,
    0x70, 0x00, 0x00, 0x78, 0xda, 0x2b, 0xc9, 0x4c, 0x4b, 0xb3, 0xf2, 0x2f, 0xca, 0x4c, 0xcd, 0x2b,
    0x49, 0x2c, 0xc9, 0xcc, 0xcf, 0xb3, 0x55, 0x32, 0x53, 0x02, 0x00, 0x51, 0x41, 0x07, 0x27};
static const uint8_t packed_3[] = {
    0x58, 0x4d, 0x4c, 0x3a, 0x63, 0x6f, 0x6d, 0x2e, 0x61, 0x64, 0x6f, 0x62, 0x65, 0x2e, 0x78, 0x6d,
    0x70, 0x00, 0x00, 0x78, 0xda, 0x2b, 0xc9, 0x4c, 0x4b, 0xb3, 0xf2, 0x2f, 0xca, 0x4c, 0xcd, 0x2b,
    0x49, 0x2c, 0xc9, 0xcc, 0xcf, 0xb3, 0x55, 0x32, 0x56, 0x02, 0x00, 0x51, 0x3b, 0x07, 0x24};

static void texts_are_unpacked_up_to_a_limit(void **state)
{
    (void)state;
    const uint8_t *type = (const uint8_t *)"zTXt";
    struct png_notes notes = {0};
    png_notes_add(&notes, type, packed_3, sizeof packed_3);
    assert_int_equal(png_notes_orientation(&notes), 3);
    for (int i = 0; i < 1024; i++) // each for 64 KiB of 64 MiB
        png_notes_add(&notes, type, packed_6, sizeof packed_6);
    assert_int_equal(png_notes_orientation(&notes), 6);
    png_notes_add(&notes, type, packed_3, sizeof packed_3);
    assert_int_equal(png_notes_orientation(&notes), 6);
    png_notes_release(&notes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pillow),
        cmocka_unit_test(truncations_equal_pillow),
        cmocka_unit_test(damage_counts_up_to_the_end_of_the_block),
        cmocka_unit_test(texts_are_unpacked_up_to_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
