// server/body.c: JSON gives its images in order, each kind of body may come compressed, and what is
// made of one is taken from the budget.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "parsed_body.h"
#include <stdio.h>
#include <string.h>

// ---- JSON ---------------------------------------------------------------------------------------

static void json_images_and_fields_in_order(void **state)
{
    (void)state;
    struct parsed parsed =
        parse("Application/JSON; charset=utf-8",
              "{\"top_k\": 7, \"images\": [\"b25l\", \"data:image/png;base64,dHdv\", \"\", "
              "\"data:;base64,\", \"Zm\\n91cg==\", \"\\u0065A=\\u003d\"], \"logits\": true}");
    static const char *const images[] = {"one", "two", "", "", "four", "x"};
    for (int i = 0; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "image-%d", i + 1);
        expect_image(&parsed, i, name, images[i]);
        assert_non_null(parsed.body.images[i].bytes);
    }
    assert_int_equal(parsed.body.count, 6);
    assert_string_equal(parsed.body.top_k, "7");
    assert_string_equal(parsed.body.logits, "1");
    release(&parsed);
}

static void json_fields(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *top_k, *logits;
    } good[] = {
        {"", "", ""},
        {", \"top_k\": 0", "0", ""},
        {", \"top_k\": -9223372036854775808", "-9223372036854775808", ""},
        {", \"logits\": false", "", "0"},
        {", \"logits\": 1", "", "1"},
        {", \"top_k\": null, \"logits\": null, \"explain\": null", "", ""},
        {", \"logits\": 2", "", "2"}, // for the API to refuse
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[100];
        snprintf(text, sizeof text, "{\"images\": [\"eA==\"]%s}", good[i].fields);
        struct parsed parsed = parse(JSON, text);
        expect_image(&parsed, 0, "image-1", "x");
        assert_string_equal(parsed.body.top_k, good[i].top_k);
        assert_string_equal(parsed.body.logits, good[i].logits);
        release(&parsed);
    }
}

static void byte_order_mark(void **state)
{
    (void)state;
    struct parsed parsed = parse(JSON, "\xef\xbb\xbf{\"images\": [\"eA==\"]}");
    expect_image(&parsed, 0, "image-1", "x");
    release(&parsed);
    expect_refused(JSON, "\xef\xbb\xbf{\"images\": [}", STATUS_BAD_REQUEST,
                   "json: line 1, column 13: ");
    expect_refused(JSON, "\xef\xbb\xbf\xef\xbb\xbf{}", STATUS_BAD_REQUEST, "json: line 1, ");
    expect_refused(JSON, "\xef\xbb\xbf", STATUS_BAD_REQUEST, "json: line 1, ");
    expect_refused(JSON, "\xef\xbb{}", STATUS_BAD_REQUEST, "json: line ");
    expect_refused(NULL, "\xef\xbb\xbf{}", STATUS_UNSUPPORTED_IMAGE,
                   "Content-Type: application/json");
}

static void url_safe_and_unpadded(void **state)
{
    (void)state;
    struct parsed parsed = parse(JSON, "{\"images\": [\"eA\", \"eHg\", \"fn5-Xl9_\"]}");
    expect_image(&parsed, 0, "image-1", "x");
    expect_image(&parsed, 1, "image-2", "xx");
    expect_image(&parsed, 2, "image-3", "~~~^_\x7f");
    release(&parsed);
}

