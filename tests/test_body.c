// server/body.c: every form of body gives its images in order, and what is malformed is refused
// with a sentence that says why. Each body lies in a heap block of its exact size, so that
// AddressSanitizer sees any read behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "body.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORM      "multipart/form-data; boundary=b"
#define FILE_HEAD "Content-Disposition: form-data; name=\"f\"; filename=\"a.jpg\"\r\n\r\n"

struct parsed {
    char *bytes;
    struct body body;
    enum status status;
};

static struct parsed parse_bytes(const char *type, const char *bytes, size_t length, int max_images)
{
    struct parsed parsed = {.bytes = malloc(length)};
    if (length > 0) // or malloc() may return NULL
        assert_non_null(parsed.bytes);
    for (size_t i = 0; i < length; i++)
        parsed.bytes[i] = bytes[i];
    parsed.status =
        body_parse(type, (const uint8_t *)parsed.bytes, length, max_images, &parsed.body);
    return parsed;
}

static struct parsed parse(const char *type, const char *text)
{
    return parse_bytes(type, text, strlen(text), 8);
}

static void release(struct parsed *parsed)
{
    body_release(&parsed->body);
    free(parsed->bytes);
}

// A failure leaves nothing behind, and its detail holds `words`.
static void expect_refused(const char *type, const char *text, enum status status,
                           const char *words)
{
    struct parsed parsed = parse(type, text);
    if (parsed.status != status || !strstr(status_detail(status), words))
        fail_msg("\"%s\": %s: %s", text, status_code(parsed.status), status_detail(parsed.status));
    assert_null(parsed.body.images);
    assert_int_equal(parsed.body.count, 0);
    release(&parsed);
}

static void expect_image(const struct parsed *parsed, int index, const char *name,
                         const char *bytes)
{
    assert_int_equal(parsed->status, STATUS_OK);
    assert_in_range(index, 0, parsed->body.count - 1);
    const struct upload *image = &parsed->body.images[index];
    assert_string_equal(image->name, name);
    assert_int_equal(image->length, strlen(bytes));
    assert_memory_equal(image->bytes, bytes, image->length);
}

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
    expect_refused(NULL, "", STATUS_NO_IMAGE, "empty");
    expect_refused("image/png", "", STATUS_NO_IMAGE, "empty");
    expect_refused(FORM, "", STATUS_NO_IMAGE, "empty");
}

static void json_is_not_supported(void **state)
{
    (void)state;
    expect_refused("application/json", "{}", STATUS_UNSUPPORTED_MEDIA, "JSON");
    expect_refused("Application/JSON; charset=utf-8", "{}", STATUS_UNSUPPORTED_MEDIA, "JSON");
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

static void zero_bytes_are_data(void **state)
{
    (void)state;
    static const char form[] = "--b\r\n" FILE_HEAD "\0\r\n--\0b\0\r\n--b--";
    struct parsed parsed = parse_bytes(FORM, form, sizeof form - 1, 8);
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.body.images[0].length, 8);
    assert_memory_equal(parsed.body.images[0].bytes, "\0\r\n--\0b\0", 8);
    release(&parsed);
}

