// server/json.c: what jansson reads is read, what it would not survive is refused before it sees
// it, and each refusal says where. Each text lies in a heap block of its exact size, so that
// AddressSanitizer sees any read behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "json.h"
#include <jansson.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NESTING = 64, MAX_VALUES = 100000 };

static enum status parse(const char *text, size_t length, json_t **root)
{
    char *copy = malloc(length);
    if (length > 0) // or malloc() may return NULL
        assert_non_null(copy);
    for (size_t i = 0; i < length; i++)
        copy[i] = text[i];
    enum status status = json_parse(copy, length, root);
    free(copy);
    return status;
}

static void expect_refused(const char *text, size_t length, const char *words)
{
    json_t *root;
    enum status status = parse(text, length, &root);
    if (status != STATUS_BAD_REQUEST || !strstr(status_detail(status), words))
        fail_msg("\"%.60s\": %s: %s", text, status_code(status), status_detail(status));
}

static void expect_read(const char *text, size_t length)
{
    json_t *root;
    enum status status = parse(text, length, &root);
    if (status != STATUS_OK)
        fail_msg("\"%.60s\": %s", text, status_detail(status));
    json_decref(root);
}

// `count` times `text`.
static char *repeat(const char *text, size_t count)
{
    size_t length = strlen(text);
    char *all = malloc(length * count + 1);
    assert_non_null(all);
    for (size_t i = 0; i < count; i++)
        memcpy(all + i * length, text, length);
    all[length * count] = '\0';
    return all;
}

static void values_are_read(void **state)
{
    (void)state;
    static const char text[] = "\xef\xbb\xbf"; // a byte order mark is no JSON
    expect_refused(text, 3, "json: line 1, ");
    json_t *root, *list;
    static const char good[] = " {\"a\": [1, -2.5e3, true, null, \"\\u00e9\\n\xc3\xa9\", {}]}\n";
    assert_int_equal(parse(good, sizeof good - 1, &root), STATUS_OK);
    list = json_object_get(root, "a");
    assert_int_equal(json_array_size(list), 6);
    assert_int_equal(json_integer_value(json_array_get(list, 0)), 1);
    assert_true(json_real_value(json_array_get(list, 1)) == -2500.0);
    assert_string_equal(json_string_value(json_array_get(list, 4)), "\xc3\xa9\n\xc3\xa9");
    json_decref(root);
}

static void errors_say_where(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "json: line 1, column 0: "},
        {"5", "json: line 1, column 1: "},
        {"{\n \"a\": 1,\n \"b\" 2}", "json: line 3, column 6: "},
        {"[1] x", "json: line 1, column 5: "},
        {"{\"a\": 1, \"b\": 2, \"a\": 3}", "duplicate object key near '\"a\"'"},
        {"{\"a\": {\"b\": 2, \"b\": 3}}", "duplicate object key"},
        {"[\"\xff\"]", "json: line 1, column 2: "},
        {"[\"\xed\xa0\x80\"]", "json: line 1, column 2: "},
        {"[\"\\u0000\"]", "json: line 1, column 9: "},
        {"[\"\\ud800\"]", "json: line 1, column 9: invalid Unicode"},
        {"[\"a\nb\"]", "json: line 1, column 3: "},
        {"[1e999]", "json: line 1, column 6: "},
        {"[99999999999999999999]", "json: line 1, column 21: "},
        {"[01]", "json: line 1, column 2: "},
        {"[NaN]", "json: line 1, column 4: "},
        {"[1,]", "json: line 1, column 4: "},
        {"]", "json: line 1, column 1: "},
        {"[}", "json: line 1, column 2: "},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i].text, strlen(bad[i].text), bad[i].words);
    expect_refused("[1,\0 2]", 7, "json: line 1, ");
    expect_refused("[\"a\0b\"]", 7, "json: line 1, ");
}

// Long strings go around jansson, and come out as if they had not.
static void long_strings(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
    } ends[] = {{"", ""}, {"\\\"", ""}, {"\xc3\xa9", ""}, {"", "\\\\"}, {"\\u0041", "\x7f"}};
    for (size_t length = 240; length <= 270; length++)
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            char text[2000], string[300];
            json_t *root, *expected;
            snprintf(string, sizeof string, "%s%0*d%s", ends[i].before, (int)length, 7,
                     ends[i].after);
            int size =
                snprintf(text, sizeof text,
                         "{\"e\": \"\", \"a%s\" : [\"\", \"%s\", [{\"%s\"\n:\"%s\"}, \"x%s\"]], "
                         "\"b\" : \"%s\"}",
                         string, string, string, string, string, string);
            assert_int_equal(parse(text, (size_t)size, &root), STATUS_OK);
            expected = json_loadb(text, (size_t)size, 0, NULL);
            assert_non_null(expected);
            assert_true(json_equal(root, expected));
            json_decref(expected);
            json_decref(root);
            // Where the error is, is counted in the whole text.
            char words[60];
            snprintf(words, sizeof words, "json: line 2, column %d: ", (int)strlen(string) + 5);
            size = snprintf(text, sizeof text, "[\"%s\",\n \"%s\" 1]", string, string);
            if (!strchr(string, '\xc3'))
                expect_refused(text, (size_t)size, words);
            // A control character and a byte that is no UTF-8 are not plain.
            size = snprintf(text, sizeof text, "[\"%s\"]", string);
            text[200] = '\1';
            expect_refused(text, (size_t)size, "json: line 1, ");
            text[200] = '\xff';
            expect_refused(text, (size_t)size, "json: line 1, ");
        }
}