static void malformed_json_says_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum status status;
        const char *words;
    } bad[] = {
        {"{", STATUS_BAD_REQUEST, "json: line 1, column 1: "},
        {"{\"images\": [\"eA==\"],\n \"images\": []}", STATUS_BAD_REQUEST, "json: line 2, "},
        {"[\"eA==\"]", STATUS_BAD_REQUEST, "expected an object"},
        {"{}", STATUS_NO_IMAGE, "images: expected a list"},
        {"{\"images\": []}", STATUS_NO_IMAGE, "images: expected a list"},
        {"{\"images\": \"eA==\"}", STATUS_BAD_REQUEST, "images: expected a list"},
        {"{\"images\": null}", STATUS_NO_IMAGE, "images: expected a list"},
        {"{\"images\": {}}", STATUS_BAD_REQUEST, "images: expected a list"},
        {"{\"images\": [\"eA==\", 1]}", STATUS_BAD_REQUEST, "images[1]: expected a string"},
        {"{\"images\": [\"eA==\", \"eA==\", \"e!==\"]}", STATUS_BAD_REQUEST,
         "images[2]: base64: byte 1: "},
        {"{\"images\": [\"data:,x\"]}", STATUS_BAD_REQUEST, "images[0]: data URI: "},
        {"{\"image\": \"eA==\"}", STATUS_BAD_REQUEST,
         "the key \"image\" is none of images, top_k, logits"},
        {"{\"images\": [\"eA==\"], \"top_k\": \"5\"}", STATUS_BAD_TOP_K, "a whole number"},
        {"{\"images\": [\"eA==\"], \"top_k\": 5.0}", STATUS_BAD_TOP_K, "a whole number"},
        {"{\"images\": [null]}", STATUS_BAD_REQUEST, "images[0]: expected a string"},
        {"{\"images\": [\"eA==\"], \"logits\": \"1\"}", STATUS_BAD_REQUEST, "logits: expected"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(JSON, bad[i].text, bad[i].status, bad[i].words);
}

static void json_has_no_more_images_than_the_limit(void **state)
{
    (void)state;
    // What is over the limit is not decoded: the junk in it is not seen.
    static const char two[] = "{\"images\": [\"eA==\", \"eA==\"]}",
                      junk[] = "{\"images\": [\"-\", 1]}";
    for (int max_images = 1; max_images <= 3; max_images++) {
        struct parsed parsed = parse_bytes(JSON, two, sizeof two - 1, max_images);
        assert_int_equal(parsed.status, max_images >= 2 ? STATUS_OK : STATUS_TOO_MANY_IMAGES);
        release(&parsed);
        parsed = parse_bytes(JSON, junk, sizeof junk - 1, max_images);
        assert_int_equal(parsed.status,
                         max_images >= 2 ? STATUS_BAD_REQUEST : STATUS_TOO_MANY_IMAGES);
        release(&parsed);
    }
}

static void every_truncation_of_json_is_refused(void **state)
{
    (void)state;
    static const char whole[] = "{\"top_k\": 5, \"images\": [\"data:image/png;base64,eA==\"]}";
    for (size_t length = 0; length < sizeof whole; length++) {
        struct parsed parsed = parse_bytes(JSON, whole, length, 8);
        assert_int_equal(parsed.status, length == sizeof whole - 1 ? STATUS_OK
                                        : length == 0              ? STATUS_NO_IMAGE
                                                                   : STATUS_BAD_REQUEST);
        release(&parsed);
    }
}

// ---- compressed bodies, and the budget ----------------------------------------------------------

// A stored block of raw deflate: nothing is needed to make it.
static size_t store(char *out, const char *text)
{
    size_t length = strlen(text);
    const char head[] = {1, (char)(length & 255), (char)(length >> 8), (char)(~length & 255),
                         (char)(~length >> 8 & 255)};
    memcpy(out, head, sizeof head);
    memcpy(out + sizeof head, text, length);
    return sizeof head + length;
}

static void each_kind_of_body_compressed(void **state)
{
    (void)state;
    static const struct {
        const char *type, *text;
    } bodies[] = {
        {NULL, "x"}, {FORM, "--b\r\n" FILE_HEAD "x\r\n--b--"}, {JSON, "{\"images\": [\"eA==\"]}"}};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        char packed[200];
        size_t length = store(packed, bodies[i].text), limit = strlen(bodies[i].text);
        struct body_source source = {.content_type = bodies[i].type,
                                     .content_encoding = "deflate",
                                     .max_images = 8,
                                     .max_bytes = limit};
        struct parsed parsed = parse_source(source, packed, length);
        expect_image(&parsed, 0, i == 1 ? "a.jpg" : "image-1", "x");
        assert_true(parsed.budget->used > 0);
        release(&parsed);
        source.max_bytes--;
        parsed = parse_source(source, packed, length);
        assert_int_equal(parsed.status, STATUS_BODY_TOO_LARGE);
        release(&parsed);
        source.content_encoding = "br";
        parsed = parse_source(source, packed, length);
        assert_int_equal(parsed.status, STATUS_UNSUPPORTED_MEDIA);
        release(&parsed);
    }
}

static void nothing_compressed_in_it(void **state)
{
    (void)state;
    char packed[8];
    struct body_source source = {.content_encoding = "deflate", .max_images = 8, .max_bytes = 100};
    struct parsed parsed = parse_source(source, packed, store(packed, ""));
    assert_int_equal(parsed.status, STATUS_NO_IMAGE);
    release(&parsed);
}

static void what_a_body_takes_of_the_budget(void **state)
{
    (void)state;
    struct parsed parsed = parse(FORM, "--b\r\n" FILE_HEAD "x\r\n--b--");
    assert_int_equal(parsed.budget->used, 0); // a slice of what is charged already
    release(&parsed);
    char text[4020], digits[4001];
    memset(digits, 'A', sizeof digits - 1);
    digits[sizeof digits - 1] = '\0';
    snprintf(text, sizeof text, "{\"images\":[\"%s\"]}", digits);
    parsed = parse(JSON, text);
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.budget->used, 3000); // the values are gone
    release(&parsed);
    // The text once more, a little for its values, the image: not with any less.
    for (int64_t limit = 0; limit < 16384; limit += 64) {
        struct budget budget = {.limit = limit};
        struct body_source source = {.content_type = JSON,
                                     .bytes = (const uint8_t *)text,
                                     .length = strlen(text),
                                     .max_images = 1,
                                     .max_bytes = sizeof text,
                                     .budget = &budget};
        struct body body;
        enum status status = body_parse(&source, &body);
        if (limit < 7500)
            assert_int_equal(status, STATUS_QUEUE_FULL);
        if (limit > 8500)
            assert_int_equal(status, STATUS_OK);
        assert_int_equal(budget.used, status == STATUS_OK ? 3000 : 0);
        body_release(&body);
        assert_int_equal(budget.used, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_images_and_fields_in_order),
        cmocka_unit_test(json_fields),
        cmocka_unit_test(byte_order_mark),
        cmocka_unit_test(url_safe_and_unpadded),
        cmocka_unit_test(malformed_json_says_what_is_wrong),
        cmocka_unit_test(json_has_no_more_images_than_the_limit),
        cmocka_unit_test(every_truncation_of_json_is_refused),
        cmocka_unit_test(each_kind_of_body_compressed),
        cmocka_unit_test(nothing_compressed_in_it),
        cmocka_unit_test(what_a_body_takes_of_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
