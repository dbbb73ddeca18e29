// server/multipart.c: a form's parts come in order, and what is malformed is refused with a
// sentence that says why. Each body lies in a heap block of its exact size, so that
// AddressSanitizer sees any read behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "multipart.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORM      "multipart/form-data; boundary=b"
#define FILE_HEAD "Content-Disposition: form-data; name=\"f\"; filename=\"a.jpg\"\r\n\r\n"

enum { MAX_PARTS = 8 };

struct parsed {
    char *bytes;
    struct part parts[MAX_PARTS];
    int count;
    enum status status;
};

static enum status collect(struct parsed *parsed, const char *type, size_t length)
{
    struct multipart form;
    bool found = true;
    TRY(multipart_begin(&form, type, (const uint8_t *)parsed->bytes, length));
    while (found) {
        assert_in_range(parsed->count, 0, MAX_PARTS - 1);
        TRY(multipart_next(&form, &parsed->parts[parsed->count], &found));
        parsed->count += found;
    }
    return STATUS_OK;
}

static struct parsed parse_bytes(const char *type, const char *bytes, size_t length)
{
    struct parsed parsed = {.bytes = malloc(length)};
    if (length > 0) // or malloc() may return NULL
        assert_non_null(parsed.bytes);
    for (size_t i = 0; i < length; i++)
        parsed.bytes[i] = bytes[i];
    parsed.status = collect(&parsed, type, length);
    return parsed;
}

static struct parsed parse(const char *type, const char *text)
{
    return parse_bytes(type, text, strlen(text));
}

static void expect_refused(const char *type, const char *text, const char *words)
{
    struct parsed parsed = parse(type, text);
    if (parsed.status != STATUS_BAD_REQUEST || !strstr(status_detail(STATUS_BAD_REQUEST), words))
        fail_msg("\"%s\": %s: %s", text, status_code(parsed.status), status_detail(parsed.status));
    free(parsed.bytes);
}

static void expect_part(const struct parsed *parsed, int index, bool is_file, const char *name,
                        const char *data)
{
    if (parsed->status != STATUS_OK)
        fail_msg("%s: %s", name, status_detail(parsed->status));
    assert_in_range(index, 0, parsed->count - 1);
    const struct part *part = &parsed->parts[index];
    assert_int_equal(part->is_file, is_file);
    if (part->name.length != strlen(name) || memcmp(part->name.at, name, part->name.length) != 0)
        fail_msg("\"%s\": \"%.*s\"", name, (int)part->name.length, part->name.at);
    assert_int_equal(part->data.length, strlen(data));
    assert_memory_equal(part->data.at, data, part->data.length);
}

static void parts_in_order(void **state)
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
                    "--b--\r\n");
    expect_part(&parsed, 0, false, "top_k", "7");
    expect_part(&parsed, 1, true, "one.jpg", "\r\n--c\r\n\r\n-- b\r\n");
    expect_part(&parsed, 2, true, "two.png", "");
    assert_int_equal(parsed.count, 3);
    free(parsed.bytes);
}

static void form_without_parts(void **state)
{
    (void)state;
    struct parsed parsed = parse(FORM, "--b--");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.count, 0);
    free(parsed.bytes);
}

static void zero_bytes_are_data(void **state)
{
    (void)state;
    static const char form[] = "--b\r\n" FILE_HEAD "\0\r\n--\0b\0\r\n--b--";
    struct parsed parsed = parse_bytes(FORM, form, sizeof form - 1);
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.parts[0].data.length, 8);
    assert_memory_equal(parsed.parts[0].data.at, "\0\r\n--\0b\0", 8);
    free(parsed.bytes);
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
        expect_part(&parsed, 0, true, "a.jpg", "x");
        free(parsed.bytes);
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
        expect_refused(bad[i], "--b\r\n" FILE_HEAD "x\r\n--b--",
                       "no boundary of 1 to 70 characters");
    for (int length = 69; length <= 72; length++) {
        char boundary[80], type[160], text[400];
        snprintf(boundary, sizeof boundary, "%0*d", length, 7);
        snprintf(type, sizeof type, "multipart/form-data; boundary=%s", boundary);
        snprintf(text, sizeof text, "--%s\r\n" FILE_HEAD "x\r\n--%s--", boundary, boundary);
        struct parsed parsed = parse(type, text);
        assert_int_equal(parsed.status, length <= 70 ? STATUS_OK : STATUS_BAD_REQUEST);
        if (length > 70)
            assert_non_null(strstr(status_detail(parsed.status), "1 to 70 characters"));
        free(parsed.bytes);
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
        {"--bc\r\n" FILE_HEAD "x\r\n--b--", "a boundary line does not end"},
        {"--b\r\n", "the closing boundary is missing"},
        {"--b\r\n" FILE_HEAD "x", "the closing boundary is missing"},
        {"--b\r\n" FILE_HEAD "x\r\n--", "the closing boundary is missing"},
        {"--b\r\n" FILE_HEAD "x--b--", "the closing boundary is missing"},
        {"--b\n" FILE_HEAD "x--b--", "the closing boundary is missing"},
        {"--b\n\nx\n--b--", "a part has no headers"},
        {"--b\nx\n--b--", "the head of a part does not end"},
        {"--b\r" FILE_HEAD "x\r--b--", "a boundary line does not end"},
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
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(FORM, bad[i].text, bad[i].words);
}

