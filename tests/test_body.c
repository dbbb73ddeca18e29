// server/body.c: raw bodies and forms give their images in order, and what is malformed is refused
// with a sentence that says why.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "parsed_body.h"
#include <stdio.h>
#include <string.h>

// ---- raw bodies ---------------------------------------------------------------------------------

static void raw_body_is_one_image_whatever_its_type(void **state)
{
    (void)state;
    static const char *const types[] = {NULL,
                                        "",
                                        "image/jpeg",
                                        "application/x-www-form-urlencoded",
                                        "multipart/mixed; boundary=b",
                                        "multipart/form-dataset; boundary=b",
                                        "application/jsonlines",
                                        "nonsense"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct parsed parsed = parse(types[i], "--b\r\nbytes");
        expect_image(&parsed, 0, "image-1", "--b\r\nbytes");
        assert_int_equal(parsed.body.count, 1);
        assert_string_equal(parsed.body.top_k, "");
        assert_string_equal(parsed.body.logits, "");
        release(&parsed);
    }
}

static void empty_body_holds_no_image(void **state)
{
    (void)state;
    static const char *const types[] = {NULL, "image/png", FORM, JSON};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        expect_refused(types[i], "", STATUS_NO_IMAGE, "empty");
}

static void json_under_another_type(void **state)
{
    (void)state;
    expect_refused("application/x-www-form-urlencoded", "{\"images\": []}",
                   STATUS_UNSUPPORTED_IMAGE, "Content-Type: application/json");
    expect_refused(NULL, " \r\n\t{", STATUS_UNSUPPORTED_IMAGE, "JPEG, PNG and WebP");
    static const char *const others[] = {" ", "\t\n", "[]", "\"{", "\1{"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct parsed parsed = parse(NULL, others[i]);
        expect_image(&parsed, 0, "image-1", others[i]);
        release(&parsed);
    }
}

// ---- multipart ----------------------------------------------------------------------------------

static void files_and_fields_in_order(void **state)
{
    (void)state;
    struct parsed parsed =
        parse(FORM, "--b\r\n"
                    "Content-Disposition: form-data; name=\"top_k\"\r\n\r\n7\r\n"
                    "--b\r\n"
                    "Content-Type: image/jpeg\r\n"
                    "content-disposition:form-data; name=\"f\"; filename=\"one.jpg\"\r\n\r\n"
                    "\r\n--c\r\n\r\n-- b\r\n\r\n"
                    "--b\r\n"
                    "X-Content-Disposition: form-data; name=\"x\"; filename=\"wrong\"\r\n"
                    "Content-Disposition: form-data; name=\"f\"; filename=\"two.png\"\r\n"
                    "Content-Type: image/png\r\n\r\n\r\n"
                    "--b\r\n"
                    "Content-Disposition: form-data; name=\"logits\"\r\n\r\n1\r\n"
                    "--b--\r\n");
    expect_image(&parsed, 0, "one.jpg", "\r\n--c\r\n\r\n-- b\r\n");
    expect_image(&parsed, 1, "two.png", "");
    assert_int_equal(parsed.body.count, 2);
    assert_string_equal(parsed.body.top_k, "7");
    assert_string_equal(parsed.body.logits, "1");
    // The images are slices of the body, not copies.
    assert_in_range((uintptr_t)parsed.body.images[0].bytes, (uintptr_t)parsed.bytes,
                    (uintptr_t)parsed.bytes + 1000);
    release(&parsed);
}

static void form_without_a_file(void **state)
{
    (void)state;
    expect_refused(FORM, "--b--", STATUS_NO_IMAGE, "the form holds no file");
    expect_refused(FORM,
                   "--b\r\nContent-Disposition: form-data; name=\"top_k\"\r\n\r\n5\r\n--b--\r\n",
                   STATUS_NO_IMAGE, "the form holds no file");
}

#define FIELD(name, value)                                                                         \
    "--b\r\nContent-Disposition: form-data; name=" name "\r\n\r\n" value "\r\n"

