// server/oip_data.c and what oip_request.c reads of an input: each form of it gives the same
// images, and what is malformed is refused with a sentence that says which image and what of it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "parsed_oip.h"
#include <stdio.h>
#include <string.h>

static void images_in_json(void **state)
{
    (void)state;
    static const char *const texts[] = {
        IMAGE("[2]", "\"data\":[\"QUJD\",\"ZA==\"]"),
        IMAGE("[2,1]", "\"data\":[\"QUJD\",\"ZA==\"]"),
        IMAGE("[2,1]", "\"data\":[[\"QUJD\"],[\"ZA==\"]]"),
        IMAGE("[2]", "\"data\":[\"data:image/png;base64,QUJD\",\"Z\\u0041==\"]"),
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct parsed parsed;
        parse_good(&parsed, texts[i]);
        assert_int_equal(parsed.request.count, 2);
        expect_image(&parsed, 0, "ABC");
        expect_image(&parsed, 1, "d");
        release(&parsed);
    }
}

static void images_in_json_that_are_wrong(void **state)
{
    (void)state;
    refuse(IMAGE("[1]", "\"data\":[\"Q\"]"), "image 1: base64: byte 1");
    refuse(IMAGE("[2]", "\"data\":[\"QUJD\",\"QU?D\"]"), "image 2: base64: byte 2");
    refuse(IMAGE("[2]", "\"data\":[\"QUJD\"]"), "data is not a list of 2 strings");
    refuse(IMAGE("[1]", "\"data\":[\"QUJD\",\"QUJD\"]"), "data is not a list of 1 strings");
    refuse(IMAGE("[1]", "\"data\":\"QUJD\""), "data is not a list of 1 strings");
    refuse(IMAGE("[1]", "\"data\":null"), "there is neither data nor binary_data_size");
    refuse(IMAGE("[1]", "\"data\":[65,66]"), "data is not a list of 1 strings");
    refuse(IMAGE("[1]", "\"data\":[]"), "data is not a list of 1 strings");
    refuse(IMAGE("[2]", "\"data\":[\"QUJD\",7]"), "image 2: data[1] is not a string");
    refuse(IMAGE("[1]", "\"data\":[[\"QUJD\"]]"), "image 1: data[0] is not a string");
    refuse(IMAGE("[1,1]", "\"data\":[[\"QUJD\",\"QUJD\"]]"), "image 1: data[0] is not a string");
    refuse(IMAGE("[1,1]", "\"data\":[[[\"QUJD\"]]]"), "image 1: data[0] is not a string");
    refuse(IMAGE("[1]", "\"data\":[\"\\u0000\"]"), "json: line 1");
    refuse(IMAGE("[1]", "\"data\":[\"\xff\"]"), "json: line 1");
}

static void pixels_in_json(void **state)
{
    (void)state;
    struct parsed parsed;
    parse_good(&parsed, PIXELS("[1,2,2,3]", "\"data\":[" TWELVE "]"));
    expect_crops(&parsed, 1);
    release(&parsed);
    parse_good(&parsed,
               PIXELS("[2,2,2,3]", "\"data\":[" TWELVE ",12,13,14,15,16,17,18,19,20,21,22,23]"));
    expect_crops(&parsed, 2);
    release(&parsed);
    parse_good(&parsed, PIXELS("[2,2,2,3]", "\"data\":[[[[0,1,2],[3,4,5]],[[6,7,8],[9,10,11]]],"
                                            "[[[12,13,14],[15,16,17]],[[18,19,20],[21,22,23]]]]"));
    expect_crops(&parsed, 2);
    release(&parsed);
    // Black, in as few bytes as there can be.
    parse_good(&parsed, PIXELS("[1,2,2,3]", "\"data\":[0,0,0,0,0,0,0,0,0,0,0,0]"));
    assert_int_equal(parsed.request.count, 1);
    assert_int_equal(parsed.request.images[0].length, CROP);
    assert_memory_equal(parsed.request.images[0].bytes, (const uint8_t[CROP]){0}, CROP);
    release(&parsed);
    // What is left of the JSON is read whole, whatever the order.
    parse_good(&parsed, "{\"inputs\":[{\"data\":[" TWELVE "],\"shape\":[1,2,2,3],\"datatype\":"
                        "\"UINT8\",\"name\":\"pixels\"}],\"id\":\"after\"}");
    expect_crops(&parsed, 1);
    assert_string_equal(parsed.request.id, "after");
    release(&parsed);
}