#define LF_HEAD "Content-Disposition: form-data; name=\"f\"; filename=\"a.jpg\"\n\n"

// As forms made by hand have them, in every place or in some.
static void lines_that_end_in_lf(void **state)
{
    (void)state;
    static const char *const good[] = {
        "--b\n" LF_HEAD "x\n--b\n" LF_HEAD "y\n--b--\n",
        "preamble\n--b\n" LF_HEAD "x\n--b \n" LF_HEAD "y\n--b--",
        "--b\r\n" LF_HEAD "x\r\n--b\r\n" FILE_HEAD "y\r\n--b--\r\n",
        "--b\r\n" FILE_HEAD "x\n--b\n" FILE_HEAD "y\n--b--",
        "--b\n" FILE_HEAD "x\n--b\n" LF_HEAD "y\n--b--",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct parsed parsed = parse(FORM, good[i]);
        expect_part(&parsed, 0, true, "a.jpg", "x");
        expect_part(&parsed, 1, true, "a.jpg", "y");
        assert_int_equal(parsed.count, 2);
        free(parsed.bytes);
    }
    // A form whose lines end in CRLF may hold what looks like the other mark.
    struct parsed parsed = parse(FORM, "--b\r\n" FILE_HEAD "\n--b\n\r\n--b--");
    expect_part(&parsed, 0, true, "a.jpg", "\n--b\n");
    assert_int_equal(parsed.count, 1);
    free(parsed.bytes);
    parsed = parse(FORM, "--b\n" LF_HEAD "x\r\r\n--b--"); // and of LF a CR that is data
    expect_part(&parsed, 0, true, "a.jpg", "x\r\r");
    free(parsed.bytes);
}

static void heads_of_parts(void **state)
{
    (void)state;
    struct parsed parsed = parse(
        FORM, "--b\r\nContent-Disposition: form-data;\r\n\tname=\"f\";\r\n filename=a.jpg\r\n"
              "Content-Type : image/png \r\ncontent-transfer-encoding: BASE64\t\r\n\r\n"
              "eA==\r\n"
              "--b\r\nX: y\r\n Content-Type: no\r\nContent-Disposition: form-data; name = f ; "
              "x\r\nContent-Transfer-Encoding: 8bit\r\n\r\ny\r\n--b--");
    expect_part(&parsed, 0, true, "a.jpg", "eA==");
    expect_part(&parsed, 1, false, "f", "y");
    const struct part *part = parsed.parts;
    assert_int_equal(part[0].type.length, 9);
    assert_memory_equal(part[0].type.at, "image/png", 9);
    assert_true(part[0].base64);
    assert_int_equal(part[1].type.length, 0);
    assert_false(part[1].base64);
    free(parsed.bytes);
    expect_refused(FORM,
                   "--b\r\nContent-Transfer-Encoding: quoted-printable\r\n" FILE_HEAD "x\r\n--b--",
                   "\"quoted-printable\": only base64 is known");
}

// The name of the file whose Content-Disposition has these parameters, and 'x' after its end.
static void expect_file_name(const char *parameters, const char *expected)
{
    char text[1200], name[16];
    snprintf(text, sizeof text, "--b\r\nContent-Disposition: form-data%s\r\n\r\nx\r\n--b--",
             parameters);
    struct parsed parsed = parse(FORM, text);
    assert_int_equal(parsed.status, STATUS_OK);
    assert_true(parsed.parts[0].is_file);
    size_t length = multipart_file_name(&parsed.parts[0], name, sizeof name);
    if (length != strlen(expected) || memcmp(name, expected, length) != 0)
        fail_msg("%s: \"%.*s\"", parameters, (int)length, name);
    free(parsed.bytes);
}

