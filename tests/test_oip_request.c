// server/oip_request.c and oip_data.c: requests in JSON and in binary give their images and
// outputs; what is malformed is refused with a sentence that says what and where, and nothing stays
// charged. Each body lies in a heap block of its exact size, so that AddressSanitizer sees any read
// behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "oip_request.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S = 2, K = 5, CROP = S * S * 3, MAX_IMAGES = 4 };

#define OUTSIDE(inputs) "{\"inputs\":[" inputs "]}"
#define PIXELS(shape, rest)                                                                        \
    OUTSIDE("{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":" shape "," rest "}")
#define IMAGE(shape, rest)                                                                         \
    OUTSIDE("{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":" shape "," rest "}")
#define BINARY(size)  "\"parameters\":{\"binary_data_size\":" size "}"
#define TWELVE        "0,1,2,3,4,5,6,7,8,9,10,11"
#define GOOD          IMAGE("[1]", "\"data\":[\"QUJD\"]")
#define WITH(members) "{" members "," GOOD_INPUTS "}"
#define GOOD_INPUTS                                                                                \
    "\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"QUJD\"]}]"

struct parsed {
    uint8_t *bytes;
    struct budget budget;
    struct oip_request request;
    enum status status;
};

static void parse_bytes(struct parsed *parsed, const char *json_length, const void *bytes,
                        size_t length)
{
    *parsed =
        (struct parsed){.bytes = malloc(length + (length == 0)), .budget = {.limit = 1 << 20}};
    assert_non_null(parsed->bytes);
    for (size_t i = 0; i < length; i++)
        parsed->bytes[i] = ((const uint8_t *)bytes)[i];
    struct oip_source source = {.json_length = json_length,
                                .bytes = parsed->bytes,
                                .length = length,
                                .S = S,
                                .K = K,
                                .max_images = MAX_IMAGES,
                                .budget = &parsed->budget};
    parsed->status = oip_request_parse(&source, &parsed->request);
    if (parsed->status != STATUS_OK) { // a failure leaves nothing behind
        assert_null(parsed->request.images);
        assert_int_equal(parsed->budget.used, 0);
    }
}

static void release(struct parsed *parsed)
{
    oip_request_release(&parsed->request);
    assert_int_equal(parsed->budget.used, 0);
    free(parsed->bytes);
}

static void parse_good(struct parsed *parsed, const char *json)
{
    parse_bytes(parsed, NULL, json, strlen(json));
    if (parsed->status != STATUS_OK)
        fail_msg("%s: %s", json, status_detail(parsed->status));
}

// JSON with a tensor behind it.
static void parse_binary(struct parsed *parsed, const char *json, const void *tensor, size_t length)
{
    char json_length[24], *body = malloc(strlen(json) + length + 1);
    assert_non_null(body);
    snprintf(json_length, sizeof json_length, "%zu", strlen(json));
    snprintf(body, strlen(json) + 1, "%s", json);
    for (size_t i = 0; i < length; i++)
        body[strlen(json) + i] = ((const char *)tensor)[i];
    parse_bytes(parsed, json_length, body, strlen(json) + length);
    free(body);
}

static void expect_refusal(struct parsed *parsed, const char *what, enum status status,
                           const char *words)
{
    if (parsed->status != status || !strstr(status_detail(status), words))
        fail_msg("%s: %s: %s", what, status_code(parsed->status), status_detail(parsed->status));
    release(parsed);
}

static void refuse_as(const char *json, enum status status, const char *words)
{
    struct parsed parsed;
    parse_bytes(&parsed, NULL, json, strlen(json));
    expect_refusal(&parsed, json, status, words);
}

static void refuse(const char *json, const char *words)
{
    refuse_as(json, STATUS_BAD_REQUEST, words);
}

static void refuse_binary(const char *json, const void *tensor, size_t length, const char *words)
{
    struct parsed parsed;
    parse_binary(&parsed, json, tensor, length);
    expect_refusal(&parsed, json, STATUS_BAD_REQUEST, words);
}