static void pixels_in_json_that_are_wrong(void **state)
{
    (void)state;
    refuse(PIXELS("[1,2,2,3]", "\"data\":[0,1,2,3,4,5,6,7,8,9,10,256]"),
           "data[11] is not a whole number from 0 to 255");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[" TWELVE ",12]"), "behind the first 12 numbers");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[0,1,2,3,4,5,6,7,8,9,1000]"), "data[10] is not");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[0,1,2,3,4,5,6,7,8,9,   100]"), "behind the first 11");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[0,1,2]"), "too short for the 12 numbers");
    refuse(PIXELS("[4,2,2,3]", "\"data\":[" TWELVE "]"), "too short for the 48 numbers");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[\"AAECAwQFBgcICQoL\"]"), "is not a list of numbers");
    refuse(PIXELS("[1,2,2,3]", "\"data\":\"AAECAwQFBgcICQoL\""), "is not a list of numbers");
    refuse(PIXELS("[1,2,2,3]", "\"data\":null"), "there is neither data nor binary_data_size");
    refuse(PIXELS("[1,2,2,3]", "\"d\\u0061ta\":[" TWELVE "]"), "is not a list of numbers");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[" TWELVE "],\"d\\u0061ta\":null"), "json: line 1");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[" TWELVE "] 7"), "json: line 1");
}

static void binary_images(void **state)
{
    (void)state;
    static const char *const texts[] = {IMAGE("[3]", BINARY("16")), IMAGE("[3,1]", BINARY("16"))};
    for (size_t i = 0; i < 2; i++) {
        struct parsed parsed;
        parse_binary(&parsed, texts[i], THREE_IMAGES, THREE);
        assert_int_equal(parsed.status, STATUS_OK);
        assert_int_equal(parsed.request.count, 3);
        expect_image(&parsed, 0, "ABC");
        expect_image(&parsed, 1, "");
        expect_image(&parsed, 2, "d");
        // Not copied.
        assert_ptr_equal(parsed.request.images[0].bytes, parsed.bytes + strlen(texts[i]) + 4);
        assert_int_equal(parsed.budget.used, 0);
        release(&parsed);
    }
}

// Lengths of one, two and three bytes, and nothing as the last.
static void lengths_of_binary_images(void **state)
{
    (void)state;
    static const size_t lengths[] = {0x01, 0x0203, 0x040506, 0};
    enum { TENSOR = 4 * 4 + 0x01 + 0x0203 + 0x040506 };
    static uint8_t tensor[TENSOR];
    char text[512];
    size_t at = 0;
    for (int i = 0; i < 4; i++) {
        for (int shift = 0; shift < 32; shift += 8)
            tensor[at++] = (uint8_t)(lengths[i] >> shift);
        memset(tensor + at, 'a' + i, lengths[i]);
        at += lengths[i];
    }
    snprintf(text, sizeof text, IMAGE("[4]", BINARY("%d")), TENSOR);
    struct parsed parsed;
    parse_binary(&parsed, text, tensor, TENSOR);
    assert_int_equal(parsed.status, STATUS_OK);
    for (int i = 0; i < 4; i++) {
        const struct upload *image = &parsed.request.images[i];
        assert_int_equal(image->length, lengths[i]);
        if (image->length > 0)
            assert_true(image->bytes[0] == 'a' + i && image->bytes[image->length - 1] == 'a' + i);
    }
    release(&parsed);
    refuse_binary(IMAGE("[1]", BINARY("4")), "\0\0\0\1", 4,
                  "its length says 16777216 bytes, but the tensor has 0 more");
}