static void fields_are_known_and_come_once(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {FIELD("top_k", "5") FIELD("top_k", "5") "--b--", "\"top_k\" comes twice"},
        {FIELD("top_k", "") FIELD("top_k", "5") "--b--", "\"top_k\" comes twice"},
        {FIELD("logits", "1") FIELD("top_k", "5") FIELD("logits", "0") "--b--",
         "\"logits\" comes twice"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(FORM, bad[i].text, STATUS_BAD_REQUEST, bad[i].words);
    static const char zero[] = FIELD("top_k", "5\0x") "--b\r\n" FILE_HEAD "x\r\n--b--";
    struct parsed parsed = parse_bytes(FORM, zero, sizeof zero - 1, 8);
    assert_int_equal(parsed.status, STATUS_BAD_REQUEST);
    release(&parsed);
}

static void unknown_fields_are_passed_over(void **state)
{
    (void)state;
    struct parsed parsed = parse(
        FORM, FIELD("_charset_", "utf-8") FIELD("top_", "x") FIELD("comment", "caf\xe9\r\n\tx")
                  FIELD("comment", "") "--b\r\n" FILE_HEAD "x\r\n" FIELD("top_k", "3 \r\n")
                      FIELD("image", "y") "--b\r\nContent-Disposition: form-data; name=meta\r\n"
                                          "Content-Type: application/json\r\n\r\n{}\r\n--b--");
    expect_image(&parsed, 0, "a.jpg", "x");
    assert_int_equal(parsed.body.count, 1);
    assert_string_equal(parsed.body.top_k, "3");
    release(&parsed);
    expect_refused(FORM, FIELD("image", "x") "--b--", STATUS_NO_IMAGE, "no file and no part");
}

// What a page sends for a file field that was left empty.
static void files_that_were_not_chosen(void **state)
{
    (void)state;
#define UNCHOSEN                                                                                   \
    "--b\r\nContent-Disposition: form-data; name=f; filename=\"\"\r\n"                             \
    "Content-Type: application/octet-stream\r\n\r\n\r\n"
    struct parsed parsed = parse(FORM, UNCHOSEN "--b\r\n" FILE_HEAD "x\r\n" UNCHOSEN "--b--");
    expect_image(&parsed, 0, "a.jpg", "x");
    assert_int_equal(parsed.body.count, 1);
    release(&parsed);
    expect_refused(FORM, UNCHOSEN "--b--", STATUS_NO_IMAGE, "no file");
}

static void parts_without_a_file_name(void **state)
{
    (void)state;
#define TYPED(type, value)                                                                         \
    "--b\r\nContent-Disposition: form-data; name=f\r\nContent-Type: " type "\r\n\r\n" value "\r\n"
    struct parsed parsed =
        parse(FORM, TYPED("image/jpeg", "one") FIELD("photo", "\xff\xd8\x01")
                        TYPED("Application/Octet-Stream", "three") TYPED("text/plain", "\x1\x2")
                            TYPED("text/plain", "5") FIELD("top_k", "4") "--b--");
    expect_image(&parsed, 0, "image-1", "one");
    expect_image(&parsed, 1, "image-2", "\xff\xd8\x01");
    expect_image(&parsed, 2, "image-3", "three");
    expect_image(&parsed, 3, "image-4", "\x1\x2");
    assert_int_equal(parsed.body.count, 4);
    assert_string_equal(parsed.body.top_k, "4");
    release(&parsed);
    parsed = parse(FORM, "--b\r\nContent-Disposition: form-data; name=f; "
                         "filename*=utf-8''%D1%84.jpg\r\n\r\nx\r\n--b--");
    expect_image(&parsed, 0, "\xd1\x84.jpg", "x");
    release(&parsed);
    parsed = parse(FORM, "--b\r\nContent-Disposition: form-data; name=f; "
                         "filename*=utf-8''%D1.jpg\r\n\r\nx\r\n--b--");
    expect_image(&parsed, 0, "image-1", "x"); // no UTF-8
    release(&parsed);
}

static void parts_in_base64(void **state)
{
    (void)state;
#define BASE64 "Content-Transfer-Encoding: base64\r\n"
    static const char form[] = "--b\r\n" BASE64 FILE_HEAD "b25l\r\n--b\r\n" FILE_HEAD "dHdv\r\n"
                               "--b\r\n" BASE64 "Content-Disposition: form-data; name=top_k\r\n\r\n"
                               "Nw==\r\n--b\r\n" BASE64 "Content-Disposition: form-data; name=f\r\n"
                               "\r\nAXRo\r\nAQ\r\n--b\r\n" BASE64
                               "Content-Disposition: form-data; name=g\r\n\r\ndGV4dA==\r\n--b--";
    struct parsed parsed = parse(FORM, form);
    expect_image(&parsed, 0, "a.jpg", "one");
    expect_image(&parsed, 1, "a.jpg", "dHdv");
    expect_image(&parsed, 2, "image-3", "\x01th\x01");
    assert_int_equal(parsed.body.count, 3);
    assert_string_equal(parsed.body.top_k, "7");
    assert_in_range(parsed.budget->used, 10, sizeof form);
    release(&parsed);
    expect_refused(FORM, "--b\r\n" BASE64 FILE_HEAD "b25l!\r\n--b--", STATUS_BAD_REQUEST,
                   "a part in base64: base64: byte 4");
}

static void field_values_are_short(void **state)
{
    (void)state;
    for (int length = 22; length <= 25; length++) {
        char text[400];
        snprintf(text, sizeof text,
                 "--b\r\n" FILE_HEAD "x\r\n--b\r\n"
                 "Content-Disposition: form-data; name=top_k\r\n\r\n%0*d\r\n--b--",
                 length, 5);
        if (length > 23) {
            expect_refused(FORM, text, STATUS_BAD_REQUEST, "\"top_k\" is no short text");
            continue;
        }
        struct parsed parsed = parse(FORM, text);
        assert_int_equal(parsed.status, STATUS_OK);
        assert_int_equal(strlen(parsed.body.top_k), length);
        release(&parsed);
    }
}

static void no_more_images_than_the_limit(void **state)
{
    (void)state;
    static const char two[] = "--b\r\n" FILE_HEAD "x\r\n--b\r\n" FILE_HEAD "y\r\n--b--";
    for (int max_images = 1; max_images <= 3; max_images++) {
        struct parsed parsed = parse_bytes(FORM, two, sizeof two - 1, max_images);
        assert_int_equal(parsed.status, max_images >= 2 ? STATUS_OK : STATUS_TOO_MANY_IMAGES);
        assert_int_equal(parsed.body.count, max_images >= 2 ? 2 : 0);
        if (max_images < 2)
            assert_non_null(strstr(status_detail(parsed.status), "more than 1 images"));
        release(&parsed);
    }
}

// ---- names --------------------------------------------------------------------------------------

// The name of the file whose Content-Disposition has these parameters.
static void expect_name(const char *parameters, const char *name)
{
    char text[1200];
    snprintf(text, sizeof text, "--b\r\nContent-Disposition: form-data%s\r\n\r\nx\r\n--b--",
             parameters);
    struct parsed parsed = parse(FORM, text);
    if (parsed.status != STATUS_OK || strcmp(parsed.body.images[0].name, name) != 0)
        fail_msg("%s: %s", parameters,
                 parsed.status == STATUS_OK ? parsed.body.images[0].name
                                            : status_detail(parsed.status));
    release(&parsed);
}

static void names_are_valid_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {
        "\xc3\xa9",     "\xc2\x80",     "\xdf\xbf",         "\xe0\xa0\x80",     "\xed\x9f\xbf",
        "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\x7f\x01"};
    // Overlong, surrogates, above U+10FFFF, a lone or a missing continuation byte.
    static const char *const bad[] = {"\x80",
                                      "\xbfz",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc3",
                                      "\xc3z",
                                      "\xe0\x9f\xbf",
                                      "\xe2\x82",
                                      "\xe2\x82z",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf0\x9f\x98",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xf8\x88\x80\x80\x80",
                                      "\xff",
                                      "z\xfe"};
    char parameters[64];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(parameters, sizeof parameters, "; filename=\"%s\"", good[i]);
        expect_name(parameters, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(parameters, sizeof parameters, "; filename=\"%s\"", bad[i]);
        expect_name(parameters, "image-1");
    }
}