static void expect_image(const struct parsed *parsed, int index, const char *text)
{
    assert_in_range(index, 0, parsed->request.count - 1);
    const struct upload *image = &parsed->request.images[index];
    assert_false(image->cropped);
    assert_int_equal(image->length, strlen(text));
    assert_memory_equal(image->bytes, text, image->length);
}

// Pixel i of all the crops is i.
static void expect_crops(const struct parsed *parsed, int count)
{
    assert_int_equal(parsed->request.count, count);
    for (int i = 0; i < count; i++) {
        const struct upload *image = &parsed->request.images[i];
        assert_true(image->cropped);
        assert_int_equal(image->length, CROP);
        for (int j = 0; j < CROP; j++)
            assert_int_equal(image->bytes[j], i * CROP + j);
    }
}

// ---- inputs -------------------------------------------------------------------------------------

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
    refuse(IMAGE("[1]", "\"data\":[\"QUJ\"]"), "image 1: base64: byte 3");
    refuse(IMAGE("[2]", "\"data\":[\"QUJD\",\"QU?D\"]"), "image 2: base64: byte 2");
    refuse(IMAGE("[2]", "\"data\":[\"QUJD\"]"), "data is not a list of 2 strings");
    refuse(IMAGE("[1]", "\"data\":[\"QUJD\",\"QUJD\"]"), "data is not a list of 1 strings");
    refuse(IMAGE("[1]", "\"data\":\"QUJD\""), "data is not a list of 1 strings");
    refuse(IMAGE("[1]", "\"data\":null"), "data is not a list of 1 strings");
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
    refuse(PIXELS("[1,2,2,3]", "\"data\":null"), "is not a list of numbers");
    refuse(PIXELS("[1,2,2,3]", "\"d\\u0061ta\":[" TWELVE "]"), "is not a list of numbers");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[" TWELVE "],\"d\\u0061ta\":null"), "json: line 1");
    refuse(PIXELS("[1,2,2,3]", "\"data\":[" TWELVE "] 7"), "json: line 1");
}

// Three of 3, 0 and 1 bytes.
static const char three_images[] = "\3\0\0\0ABC\0\0\0\0\1\0\0\0d";
enum { THREE = sizeof three_images - 1 };