static void binary_images_that_are_wrong(void **state)
{
    (void)state;
    refuse_binary(IMAGE("[3]", BINARY("15")), THREE_IMAGES, THREE, "are 15 bytes, but 16 follow");
    refuse_binary(IMAGE("[3]", BINARY("17")), THREE_IMAGES, THREE, "are 17 bytes, but 16 follow");
    refuse_binary(IMAGE("[3]", BINARY("15")), THREE_IMAGES, THREE - 1,
                  "image 3: its length says 1 bytes, but the tensor has 0 more");
    refuse_binary(IMAGE("[3]", BINARY("14")), THREE_IMAGES, THREE - 2,
                  "image 3: the tensor ends at byte 14, within its length");
    refuse_binary(IMAGE("[2]", BINARY("16")), THREE_IMAGES, THREE, "5 bytes are left over");
    refuse_binary(IMAGE("[4]", BINARY("16")), THREE_IMAGES, THREE, "image 4: the tensor ends");
    refuse_binary(IMAGE("[1]", BINARY("5")), "\2\0\0\0A", 5, "image 1: its length says 2 bytes");
    refuse_binary(IMAGE("[1]", BINARY("5")),
                  "\xff\xff\xff\xff"
                  "A",
                  5, "its length says 4294967295 bytes");
    refuse_binary(IMAGE("[1]", BINARY("0")), "", 0, "image 1: the tensor ends at byte 0");
}

static void binary_pixels(void **state)
{
    (void)state;
    uint8_t tensor[2 * CROP + 1];
    for (size_t i = 0; i < sizeof tensor; i++)
        tensor[i] = (uint8_t)i;
    struct parsed parsed;
    parse_binary(&parsed, PIXELS("[2,2,2,3]", BINARY("24")), tensor, 24);
    expect_crops(&parsed, 2);
    assert_int_equal(parsed.budget.used, 0);
    release(&parsed);
    refuse_binary(PIXELS("[2,2,2,3]", BINARY("23")), tensor, 23,
                  "binary_data_size is 23, but the shape holds 24 bytes");
    refuse_binary(PIXELS("[2,2,2,3]", BINARY("25")), tensor, 25, "binary_data_size is 25");
    refuse_binary(PIXELS("[1,2,2,3]", BINARY("24")), tensor, 24, "binary_data_size is 24");
}

static void either_data_or_binary(void **state)
{
    (void)state;
    refuse_binary(IMAGE("[3]", "\"data\":[\"QUJD\"]," BINARY("16")), THREE_IMAGES, THREE,
                  "both data and binary_data_size");
    refuse_binary(PIXELS("[1,2,2,3]", "\"data\":[" TWELVE "]," BINARY("12")), "ABCDEFGHIJKL", 12,
                  "both data and binary_data_size");
    refuse(IMAGE("[1]", "\"x\":1"), "neither data nor binary_data_size");
    refuse(IMAGE("[1]", BINARY("4")), "are 4 bytes, but 0 follow");
    refuse_binary(GOOD, "x", 1, "are 0 bytes, but 1 follow");
    static const char *const bad[] = {IMAGE("[1]", BINARY("-1")), IMAGE("[1]", BINARY("\"4\"")),
                                      IMAGE("[1]", BINARY("4.0")), IMAGE("[1]", BINARY("true"))};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse_binary(bad[i], "\0\0\0\0", 4, "\"binary_data_size\" is not a whole number");
    refuse_binary(IMAGE("[1]", BINARY("18446744073709551620")), "\0\0\0\0", 4, "too big integer");
    refuse_binary(IMAGE("[1]", BINARY("9223372036854775807")), "\0\0\0\0", 4, "but 4 follow");
}