static void boundary_lines(void **state)
{
    (void)state;
    static const struct {
        const char *type, *text;
    } good[] = {
        {FORM, "preamble\r\n--b\r\n" FILE_HEAD "x\r\n--b--epilogue --b"},
        {FORM, "--b \t \r\n" FILE_HEAD "x\r\n--b--"},
        {"multipart/form-data; boundary=\"b\"", "--b\r\n" FILE_HEAD "x\r\n--b--"},
        {"Multipart/Form-Data;charset=x;BOUNDARY=b ;y=z", "--b\r\n" FILE_HEAD "x\r\n--b--"},
        {"multipart/form-data; x=\"; boundary=c\"; boundary=b", "--b\r\n" FILE_HEAD "x\r\n--b--"},
        {"multipart/form-data; boundary=\"b c:d\"", "--b c:d\r\n" FILE_HEAD "x\r\n--b c:d--"},
        {"multipart/form-data\t; boundary=--", "----\r\n" FILE_HEAD "x\r\n------"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct parsed parsed = parse(good[i].type, good[i].text);
        expect_image(&parsed, 0, "a.jpg", "x");
        release(&parsed);
    }
}

static void boundary_of_1_to_70_characters(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "multipart/form-data",
        "multipart/form-data;",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; xboundary=b",
        "multipart/form-data; boundaryx=b",
        "multipart/form-data boundary=b",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i], "--b\r\n" FILE_HEAD "x\r\n--b--", STATUS_BAD_REQUEST,
                       "no boundary of 1 to 70 characters");
    for (int length = 69; length <= 72; length++) {
        char boundary[80], type[160], text[400];
        snprintf(boundary, sizeof boundary, "%0*d", length, 7);
        snprintf(type, sizeof type, "multipart/form-data; boundary=%s", boundary);
        snprintf(text, sizeof text, "--%s\r\n" FILE_HEAD "x\r\n--%s--", boundary, boundary);
        struct parsed parsed = parse(type, text);
        assert_int_equal(parsed.status, length <= 70 ? STATUS_OK : STATUS_BAD_REQUEST);
        release(&parsed);
    }
}

static void malformed_forms_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"x", "the boundary is not in the body"},
        {"-", "the boundary is not in the body"},
        {"x--b\r\n" FILE_HEAD "x\r\n", "the boundary is not in the body"},
        {"--b", "a boundary line does not end"},
        {"--b-", "a boundary line does not end"},
        {"--b\r", "a boundary line does not end"},
        {"--b\n" FILE_HEAD "x\r\n--b--", "a boundary line does not end"},
        {"--bc\r\n" FILE_HEAD "x\r\n--b--", "a boundary line does not end"},
        {"--b\r\n", "the closing boundary is missing"},
        {"--b\r\n" FILE_HEAD "x", "the closing boundary is missing"},
        {"--b\r\n" FILE_HEAD "x\r\n--", "the closing boundary is missing"},
        {"--b\r\n" FILE_HEAD "x\n--b--", "the closing boundary is missing"},
        {"--b\r\n" FILE_HEAD "x\r\n--b", "a boundary line does not end"},
        {"--b\r\n" FILE_HEAD "x\r\n--b\r\n" FILE_HEAD, "the closing boundary is missing"},
        {"--b\r\n\r\nx\r\n--b--", "a part has no headers"},
        {"--b\r\nx\r\n--b--", "the head of a part does not end"},
        {"--b\r\n\r\n--b--", "the head of a part does not end"},
        {"--b\r\nContent-Disposition: form-data; filename=a\r\n\r\n--b--",
         "the head of a part does not end"},
        {"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--", "no Content-Disposition"},
        {"--b\r\nContent-Disposition form-data; filename=a\r\n\r\nx\r\n--b--",
         "no Content-Disposition"},
        {"--b\r\nContent-Disposition:\r\n\r\nx\r\n--b--", "a part has no name"},
        {"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", "a part has no name"},
        {"--b\r\nContent-Disposition: form-data;\r\n\r\nx\r\n--b--", "a part has no name"},
        {"--b\r\nContent-Disposition: form-data; ;=;\r\n\r\nx\r\n--b--", "a part has no name"},
        {"--b\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nx\r\n--b--",
         "\"image\" is neither a file nor top_k nor logits"},
        {"--b\r\nContent-Disposition: form-data; name=top_\r\n\r\nx\r\n--b--", "neither a file"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(FORM, bad[i].text, STATUS_BAD_REQUEST, bad[i].words);
}

static void form_without_a_file(void **state)
{
    (void)state;
    expect_refused(FORM, "--b--", STATUS_NO_IMAGE, "the form holds no file");
    expect_refused(FORM,
                   "--b\r\nContent-Disposition: form-data; name=\"top_k\"\r\n\r\n5\r\n--b--\r\n",
                   STATUS_NO_IMAGE, "the form holds no file");
}