static void every_truncation(void **state)
{
    (void)state;
    char text[700];
    int whole =
        snprintf(text, sizeof text,
                 "{\"a\\\"b\\\\\": [1.5, \"%0*d\", true, \"\\u00e9\xc3\xa9\"], \"%0*d\" : {}}", 300,
                 7, 300, 7);
    for (size_t length = 0; length < (size_t)whole; length++)
        expect_refused(text, length, "json: line 1, column ");
    expect_read(text, (size_t)whole);
}

static void nesting_of_64_and_no_more(void **state)
{
    (void)state;
    static const char *const opening[] = {"[", "{\"a\":"}, *const closing[] = {"]", "}"};
    for (int kind = 0; kind < 2; kind++)
        for (size_t depth = MAX_NESTING - 1; depth <= MAX_NESTING + 1; depth++) {
            char *left = repeat(opening[kind], depth), *right = repeat(closing[kind], depth);
            char text[1000];
            int length = snprintf(text, sizeof text, "%s[]%s", left, right);
            if (depth < MAX_NESTING)
                expect_read(text, (size_t)length);
            else
                expect_refused(text, (size_t)length, "more levels of nesting than 64");
            free(left);
            free(right);
        }
    char *open = repeat("[\n", 10000), *beside = repeat("[],", 1000), *quoted = repeat("[", 1000);
    expect_refused(open, strlen(open), "json: line 65, column 1: more levels of nesting than 64");
    // What is closed again, and what is in a string, is not deep.
    char text[5000];
    int length = snprintf(text, sizeof text, "[%s \"\\\"%s\\\\\", []]", beside, quoted);
    expect_read(text, (size_t)length);
    // More closed than opened does not help later.
    expect_refused("]]]][", 5, "json: line 1, column 1: ");
    free(open);
    free(beside);
    free(quoted);
}

static void values_and_keys_up_to_100000(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t count;
    } elements[] = {{"[],", 1}, {"{},", 1}, {"1,", 1}, {"\"\",", 1}, {"null ,", 1}, {"[{}],", 2}};
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++)
        for (int more = 0; more < 2; more++) {
            // The list itself is one value; "0" another, which may be one too many.
            size_t count = (MAX_VALUES - 2) / elements[i].count;
            char *many = repeat(elements[i].text, count);
            size_t left = MAX_VALUES - 1 - count * elements[i].count + (size_t)more;
            char *rest = repeat("0,", left - 1), *text = malloc(strlen(many) + 100);
            assert_non_null(text);
            int length = sprintf(text, "[%s%s0]", many, rest);
            if (more)
                expect_refused(text, (size_t)length, "more values and keys than 100000");
            else
                expect_read(text, (size_t)length);
            free(many);
            free(rest);
            free(text);
        }
    char *keys = repeat("\"\":0,", MAX_VALUES / 2), *text = malloc(strlen(keys) + 100);
    assert_non_null(text);
    int length = sprintf(text, "{%s\"\":0}", keys);
    expect_refused(text, (size_t)length, "more values and keys than 100000");
    free(keys);
    free(text);
}

static void megabytes_of_small_values(void **state)
{
    (void)state;
    char *text = repeat("[],", (32 << 20) / 3);
    expect_refused(text, strlen(text), "column 300001: more values and keys than 100000");
    free(text);
}

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 }; // malloc is another one
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
#else
enum { SANITIZED = 0 };
#endif

// What is measured is what is used, or more.
static void memory_is_measured(void **state)
{
    (void)state;
    static const char *const elements[] = {
        "[]",   "{}",         "1",        "\"\"",
        "null", "{\"a\":{}}", "[[[[]]]]", "\"0123456789012345678901234\"",
        "1.5",  "[{}]"};
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++) {
        char element[64];
        snprintf(element, sizeof element, "%s,", elements[i]);
        char *many = repeat(element, 5000), *text = malloc(strlen(many) + 10);
        size_t measured;
        json_t *root;
        assert_non_null(text);
        size_t length = (size_t)sprintf(text, "[%s0]", many);
        size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
        assert_int_equal(json_parse(text, length, &root), STATUS_OK);
        size_t used = mallinfo2().uordblks + mallinfo2().hblkhd - before;
        assert_int_equal(json_measure(text, length, &measured), STATUS_OK);
        if (!SANITIZED && used > measured)
            fail_msg("%s: %zu bytes measured, %zu used", element, measured, used);
        json_decref(root);
        free(many);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(long_strings),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(nesting_of_64_and_no_more),
        cmocka_unit_test(values_and_keys_up_to_100000),
        cmocka_unit_test(megabytes_of_small_values),
        cmocka_unit_test(memory_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
