// server/zip.c: what torch.save would write is found; what is not quite that is refused. Each
// archive lies in a heap block of its exact size, so that AddressSanitizer sees any read behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "zip.h"
#include "zip_files.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct zip_part parts[] = {
    {"vit/data.pkl", "pickle", 6},
    {"vit/data/10", "ten.", 4},
    {"vit/data/1", "one", 3},
    {"vit/empty", "", 0},
};

enum { PARTS = sizeof parts / sizeof parts[0] };

static void test_well_formed(void **state)
{
    (void)state;
    for (int zip64 = 0; zip64 < 2; zip64++) {
        struct zip_file file = zip_make(parts, PARTS, zip64);
        struct zip zip;
        const enum status status = zip_init("zip", file.bytes, file.length, &zip);
        if (status != STATUS_OK)
            fail_msg("zip64 %d: %s", zip64, status_detail(status));
        assert_int_equal(zip.count, PARTS);
        for (size_t i = 0; i < PARTS; i++) {
            const struct zip_entry *entry = zip_find(&zip, parts[i].name, strlen(parts[i].name));
            assert_non_null(entry);
            assert_int_equal(entry->bytes, parts[i].bytes);
            assert_memory_equal(entry->data, parts[i].data, parts[i].bytes);
            assert_int_equal(entry->name_bytes, strlen(parts[i].name));
            assert_memory_equal(entry->name, parts[i].name, entry->name_bytes);
        }
        assert_null(zip_find(&zip, "vit/data/2", 10));
        assert_null(zip_find(&zip, "vit/data/", 9));
        assert_null(zip_find(&zip, "", 0));
        zip_release(&zip);
        free(file.bytes);
    }
    struct zip_file file = zip_make(parts, 0, 0);
    struct zip zip;
    assert_int_equal(zip_init("zip", file.bytes, file.length, &zip), STATUS_OK);
    assert_int_equal(zip.count, 0);
    assert_null(zip_find(&zip, "vit/data.pkl", 12));
    zip_release(&zip);
    free(file.bytes);
}

static void expect_refused(struct zip_file file, size_t length, const char *words)
{
    struct zip zip = {.count = 7};
    uint8_t *exact = malloc(length ? length : 1);
    assert_non_null(exact);
    memcpy(exact, file.bytes, length);
    const enum status status = zip_init("zip", exact, length, &zip);
    if (status != STATUS_BAD_WEIGHTS || !strstr(status_detail(status), words))
        fail_msg("expected \"%s\", got %s: %s", words, status_code(status), status_detail(status));
    assert_null(zip.entries);
    assert_int_equal(zip.count, 0);
    free(exact);
}

// A number written over one of an archive, at a place counted from one of its records. The first
// entry's record has 46 bytes, a name of 12, and with ZIP64 two fields of 5 and 28.
enum origin { HEADER, DIRECTORY, SECOND, END64, LOCATOR64, END };

static const struct {
    bool zip64;
    enum origin origin;
    size_t at;
    uint64_t number;
    size_t bytes;
    const char *words;
} changes[] = {
    {false, END, 0, 0x06054b51, 4, "are no end of an archive: is the file cut short?"},
    {false, END, 10, 3, 2, "a directory of 3 entries in 226 bytes"},
    {false, END, 10, 5, 2, "a directory of 5 entries in 226 bytes"},
    {false, END, 10, 65535, 2, "expected a ZIP64 locator before the end"},
    {false, END, 12, 100, 4, "a directory of 4 entries in 100 bytes"},
    {false, END, 12, 225, 4, "passes the directory's end"},
    {false, END, 12, 1000, 4, "zip: a directory of 1000 bytes at byte"},
    {false, END, 16, 1000, 4, "at byte 1000, expected it before byte"},
    {false, END, 16, 1, 4, "zip: expected an entry at byte 1"},
    {false, DIRECTORY, 0, 0, 1, "zip: expected an entry at byte"},
    {false, DIRECTORY, 8, 0x809, 2, "zip: entry \"vit/data.pkl\" is encrypted"},
    {false, DIRECTORY, 8, 0x2808, 2, "zip: entry \"vit/data.pkl\" is encrypted"},
    {false, DIRECTORY, 10, 8, 2, "zip: entry \"vit/data.pkl\" is compressed"},
    {false, DIRECTORY, 20, 5, 4, "zip: entry \"vit/data.pkl\" is compressed"},
    {false, DIRECTORY, 28, 60000, 2, "passes the directory's end"},
    {false, DIRECTORY, 28, 11, 2, "entry \"vit/data.pk\" has another name at byte 0"},
    {false, DIRECTORY, 30, 60000, 2, "passes the directory's end"},
    {false, DIRECTORY, 32, 60000, 2, "passes the directory's end"},
    {false, DIRECTORY, 42, 1, 4, "\"vit/data.pkl\": expected its header at byte 1"},
    {false, DIRECTORY, 42, UINT32_MAX - 1, 4, "expected its header at byte 4294967294"},
    {false, DIRECTORY, 42, UINT32_MAX, 4, "lacks its ZIP64 sizes"},
    {false, DIRECTORY, 46, 'w', 1, "zip: entry \"wit/data.pkl\" has another name at byte 0"},
    {false, HEADER, 26, 60000, 2, "zip: entry \"vit/data.pkl\": 6 bytes at byte 0, expected them"},
    {false, HEADER, 28, 60000, 2, "zip: entry \"vit/data.pkl\": 6 bytes at byte 0, expected them"},
    {false, HEADER, 26, 11, 2, "zip: entry \"vit/data.pkl\" has another name"},
    {false, HEADER, 28, 6, 2, "zip: entry \"vit/data/10\" overlaps \"vit/data.pkl\""},
    {false, SECOND, 42, 0, 4, "zip: entry \"vit/data/10\" has another name at byte 0"},
    {true, END64, 0, 0, 1, "expected ZIP64's end record at byte"},
    {true, LOCATOR64, 0, 0, 1, "expected a ZIP64 locator before the end"},
    {true, LOCATOR64, 8, UINT64_MAX, 8, "ZIP64's end record at byte 18446744073709551615"},
    {true, LOCATOR64, 8, 0, 8, "expected ZIP64's end record at byte 0"},
    {true, END64, 32, UINT64_MAX, 8, "a directory of 18446744073709551615 entries"},
    {true, END64, 32, UINT64_C(1) << 60, 8, "a directory of 1152921504606846976 entries"},
    {true, END64, 40, UINT64_MAX, 8, "a directory of 18446744073709551615 bytes"},
    {true, END64, 48, UINT64_MAX, 8, "at byte 18446744073709551615, expected it before"},
    {true, DIRECTORY, 58, 2, 2, ""}, // its number is not looked at
    {true, DIRECTORY, 60, 60, 2, "lacks its ZIP64 sizes"},
    {true, DIRECTORY, 63, 2, 2, "lacks its ZIP64 sizes"},
    {true, DIRECTORY, 65, 23, 2, "lacks its ZIP64 sizes"},
    {true, DIRECTORY, 67, 7, 8, "is compressed"},
    {true, DIRECTORY, 83, UINT64_MAX, 8, "expected its header at byte 18446744073709551615"},
};