static void binary_images(void **state)
{
    (void)state;
    static const char *const texts[] = {IMAGE("[3]", BINARY("16")), IMAGE("[3,1]", BINARY("16"))};
    for (size_t i = 0; i < 2; i++) {
        struct parsed parsed;
        parse_binary(&parsed, texts[i], three_images, THREE);
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

static void binary_images_that_are_wrong(void **state)
{
    (void)state;
    refuse_binary(IMAGE("[3]", BINARY("15")), three_images, THREE, "are 15 bytes, but 16 follow");
    refuse_binary(IMAGE("[3]", BINARY("17")), three_images, THREE, "are 17 bytes, but 16 follow");
    refuse_binary(IMAGE("[3]", BINARY("15")), three_images, THREE - 1,
                  "image 3: its length says 1 bytes, but the tensor has 0 more");
    refuse_binary(IMAGE("[3]", BINARY("14")), three_images, THREE - 2,
                  "image 3: the tensor ends at byte 14, within its length");
    refuse_binary(IMAGE("[2]", BINARY("16")), three_images, THREE, "5 bytes are left over");
    refuse_binary(IMAGE("[4]", BINARY("16")), three_images, THREE, "image 4: the tensor ends");
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
    refuse_binary(IMAGE("[3]", "\"data\":[\"QUJD\"]," BINARY("16")), three_images, THREE,
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

// ---- id, parameters, outputs --------------------------------------------------------------------

static void ids(void **state)
{
    (void)state;
    struct parsed parsed;
    parse_good(&parsed, GOOD);
    assert_null(parsed.request.id);
    release(&parsed);
    parse_good(&parsed, WITH("\"id\":\"a\xc3\xa9\\n\\u00e9\xf0\x9f\x98\x80\""));
    assert_string_equal(parsed.request.id, "a\xc3\xa9\n\xc3\xa9\xf0\x9f\x98\x80");
    release(&parsed);
    parse_good(&parsed, WITH("\"id\":\"\""));
    assert_string_equal(parsed.request.id, "");
    release(&parsed);
    refuse(WITH("\"id\":7"), "id is not a string");
    refuse(WITH("\"id\":null"), "id is not a string");
    refuse(WITH("\"id\":\"\xc3\""), "json: line 1");
    refuse(WITH("\"id\":\"1\",\"id\":\"2\""), "json: line 1");
}

static void parameters(void **state)
{
    (void)state;
    struct parsed parsed;
    parse_good(&parsed, WITH("\"parameters\":{\"timeout\":5000,\"priority\":0,\"x\":\"y\","
                             "\"f\":1.5,\"b\":false}"));
    release(&parsed);
    refuse(WITH("\"parameters\":[]"), "request: parameters is not an object");
    refuse(WITH("\"parameters\":{\"x\":null}"), "request: parameter \"x\" is neither");
    refuse(WITH("\"parameters\":{\"x\":[]}"), "request: parameter \"x\" is neither");
    refuse(WITH("\"parameters\":{\"timeout\":\"5\"}"), "\"timeout\" is not a whole number");
    refuse(WITH("\"parameters\":{\"timeout\":-1}"), "\"timeout\" is not a whole number");
    refuse(WITH("\"parameters\":{\"priority\":1.5}"), "\"priority\" is not a whole number");
    refuse(WITH("\"parameters\":{\"binary_data_output\":1}"),
           "\"binary_data_output\" is neither true nor false");
    refuse(IMAGE("[1]", "\"data\":[\"\"],\"parameters\":7"), "inputs[0]: parameters is not");
    refuse(IMAGE("[1]", "\"data\":[\"\"],\"parameters\":{\"x\":{}}"), "inputs[0]: parameter \"x\"");
    refuse(WITH("\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"x\":{}}}]"),
           "outputs[0]: parameter \"x\"");
}

static void expect_outputs(const char *json, const struct oip_output *expected, int count)
{
    struct parsed parsed;
    parse_good(&parsed, json);
    assert_int_equal(parsed.request.n_outputs, count);
    for (int i = 0; i < count; i++) {
        assert_int_equal(parsed.request.outputs[i].tensor, expected[i].tensor);
        assert_int_equal(parsed.request.outputs[i].binary, expected[i].binary);
        assert_int_equal(parsed.request.outputs[i].classification, expected[i].classification);
    }
    release(&parsed);
}

static void outputs(void **state)
{
    (void)state;
    static const struct oip_output both[] = {{OIP_LOGITS, false, 0}, {OIP_PROBABILITIES, false, 0}};
    expect_outputs(GOOD, both, 2);
    expect_outputs(WITH("\"outputs\":[]"), both, 2);
    static const struct oip_output both_binary[] = {{OIP_LOGITS, true, 0},
                                                    {OIP_PROBABILITIES, true, 0}};
    expect_outputs(WITH("\"parameters\":{\"binary_data_output\":true}"), both_binary, 2);
    // In the order asked for; an output's own word counts more than the request's.
    static const struct oip_output mixed[] = {{OIP_PROBABILITIES, true, 0}, {OIP_LOGITS, false, 0}};
    expect_outputs(WITH("\"parameters\":{\"binary_data_output\":true},\"outputs\":[{\"name\":"
                        "\"probabilities\"},{\"name\":\"logits\",\"parameters\":"
                        "{\"binary_data\":false}}]"),
                   mixed, 2);
    static const struct oip_output best[] = {{OIP_LOGITS, true, 3}, {OIP_PROBABILITIES, false, K}};
    expect_outputs(WITH("\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"binary_data\":true,"
                        "\"classification\":3}},{\"name\":\"probabilities\",\"parameters\":"
                        "{\"classification\":9223372036854775807}}]"),
                   best, 2);
}

static void outputs_that_are_wrong(void **state)
{
    (void)state;
    refuse(WITH("\"outputs\":{}"), "outputs is not a list");
    refuse(WITH("\"outputs\":null"), "outputs is not a list");
    refuse(WITH("\"outputs\":[{}]"), "outputs[0]: there is no \"name\"");
    refuse(WITH("\"outputs\":[7]"), "outputs[0]: there is no \"name\"");
    refuse(WITH("\"outputs\":[{\"name\":\"logits\"},{\"name\":\"logit\"}]"),
           "outputs[1]: \"logit\" is neither logits nor probabilities");
    refuse(WITH("\"outputs\":[{\"name\":\"logits\"},{\"name\":\"logits\"}]"),
           "outputs[1]: logits is there already");
    refuse(WITH("\"outputs\":[{\"name\":\"logits\"},{\"name\":\"probabilities\"},"
                "{\"name\":\"logits\"}]"),
           "outputs[2]: logits is there already");
    refuse(WITH("\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"binary_data\":\"true\"}}]"),
           "\"binary_data\" is neither true nor false");
    static const char *const counts[] = {
        WITH("\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"classification\":0}}]"),
        WITH("\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"classification\":-1}}]"),
        WITH("\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"classification\":1.0}}]"),
        WITH("\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"classification\":\"1\"}}]")};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        refuse(counts[i], "outputs[0]: parameter \"classification\" is not a whole number from 1");
}

// ---- the length of the JSON ---------------------------------------------------------------------

static void raw_image(void **state)
{
    (void)state;
    struct parsed parsed;
    parse_bytes(&parsed, "0", "ABC", 3);
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.request.count, 1);
    expect_image(&parsed, 0, "ABC");
    assert_ptr_equal(parsed.request.images[0].bytes, parsed.bytes);
    assert_int_equal(parsed.request.n_outputs, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(parsed.request.outputs[i].tensor, i);
        assert_true(parsed.request.outputs[i].binary);
    }
    release(&parsed);
    parse_bytes(&parsed, "0", "", 0);
    expect_refusal(&parsed, "nothing", STATUS_NO_IMAGE, "the body is empty");
}

static void lengths_of_the_json(void **state)
{
    (void)state;
    static const char *const bad[] = {"",    "-1",  "+1",  " 1",  "1 ",   "0x10",
                                      "1,2", "1e2", "abc", "1.0", "\xff", "12abc"};
    struct parsed parsed;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        parse_bytes(&parsed, bad[i], GOOD, strlen(GOOD));
        expect_refusal(&parsed, bad[i], STATUS_BAD_REQUEST, "is not a whole number");
    }
    static const char *const large[] = {"100000", "18446744073709551615", "18446744073709551616",
                                        "99999999999999999999999999999999999999"};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        parse_bytes(&parsed, large[i], GOOD, strlen(GOOD));
        expect_refusal(&parsed, large[i], STATUS_BAD_REQUEST, "is more than the body's");
    }
    for (int change = -1; change <= 1; change++) {
        char text[24];
        snprintf(text, sizeof text, "%d", (int)strlen(GOOD) + change);
        parse_bytes(&parsed, text, GOOD, strlen(GOOD));
        assert_int_equal(parsed.status, change == 0 ? STATUS_OK : STATUS_BAD_REQUEST);
        release(&parsed);
    }
}

// ---- memory -------------------------------------------------------------------------------------

// Whatever the budget has left, what was taken is given back.
static void every_budget(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"id\":\"1\",\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":"
        "[1,2,2,3],\"data\":[" TWELVE "]}]}",
        "{\"id\":\"1\"," GOOD_INPUTS "}"};
    for (size_t i = 0; i < 2; i++) {
        int refused = 0;
        for (int64_t limit = 0; limit < 16384; limit += 7) {
            struct budget budget = {.limit = limit};
            struct oip_request request;
            struct oip_source source = {.bytes = (const uint8_t *)texts[i],
                                        .length = strlen(texts[i]),
                                        .S = S,
                                        .K = K,
                                        .max_images = MAX_IMAGES,
                                        .budget = &budget};
            enum status status = oip_request_parse(&source, &request);
            assert_true(status == STATUS_OK || status == STATUS_QUEUE_FULL);
            refused += status == STATUS_QUEUE_FULL;
            // The image and the id: JSON's values are gone.
            assert_int_equal(budget.used, status != STATUS_OK ? 0 : i == 0 ? CROP + 2 : 3 + 2);
            oip_request_release(&request);
            assert_int_equal(budget.used, 0);
        }
        assert_in_range(refused, 1, 16384 / 7 - 1);
    }
}