static void field_values_are_short(void **state)
{
    (void)state;
    for (size_t length = 14; length <= 17; length++) {
        char text[400];
        snprintf(text, sizeof text,
                 "--b\r\n" FILE_HEAD "x\r\n--b\r\n"
                 "Content-Disposition: form-data; name=top_k\r\n\r\n%0*d\r\n--b--",
                 (int)length, 5);
        if (length > 15) {
            expect_refused(FORM, text, STATUS_BAD_REQUEST, "\"top_k\" is too long");
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

static void header_parameters(void **state)
{
    (void)state;
    expect_name("; name=\"f\"; filename=\"a b.jpg\"", "a b.jpg");
    expect_name(";name=f;filename=a.jpg", "a.jpg");
    expect_name("; filename=a.jpg  ; name=f", "a.jpg");
    expect_name("; FileName=\"a.jpg\"", "a.jpg");
    expect_name("; filename=\"a;b=c.jpg\"", "a;b=c.jpg");
    expect_name("; filename=\"a\\\"b.jpg\"", "a\\\"b.jpg");
    expect_name("; filename=\"C:\\\\a.jpg\"", "C:\\\\a.jpg");
    expect_name("; filename=\"%22.jpg\"", "%22.jpg");
    expect_name("; name=\"filename\"; filename=\"real\"", "real");
    expect_name("; name=\"x; filename=wrong\"; filename=real", "real");
    expect_name("; name=\"x\\\"; filename=wrong\"; filename=real", "real");
    expect_name("; xfilename=wrong; filenamex=wrong; filename; filename=wrong", "image-1");
    expect_name("; filename=first; filename=second", "first");
    expect_name("; filename=\"no end", "no end");
    expect_name("; filename=\"no end\\", "no end\\");
    expect_name("; filename=\"\"", "image-1");
    expect_name("; filename=", "image-1");
    expect_name(";;; ;filename=a", "a");
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

// ---- whatever bytes come ------------------------------------------------------------------------

static const char whole_form[] =
    "--b\r\nContent-Disposition: form-data; name=top_k\r\n\r\n3\r\n"
    "--b\r\n" FILE_HEAD "x\r\n--b\r\nContent-Disposition: form-data; filename=\"\\\"\xc3\xa9\""
    "\r\nContent-Type: image/png\r\n\r\n\r\n\r\n--b--";

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t length = 0; length < sizeof whole_form; length++) {
        struct parsed parsed = parse_bytes(FORM, whole_form, length, 8);
        bool whole = length == sizeof whole_form - 1;
        assert_int_equal(parsed.status, whole         ? STATUS_OK
                                        : length == 0 ? STATUS_NO_IMAGE
                                                      : STATUS_BAD_REQUEST);
        release(&parsed);
    }
}

// AddressSanitizer is what fails here, if anything does.
static void every_changed_byte_is_survived(void **state)
{
    (void)state;
    static const char changes[] = "\0\r\n;=\"\\-:b \xff";
    for (size_t at = 0; at < sizeof whole_form - 1; at++)
        for (size_t i = 0; i < sizeof changes - 1; i++) {
            char form[sizeof whole_form];
            memcpy(form, whole_form, sizeof form);
            form[at] = changes[i];
            struct parsed parsed = parse_bytes(FORM, form, sizeof form - 1, 2);
            for (int image = 0; image < parsed.body.count; image++)
                assert_in_range(parsed.body.images[image].length, 0, sizeof form);
            release(&parsed);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_body_is_one_image_whatever_its_type),
        cmocka_unit_test(empty_body_holds_no_image),
        cmocka_unit_test(json_is_not_supported),
        cmocka_unit_test(files_and_fields_in_order),
        cmocka_unit_test(zero_bytes_are_data),
        cmocka_unit_test(boundary_lines),
        cmocka_unit_test(boundary_of_1_to_70_characters),
        cmocka_unit_test(malformed_forms_say_what_is_wrong),
        cmocka_unit_test(form_without_a_file),
        cmocka_unit_test(field_values_are_short),
        cmocka_unit_test(no_more_images_than_the_limit),
        cmocka_unit_test(header_parameters),
        cmocka_unit_test(names_are_valid_utf8),
        cmocka_unit_test(names_of_up_to_255_bytes),
        cmocka_unit_test(name_with_a_zero_byte),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_changed_byte_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