static size_t origin_of(const struct zip_file *file, enum origin origin)
{
    const size_t places[] = {
        [HEADER] = 0,
        [DIRECTORY] = file->directory,
        [SECOND] = file->directory + 46 + 12,
        [END64] = file->end64,
        [LOCATOR64] = file->length - 22 - 20,
        [END] = file->length - 22,
    };
    return places[origin];
}

static void test_changed_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        struct zip_file file = zip_make(parts, PARTS, changes[i].zip64);
        uint8_t *at = file.bytes + origin_of(&file, changes[i].origin) + changes[i].at;
        for (size_t j = 0; j < changes[i].bytes; j++)
            at[j] = (uint8_t)(changes[i].number >> (8 * j));
        if (*changes[i].words) {
            expect_refused(file, file.length, changes[i].words);
        } else {
            struct zip zip;
            assert_int_equal(zip_init("zip", file.bytes, file.length, &zip), STATUS_OK);
            zip_release(&zip);
        }
        free(file.bytes);
    }
}

// Two entries that are one and the same, and one that contains the next.
static void test_overlap(void **state)
{
    (void)state;
    const struct zip_part same[2] = {{"a/x", "x", 1}, {"a/x", "y", 1}};
    struct zip_file file = zip_make(same, 2, 0);
    expect_refused(file, file.length, "zip: two entries are named \"a/x\"");
    file.bytes[file.directory + 49 + 42] = 0;
    expect_refused(file, file.length, "zip: entry \"a/x\" overlaps \"a/x\"");
    free(file.bytes);

    const struct zip_part two[2] = {{"a/x", "x", 1}, {"a/y", "y", 1}};
    file = zip_make(two, 2, 0);
    const uint8_t bytes = 1 + 38;
    file.bytes[file.directory + 20] = file.bytes[file.directory + 24] = bytes;
    expect_refused(file, file.length, "zip: entry \"a/y\" overlaps \"a/x\"");
    file.bytes[file.directory + 20] = file.bytes[file.directory + 24] = bytes + 2;
    expect_refused(file, file.length, "expected them before the directory");
    free(file.bytes);
}

static void test_cut_short(void **state)
{
    (void)state;
    for (int zip64 = 0; zip64 < 2; zip64++) {
        struct zip_file file = zip_make(parts, PARTS, zip64);
        for (size_t length = 0; length < file.length; length++)
            expect_refused(file, length, "no end of an archive");
        // Only the end of it.
        for (size_t begin = 1; begin < file.length - 22; begin++) {
            struct zip zip;
            uint8_t *rest = malloc(file.length - begin);
            assert_non_null(rest);
            memcpy(rest, file.bytes + begin, file.length - begin);
            assert_int_equal(zip_init("zip", rest, file.length - begin, &zip), STATUS_BAD_WEIGHTS);
            free(rest);
        }
        free(file.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well_formed),
        cmocka_unit_test(test_changed_numbers),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_cut_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
