// server/oip_numbers.c: the one list of numbers is found wherever JSON may hold it, and each number
// is where the shape wants it. Each text lies in a heap block of its exact size, so that
// AddressSanitizer sees any read behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "oip_numbers.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *exact_copy(const char *text, size_t length)
{
    char *copy = malloc(length + (length == 0));
    assert_non_null(copy);
    for (size_t i = 0; i < length; i++)
        copy[i] = text[i];
    return copy;
}

// ---- where they are -----------------------------------------------------------------------------

// `list` is what is found, NULL for nothing.
static void expect_found(const char *json, const char *list)
{
    char *copy = exact_copy(json, strlen(json));
    struct oip_numbers numbers;
    enum status status = oip_numbers_find(copy, strlen(json), &numbers);
    if (status != STATUS_OK)
        fail_msg("%s: %s", json, status_detail(status));
    if (!list)
        assert_null(numbers.text);
    else if (!numbers.text || numbers.length != strlen(list) ||
             memcmp(numbers.text, list, numbers.length) != 0)
        fail_msg("%s: found %.*s", json, (int)numbers.length, numbers.text ? numbers.text : "");
    free(copy);
}

static void expect_not_found(const char *json, const char *words)
{
    char *copy = exact_copy(json, strlen(json));
    struct oip_numbers numbers;
    enum status status = oip_numbers_find(copy, strlen(json), &numbers);
    if (status != STATUS_BAD_REQUEST || !strstr(status_detail(status), words))
        fail_msg("%s: %s", json, status_detail(status));
    free(copy);
}

static void the_data_of_an_input(void **state)
{
    (void)state;
    expect_found("{\"inputs\":[{\"data\":[1,2]}]}", "[1,2]");
    expect_found(" { \"inputs\" : [ { \"data\" :\t\r\n [ 1 , 2 ] } ] } ", "[ 1 , 2 ]");
    expect_found("{\"inputs\":[{\"data\":[[1],[2]]}]}", "[[1],[2]]");
    expect_found("{\"inputs\":[{\"data\":[]}]}", "[]");
    expect_found("{\"inputs\":[{\"data\":[1,\"]\",\"\\\"]\"]}]}", "[1,\"]\",\"\\\"]\"]");
    expect_found("{\"id\":\"\\\\\",\"inputs\":[{\"data\":[1]}]}", "[1]");
    expect_found("{\"id\":\"\\\"inputs\",\"inputs\":[{\"name\":\"data\",\"data\":[1]}],\"x\":[2]}",
                 "[1]");
    expect_found("{\"inputs\":[{\"parameters\":{\"data\":[1]},\"data\":[2]}]}", "[2]");
    expect_found("{\"outputs\":[{\"data\":[1]}],\"inputs\":[{\"data\":[2]}]}", "[2]");
}

static void nothing_else(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "{",
                                        "\"",
                                        "\"\\",
                                        "{\"inputs\"",
                                        "{\"inputs\":",
                                        "{\"inputs\":[{\"data\"",
                                        "{\"inputs\":[{\"data\":",
                                        "{\"inputs\":[{\"data\":null}]}",
                                        "{\"inputs\":[{\"data\":[\"a\",\"[1]\"]}]}",
                                        "{\"inputs\":[{\"data\":[ [ \"a\"]]}]}",
                                        "{\"inputs\":[{\"data \":[1]}]}",
                                        "{\"inputs\":[{\"dat\":[1]}]}",
                                        "{\"inputs\":[[{\"data\":[1]}]]}",
                                        "{\"input\":[{\"data\":[1]}]}",
                                        "{\"x\":{\"inputs\":[{\"data\":[1]}]}}",
                                        "{\"data\":[1]}",
                                        "[[[\"data\",[1]]]]",
                                        "]]]]}}}}{\"data\":[1]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        expect_found(texts[i], NULL);
}

static void one_list_that_ends(void **state)
{
    (void)state;
    expect_not_found("{\"inputs\":[{\"data\":[1],\"data\":[2]}]}",
                     "json: byte 30: a second list of numbers");
    expect_not_found("{\"inputs\":[{\"data\":[1]},{\"data\":[2]}]}", "a second list of numbers");
    expect_not_found("{\"inputs\":[{\"data\":[1,[2],", "json: byte 19: this list does not end");
    expect_not_found("{\"inputs\":[{\"data\":[", "does not end");
    expect_not_found("{\"inputs\":[{\"data\":[1,\"]", "does not end");
}

// ---- what they are ------------------------------------------------------------------------------

enum { N = 2 * 2 * 3 };
static const int64_t shape[] = {1, 2, 2, 3};

static enum status read(const char *text, uint8_t *bytes)
{
    char *copy = exact_copy(text, strlen(text));
    struct oip_numbers numbers = {copy, strlen(text)};
    enum status status = oip_numbers_read(&numbers, shape, 4, bytes, N);
    free(copy);
    return status;
}

static void expect_read(const char *text)
{
    static const uint8_t expected[N] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255};
    uint8_t bytes[N] = {0};
    enum status status = read(text, bytes);
    if (status != STATUS_OK)
        fail_msg("%s: %s", text, status_detail(status));
    assert_memory_equal(bytes, expected, N);
}