static void names_of_up_to_255_bytes(void **state)
{
    (void)state;
    for (int length = 254; length <= 257; length++) {
        char name[300], parameters[400];
        snprintf(name, sizeof name, "%0*d", length, 7);
        snprintf(parameters, sizeof parameters, "; filename=%s", name);
        expect_name(parameters, length <= 255 ? name : "image-1");
    }
}

static void name_with_a_zero_byte(void **state)
{
    (void)state;
    static const char form[] = "--b\r\n" FILE_HEAD "x\r\n--b\r\n"
                               "Content-Disposition: form-data; filename=\"a\0.jpg\"\r\n\r\n"
                               "y\r\n--b--";
    struct parsed parsed = parse_bytes(FORM, form, sizeof form - 1, 8);
    expect_image(&parsed, 0, "a.jpg", "x");
    expect_image(&parsed, 1, "image-2", "y");
    release(&parsed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_body_is_one_image_whatever_its_type),
        cmocka_unit_test(empty_body_holds_no_image),
        cmocka_unit_test(json_under_another_type),
        cmocka_unit_test(files_and_fields_in_order),
        cmocka_unit_test(form_without_a_file),
        cmocka_unit_test(fields_are_known_and_come_once),
        cmocka_unit_test(unknown_fields_are_passed_over),
        cmocka_unit_test(files_that_were_not_chosen),
        cmocka_unit_test(parts_without_a_file_name),
        cmocka_unit_test(parts_in_base64),
        cmocka_unit_test(field_values_are_short),
        cmocka_unit_test(no_more_images_than_the_limit),
        cmocka_unit_test(names_are_valid_utf8),
        cmocka_unit_test(names_of_up_to_255_bytes),
        cmocka_unit_test(name_with_a_zero_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
