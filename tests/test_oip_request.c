// server/oip_request.c: what a request says beside its images, the length of its JSON, and that
// nothing stays charged, whatever comes.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "parsed_oip.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// Clients that dump a whole object write null for what they leave out.
static void null_is_absent(void **state)
{
    (void)state;
    struct parsed parsed;
    static const struct oip_output both[] = {{OIP_LOGITS, false, 0}, {OIP_PROBABILITIES, false, 0}};
    static const struct oip_output one[] = {{OIP_LOGITS, true, 0}};
    parse_good(&parsed, WITH("\"id\":null"));
    assert_null(parsed.request.id);
    release(&parsed);
    expect_outputs(WITH("\"parameters\":null,\"outputs\":null,\"x\":null"), both, 2);
    expect_outputs(WITH("\"parameters\":{\"timeout\":null,\"priority\":null,\"x\":null,"
                        "\"binary_data_output\":null}"),
                   both, 2);
    expect_outputs(WITH("\"parameters\":{\"binary_data_output\":true},\"outputs\":[{\"name\":"
                        "\"logits\",\"parameters\":null}]"),
                   one, 1);
    expect_outputs(WITH("\"parameters\":{\"binary_data_output\":true},\"outputs\":[{\"name\":"
                        "\"logits\",\"parameters\":{\"binary_data\":null,"
                        "\"classification\":null}}]"),
                   one, 1);
    parse_good(&parsed, IMAGE("[1]", "\"data\":[\"QUJD\"],\"parameters\":null"));
    release(&parsed);
    parse_good(&parsed, IMAGE("[1]", "\"data\":[\"QUJD\"],"
                                     "\"parameters\":{\"binary_data_size\":null}"));
    release(&parsed);
    parse_binary(&parsed, IMAGE("[3]", "\"data\":null," BINARY("16")), THREE_IMAGES, THREE);
    assert_int_equal(parsed.status, STATUS_OK);
    expect_image(&parsed, 0, "ABC");
    release(&parsed);
    // What is needed is not there where it is null.
    refuse("{\"inputs\":null}", "no \"inputs\" that is a list");
    refuse(IMAGE("null", "\"data\":[\"QUJD\"]"), "image: shape is neither");
    refuse(IMAGE("[1]", "\"data\":[null]"), "data is not a list of 1 strings");
    refuse(WITH("\"outputs\":[null]"), "outputs[0]: there is no \"name\"");
    refuse(OUTSIDE("null"), "inputs[0]: there is no \"name\"");
}

static void byte_order_mark(void **state)
{
    (void)state;
    struct parsed parsed;
    parse_good(&parsed, "\xef\xbb\xbf" GOOD);
    expect_image(&parsed, 0, "ABC");
    release(&parsed);
    parse_good(&parsed, "\xef\xbb\xbf" PIXELS("[1,2,2,3]", "\"data\":[" TWELVE "]"));
    expect_crops(&parsed, 1);
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
            // The image: JSON's values are gone.
            assert_int_equal(budget.used, status != STATUS_OK ? 0 : i == 0 ? CROP : 3);
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
    memcpy(body + HEAD, THREE_IMAGES, THREE);
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
        cmocka_unit_test(ids),
        cmocka_unit_test(parameters),
        cmocka_unit_test(null_is_absent),
        cmocka_unit_test(byte_order_mark),
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