static void expect_refused(const char *text, const char *words)
{
    uint8_t bytes[N];
    enum status status = read(text, bytes);
    if (status != STATUS_BAD_REQUEST || !strstr(status_detail(status), words))
        fail_msg("%s: %s: %s", text, status_code(status), status_detail(status));
}

static void flat_and_nested(void **state)
{
    (void)state;
    expect_read("[0,1,2,3,4,5,6,7,8,9,10,255]");
    expect_read("[ 0\t,\r\n1,2,3,4,5,6,7,8,9,10,255 ]");
    expect_read("[[[[0,1,2],[3,4,5]],[[6,7,8],[9,10,255]]]]");
    expect_read("[ [ [ [ 0, 1, 2 ] , [ 3,4,5 ] ] ,\n[[6,7,8],[9,10,255]] ] ] ");
}

static void values_from_0_to_255(void **state)
{
    (void)state;
    static const char *const bad[] = {"256",  "1000",  "99999999999999999999",
                                      "-1",   "-0",    "+1",
                                      "01",   "00",    "1.0",
                                      "1.",   "1e1",   "1E1",
                                      ".5",   "NaN",   "null",
                                      "true", "\"1\"", "",
                                      "{}",   "[1]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[128];
        snprintf(text, sizeof text, "[0,1,%s,3,4,5,6,7,8,9,10,255]", bad[i]);
        uint8_t bytes[N];
        enum status status = read(text, bytes);
        assert_int_equal(status, STATUS_BAD_REQUEST);
        if (!strstr(status_detail(status), "data[2] is not a whole number from 0 to 255"))
            fail_msg("%s: %s", text, status_detail(status));
    }
}

static void as_many_as_the_shape(void **state)
{
    (void)state;
    expect_refused("[]", "data[0]");
    expect_refused("[0]", "behind the first 1 numbers the shape wants another one");
    expect_refused("[0,1,2,3,4,5,6,7,8,9,10]", "behind the first 11 numbers");
    expect_refused("[0,1,2,3,4,5,6,7,8,9,10,]", "data[11]");
    expect_refused("[0,1,2,3,4,5,6,7,8,9,10,255,]", "behind the first 12 numbers");
    expect_refused("[0,1,2,3,4,5,6,7,8,9,10,255,0]",
                   "behind the first 12 numbers the shape wants a list to end");
    expect_refused("[0,1 2,3,4,5,6,7,8,9,10,255]", "behind the first 2 numbers");
    expect_refused("[,0,1,2,3,4,5,6,7,8,9,10,255]", "data[0]");
}

static void brackets_as_the_shape(void **state)
{
    (void)state;
    expect_refused("[[0,1,2,3,4,5,6,7,8,9,10,255]]", "lists 2 deep, but 1 or 4");
    expect_refused("[[[0,1,2],[3,4,5]],[[6,7,8],[9,10,255]]]", "lists 3 deep");
    expect_refused("[[[[[0]]]]]", "more than 4 deep");
    expect_refused("[[[[0,1],[2,3,4,5]],[[6,7,8],[9,10,255]]]]", "behind the first 2 numbers");
    expect_refused("[[[[0,1,2,3],[4,5]],[[6,7,8],[9,10,255]]]]",
                   "behind the first 3 numbers the shape wants a list to end");
    expect_refused("[[[[0,1,2],3,4,5],[[6,7,8],[9,10,255]]]]",
                   "behind the first 3 numbers the shape wants a list to begin");
    expect_refused("[[[[0,1,2],[3,4,5]]],[[[6,7,8],[9,10,255]]]]", "behind the first 6 numbers");
    expect_refused("[[[[0,1,2],[3,4,5],[6,7,8],[9,10,255]]]]", "behind the first 6 numbers");
    expect_refused("[[[[0,1,2],[3,4,5]],[[6,7,8],[9,10,255]]],[]]", "behind the first 12 numbers");
    expect_refused("[[[[0,1,2][3,4,5]],[[6,7,8],[9,10,255]]]]",
                   "behind the first 3 numbers the shape wants another list");
}

// Every beginning of a list is refused and read no further than it goes.
static void every_truncation(void **state)
{
    (void)state;
    static const char *const texts[] = {"[0,1,2,3,4,5,6,7,8,9,10,255]",
                                        "[[[[0,1,2],[3,4,5]],[[6,7,8],[9,10,255]]]]"};
    for (size_t i = 0; i < 2; i++)
        for (size_t length = 0; length < strlen(texts[i]); length++) {
            char *copy = exact_copy(texts[i], length);
            uint8_t bytes[N];
            struct oip_numbers numbers = {copy, length};
            assert_int_equal(oip_numbers_read(&numbers, shape, 4, bytes, N), STATUS_BAD_REQUEST);
            free(copy);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_data_of_an_input),  cmocka_unit_test(nothing_else),
        cmocka_unit_test(one_list_that_ends),    cmocka_unit_test(flat_and_nested),
        cmocka_unit_test(values_from_0_to_255),  cmocka_unit_test(as_many_as_the_shape),
        cmocka_unit_test(brackets_as_the_shape), cmocka_unit_test(every_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