static void shapes(void **state)
{
    (void)state;
    static const char *const bad_images[] = {IMAGE("[]", "\"data\":[]"),
                                             IMAGE("[0]", "\"data\":[]"),
                                             IMAGE("[-1]", "\"data\":[]"),
                                             IMAGE("[1,2]", "\"data\":[]"),
                                             IMAGE("[1,0]", "\"data\":[]"),
                                             IMAGE("[1,-1]", "\"data\":[]"),
                                             IMAGE("[1,1,1]", "\"data\":[]"),
                                             IMAGE("[1.0]", "\"data\":[]"),
                                             IMAGE("[\"1\"]", "\"data\":[]"),
                                             IMAGE("[true]", "\"data\":[]"),
                                             IMAGE("[null]", "\"data\":[]"),
                                             IMAGE("1", "\"data\":[]"),
                                             IMAGE("null", "\"data\":[]"),
                                             IMAGE("{}", "\"data\":[]"),
                                             IMAGE("[4294967297,4294967297]", "\"data\":[]")};
    for (size_t i = 0; i < sizeof bad_images / sizeof *bad_images; i++)
        refuse(bad_images[i], "image: shape is neither [n] nor [n, 1]");
    static const char *const bad_pixels[] = {PIXELS("[]", "\"data\":[]"),
                                             PIXELS("[12]", "\"data\":[" TWELVE "]"),
                                             PIXELS("[2,2,3]", "\"data\":[]"),
                                             PIXELS("[0,2,2,3]", "\"data\":[]"),
                                             PIXELS("[-1,2,2,3]", "\"data\":[]"),
                                             PIXELS("[1,2,2,4]", "\"data\":[]"),
                                             PIXELS("[1,3,2,3]", "\"data\":[]"),
                                             PIXELS("[1,3,2,2]", "\"data\":[]"),
                                             PIXELS("[1,2,-2,3]", "\"data\":[]"),
                                             PIXELS("[1,2,2,3,1]", "\"data\":[]"),
                                             PIXELS("[1,2,0,3]", "\"data\":[]"),
                                             PIXELS("[[1],2,2,3]", "\"data\":[]"),
                                             PIXELS("[1,2,4294967298,3]", "\"data\":[]")};
    for (size_t i = 0; i < sizeof bad_pixels / sizeof *bad_pixels; i++)
        refuse(bad_pixels[i], "pixels: shape is not [n, 2, 2, 3]");
    // 2^62 x 12 is 0 in 64 bits.
    refuse(PIXELS("[4611686018427387904,2,2,3]", "\"data\":[]"),
           "shape[0] is 4611686018427387904, but the body has");
    refuse(IMAGE("[9223372036854775807]", "\"data\":[]"), "but the body has");
    refuse(IMAGE("[9223372036854775808]", "\"data\":[]"), "too big integer");
    refuse(OUTSIDE("{\"name\":\"image\",\"datatype\":\"BYTES\",\"data\":[\"\"]}"),
           "image: shape is neither");
}

static void no_more_images_than_the_limit(void **state)
{
    (void)state;
    struct parsed parsed;
    parse_good(&parsed, IMAGE("[4]", "\"data\":[\"\",\"\",\"\",\"\"]"));
    assert_int_equal(parsed.request.count, MAX_IMAGES);
    release(&parsed);
    refuse_as(IMAGE("[5]", "\"data\":[\"\",\"\",\"\",\"\",\"\"]"), STATUS_TOO_MANY_IMAGES,
              "image: 5 images, but the limit is 4");
    refuse_as(PIXELS("[5,2,2,3]", "\"data\":[]"), STATUS_TOO_MANY_IMAGES, "pixels: 5 images");
}

static void one_known_input(void **state)
{
    (void)state;
    refuse("{}", "there is no \"inputs\" that is a list");
    refuse("{\"inputs\":{}}", "there is no \"inputs\" that is a list");
    refuse("{\"inputs\":[]}", "inputs: 0 of them, but exactly one");
    refuse("{\"inputs\":[{},{}]}", "inputs: 2 of them, but exactly one");
    refuse("{\"inputs\":[1]}", "there is no \"name\"");
    refuse("{\"inputs\":[{\"name\":7}]}", "there is no \"name\"");
    refuse("{\"inputs\":[{\"name\":\"image\"}]}", "there is no \"datatype\"");
    refuse("{\"inputs\":[{\"name\":\"image\",\"datatype\":1}]}", "there is no \"datatype\"");
    refuse("{\"inputs\":[{\"name\":\"images\",\"datatype\":\"BYTES\"}]}",
           "\"images\" is neither image nor pixels");
    refuse("{\"inputs\":[{\"name\":\"image\",\"datatype\":\"UINT8\"}]}",
           "image: the datatype is BYTES, not \"UINT8\"");
    refuse("{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"FP32\"}]}",
           "pixels: the datatype is UINT8, not \"FP32\"");
    refuse("[]", "the request is not an object");
    refuse("7", "json");
    refuse(GOOD "x", "json: line 1");
    refuse_as("", STATUS_NO_IMAGE, "the body is empty");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_in_json),
        cmocka_unit_test(images_in_json_that_are_wrong),
        cmocka_unit_test(pixels_in_json),
        cmocka_unit_test(pixels_in_json_that_are_wrong),
        cmocka_unit_test(binary_images),
        cmocka_unit_test(binary_images_that_are_wrong),
        cmocka_unit_test(lengths_of_binary_images),
        cmocka_unit_test(binary_pixels),
        cmocka_unit_test(either_data_or_binary),
        cmocka_unit_test(shapes),
        cmocka_unit_test(no_more_images_than_the_limit),
        cmocka_unit_test(one_known_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