static void extended_names(void **state)
{
    (void)state;
    expect_file_name("; filename*=utf-8''%D1%84.jpg", "\xd1\x84.jpg");
    expect_file_name("; FILENAME* = \"UTF-8'en'a%20b\"", "a b");
    expect_file_name("; filename*=iso-8859-1'en'%A3%e9.jpg", "\xc2\xa3\xc3\xa9.jpg");
    expect_file_name("; filename=plain; filename*=UTF-8''better", "better");
    expect_file_name("; filename*=UTF-8''better; filename=plain", "better");
    expect_file_name("; filename=plain; filename*=koi8-r''%c6", "plain");
    expect_file_name("; filename=plain; filename*=broken", "plain");
    expect_file_name("; filename*=utf-8'broken", "");
    expect_file_name("; filename*=utf-8''", "");
    expect_file_name("; filename*=", "");
    expect_file_name("; filename*=utf-8''%", "%");
    expect_file_name("; filename*=utf-8''%4", "%4");
    expect_file_name("; filename*=utf-8''%4g%g4%%41", "%4g%g4%A");
    expect_file_name("; filename*=utf-8''123456789012345", "123456789012345");
    expect_file_name("; filename*=utf-8''1234567890123456", "");
    expect_file_name("; filename*=iso-8859-1''1234567890123%e9", "1234567890123\xc3\xa9");
    expect_file_name("; filename*=iso-8859-1''123456789012345%e9", "");
    expect_file_name("; filename=1234567890123456", "1234567890123456");
    expect_file_name("; filename=12345678901234567", "");
    expect_file_name("; filename*0=\"a\"; filename*1=\"b.jpg\"", "");
    expect_file_name("; filename*0*=utf-8''a; filename*1=\"b.jpg\"", "");
}

// The name of the file whose Content-Disposition has these parameters.
static void expect_name(const char *parameters, const char *name)
{
    char text[1200];
    snprintf(text, sizeof text, "--b\r\nContent-Disposition: form-data%s\r\n\r\nx\r\n--b--",
             parameters);
    struct parsed parsed = parse(FORM, text);
    expect_part(&parsed, 0, true, name, "x");
    free(parsed.bytes);
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
    expect_name("; xfilename=wrong; filenamex=wrong; filename; filename=wrong", "");
    expect_name("; filename=first; filename=second", "first");
    expect_name("; filename=\"no end", "no end");
    expect_name("; filename=\"no end\\", "no end\\");
    expect_name("; filename=\"\"", "");
    expect_name("; filename=", "");
    expect_name(";;; ;filename=a", "a");
}

static const char whole_form[] =
    "--b\r\nContent-Disposition: form-data; name=top_k\r\n\r\n3\r\n"
    "--b\r\n" FILE_HEAD "x\r\n--b\r\nContent-Disposition: form-data; filename=\"\\\"\xc3\xa9\""
    "\r\nContent-Type: image/png\r\n\r\n\r\n\r\n--b\r\nContent-Disposition: form-data; "
    "filename*=utf-8''%d1%84\r\nContent-Transfer-Encoding: base64\r\n\r\neA\r\n--b--";

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t length = 0; length < sizeof whole_form; length++) {
        struct parsed parsed = parse_bytes(FORM, whole_form, length);
        bool whole = length == sizeof whole_form - 1;
        assert_int_equal(parsed.status, whole ? STATUS_OK : STATUS_BAD_REQUEST);
        free(parsed.bytes);
    }
}

static void check_part(const struct part *part, size_t length)
{
    char name[sizeof whole_form];
    assert_in_range(part->data.length, 0, length);
    assert_in_range(multipart_file_name(part, name, sizeof name), 0, sizeof name);
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
            struct parsed parsed = parse_bytes(FORM, form, sizeof form - 1);
            for (int part = 0; part < parsed.count; part++)
                check_part(&parsed.parts[part], sizeof form);
            free(parsed.bytes);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_in_order),
        cmocka_unit_test(form_without_parts),
        cmocka_unit_test(zero_bytes_are_data),
        cmocka_unit_test(boundary_lines),
        cmocka_unit_test(boundary_of_1_to_70_characters),
        cmocka_unit_test(malformed_forms_say_what_is_wrong),
        cmocka_unit_test(lines_that_end_in_lf),
        cmocka_unit_test(heads_of_parts),
        cmocka_unit_test(extended_names),
        cmocka_unit_test(header_parameters),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_changed_byte_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
