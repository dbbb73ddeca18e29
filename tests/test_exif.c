// exif_orientation(): the right value, 1 for what is none, 0 for everything malformed. More of it,
// against Pillow, is in test_odd_images.c.

#include "exif.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// "MM\0*", the directory at 8: one entry, orientation 6, and no next directory.
static const uint8_t good[26] = {'M',  'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01,
                                 0x12, 0,   3, 0,  0, 0, 1, 0, 6, 0, 0};

// Of a copy in a block of its own size, so that a sanitizer sees a byte read past it.
static int orientation_of(const uint8_t *tiff, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, tiff, length);
    int orientation = exif_orientation(copy, length);
    free(copy);
    return orientation;
}

static void checks_every_field(void **state)
{
    (void)state;
    static const struct {
        int at;
        uint8_t value;
        int expected;
    } changes[] = {
        {25, 0, 6},                            // none
        {19, 1, 1},    {19, 8, 8},             // other orientations
        {19, 0, 1},    {19, 9, 1},             // no orientations
        {18, 1, 1},                            // 262
        {0, 'I', 0},   {1, 'I', 0},            // a broken mark
        {2, 1, 0},     {3, 43, 6},             // another format; BigTIFF's mark, taken for this one
        {4, 0xff, 0},  {6, 1, 0},              // the directory far away
        {7, 24, 0},    {7, 25, 0},  {7, 0, 0}, // at the end; across the end; in the header
        {8, 0xff, 6},                          // many entries, the first is good
        {9, 0, 0},                             // no entry
        {11, 0x13, 0},                         // another tag
        {13, 8, 6},    {13, 4, 1},  {13, 1, 1}, // a signed one; 6 << 16; a byte, and it is none
        {13, 0, 0},    {13, 17, 0}, {12, 1, 0}, // no types
        {17, 2, 6},    {17, 0, 0},              // two values, the first counts; none
        {17, 3, 0},    {14, 1, 0},              // values elsewhere, beyond the end
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        uint8_t tiff[sizeof good];
        memcpy(tiff, good, sizeof good);
        tiff[changes[i].at] = changes[i].value;
        assert_int_equal(orientation_of(tiff, sizeof tiff), changes[i].expected);
    }
}

static void reads_both_byte_orders(void **state)
{
    (void)state;
    static const uint8_t little[22] = {'I',  'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12,
                                       0x01, 3,   0,   1, 0, 0, 0, 6, 0, 0, 0};
    assert_int_equal(orientation_of(good, sizeof good), 6);
    assert_int_equal(orientation_of(little, sizeof little), 6);
}

static void survives_every_truncation(void **state)
{
    (void)state;
    for (size_t length = 0; length < sizeof good; length++)
        assert_int_equal(orientation_of(good, length), length < 22 ? 0 : 6);
}

// The values lie right at the end, or one byte further.
static void reads_values_elsewhere(void **state)
{
    (void)state;
    static const uint8_t tiff[34] = {'M', 'M', 0, 42, 0, 0,  0, 8, 0, 1,  0x01, 0x12,
                                     0,   5,   0, 0,  0, 1,  0, 0, 0, 26, 0,    0,
                                     0,   0,   0, 0,  0, 12, 0, 0, 0, 2};
    uint8_t changed[sizeof tiff];
    memcpy(changed, tiff, sizeof tiff);
    assert_int_equal(orientation_of(tiff, sizeof tiff), 6);
    assert_int_equal(orientation_of(tiff, sizeof tiff - 1), 0);
    for (int offset = 27; offset < 256; offset++) {
        changed[21] = (uint8_t)offset;
        assert_int_equal(orientation_of(changed, sizeof changed), 0);
    }
    memset(changed + 18, 0xff, 4);
    assert_int_equal(orientation_of(changed, sizeof changed), 0);
    changed[21] = 26;
    memset(changed + 14, 0xff, 4);
    assert_int_equal(orientation_of(changed, sizeof changed), 0);
}

static void passes_over_a_prefix(void **state)
{
    (void)state;
    uint8_t block[6 + sizeof good] = "Exif\0";
    memcpy(block + 6, good, sizeof good);
    assert_int_equal(exif_block_orientation(block, sizeof block), 6);
    assert_int_equal(exif_block_orientation(good, sizeof good), 6);
    for (size_t length = 0; length < 6 + 22; length++)
        assert_int_equal(exif_block_orientation(block, length), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks_every_field),        cmocka_unit_test(reads_both_byte_orders),
        cmocka_unit_test(survives_every_truncation), cmocka_unit_test(reads_values_elsewhere),
        cmocka_unit_test(passes_over_a_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
