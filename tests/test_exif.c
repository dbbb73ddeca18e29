// exif_orientation(): the right value, and 1 for everything malformed.

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
        {0, 'I', 1},   {1, 'I', 1},            // a broken mark
        {2, 1, 1},     {3, 43, 1},             // another format
        {4, 0xff, 1},  {6, 1, 1},              // the directory far away
        {7, 24, 1},    {7, 25, 1},  {7, 0, 1}, // at the end; across the end; in the header
        {8, 0xff, 6},                          // many entries, the first is good
        {9, 0, 1},                             // no entry
        {11, 0x13, 1}, {13, 4, 1},             // another tag; another type
        {17, 2, 1},    {14, 1, 1},             // several values
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
        assert_int_equal(orientation_of(good, length), length < 22 ? 1 : 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks_every_field),
        cmocka_unit_test(reads_both_byte_orders),
        cmocka_unit_test(survives_every_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