static void deep_and_many(void **state)
{
    (void)state;
    enum { DEPTH = 10000 };
    static char text[3 * DEPTH + 200];
    static const char in_data[] = "{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\","
                                  "\"shape\":[1,2,2,3],\"data\":";
    static const char *const heads[] = {"", "{\"x\":", in_data};
    for (size_t i = 0; i < 3; i++)
        for (int closed = 0; closed < 2; closed++) {
            size_t length = (size_t)snprintf(text, sizeof text, "%s", heads[i]);
            memset(text + length, '[', DEPTH);
            memset(text + length + DEPTH, ']', DEPTH);
            text[length + DEPTH * (size_t)(1 + closed)] = '\0';
            refuse(text, ""); // in a stack of any size
        }
    // Values take more memory than their text: the budget is asked before they are made.
    size_t length = (size_t)snprintf(text, sizeof text, "{\"x\":[1");
    for (; length < sizeof text - 8; length += 2)
        memcpy(text + length, ",1", 2);
    snprintf(text + length, 8, "]}");
    refuse_as(text, STATUS_QUEUE_FULL, "budget");
}

// AddressSanitizer is what fails here, if anything does.
static void every_truncation_and_change(void **state)
{
    (void)state;
    static const char head[] = "{\"id\":\"1\",\"inputs\":[{\"name\":\"image\",\"shape\":[3,1],"
                               "\"datatype\":\"BYTES\"," BINARY(
                                   "16") "}],\"outputs\":[{\"name\":"
                                         "\"logits\",\"parameters\":{\"classification\":2}}]}";
    enum { HEAD = sizeof head - 1 };
    char body[HEAD + THREE], json_length[24];
    memcpy(body, head, HEAD);
    memcpy(body + HEAD, three_images, THREE);
    snprintf(json_length, sizeof json_length, "%d", HEAD);
    struct parsed parsed;
    for (size_t length = 0; length <= sizeof body; length++) {
        parse_bytes(&parsed, json_length, body, length);
        assert_int_equal(parsed.status == STATUS_OK, length == sizeof body);
        release(&parsed);
    }
    static const char changes[] = "\0\"\\[]{},:01-e \xff";
    for (size_t at = 0; at < sizeof body; at++)
        for (size_t i = 0; i < sizeof changes - 1; i++) {
            char before = body[at];
            body[at] = changes[i];
            parse_bytes(&parsed, json_length, body, sizeof body);
            release(&parsed);
            body[at] = before;
        }
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
        cmocka_unit_test(binary_pixels),
        cmocka_unit_test(either_data_or_binary),
        cmocka_unit_test(shapes),
        cmocka_unit_test(no_more_images_than_the_limit),
        cmocka_unit_test(one_known_input),
        cmocka_unit_test(ids),
        cmocka_unit_test(parameters),
        cmocka_unit_test(outputs),
        cmocka_unit_test(outputs_that_are_wrong),
        cmocka_unit_test(raw_image),
        cmocka_unit_test(lengths_of_the_json),
        cmocka_unit_test(every_budget),
        cmocka_unit_test(deep_and_many),
        cmocka_unit_test(every_truncation_and_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
