// server/oip_response.c: the JSON is valid whatever the numbers, the names and the id are, and each
// binary tensor lies where the JSON says.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "given_labels.h"
#include "oip_response.h"
#include "postprocess.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { K = 4 };

static struct catalog_entry entry = {.name = "tiny \"vit\"", .dims = {.K = K}};
static struct labels *labels;

static int open_labels(void **state)
{
    (void)state;
    labels = given_labels(&entry, "zero\none: \"1\"\ntw\xc3\xb6\nthree\n");
    return 0;
}

static int close_labels(void **state)
{
    (void)state;
    labels_close(labels);
    return 0;
}

static const float two_images[2][K] = {{0.1f, 2.0f, -1.5f, 1.0f}, {3e38f, 1e-30f, -0.0f, 7.0f}};

struct written {
    struct oip_body body;
    json_t *root;
};

static void write_answer(struct written *written, struct oip_request *request,
                         const float logits[][K])
{
    struct result results[4] = {0};
    for (int i = 0; i < request->count; i++)
        results[i].logits = logits[i];
    struct oip_answer answer = {
        .entry = &entry, .labels = labels, .request = request, .results = results};
    assert_int_equal(oip_response_write(&answer, &written->body), STATUS_OK);
    assert_in_range(written->body.json_length, 1, written->body.length);
    json_error_t error;
    written->root =
        json_loadb(written->body.bytes, written->body.json_length, JSON_REJECT_DUPLICATES, &error);
    if (!written->root)
        fail_msg("%s: %.*s", error.text, (int)written->body.json_length, written->body.bytes);
    assert_string_equal(json_string_value(json_object_get(written->root, "model_name")),
                        entry.name);
    assert_string_equal(json_string_value(json_object_get(written->root, "model_version")), "1");
}

static void release(struct written *written)
{
    json_decref(written->root);
    free(written->body.bytes);
}

static const json_t *output_at(const struct written *written, size_t index, const char *name,
                               const char *datatype, int rows, int columns)
{
    const json_t *output = json_array_get(json_object_get(written->root, "outputs"), index);
    const json_t *shape = json_object_get(output, "shape");
    assert_string_equal(json_string_value(json_object_get(output, "name")), name);
    assert_string_equal(json_string_value(json_object_get(output, "datatype")), datatype);
    assert_int_equal(json_array_size(shape), 2);
    assert_int_equal(json_integer_value(json_array_get(shape, 0)), rows);
    assert_int_equal(json_integer_value(json_array_get(shape, 1)), columns);
    return output;
}

static size_t binary_size(const json_t *output)
{
    assert_null(json_object_get(output, "data"));
    return (size_t)json_integer_value(
        json_object_get(json_object_get(output, "parameters"), "binary_data_size"));
}

static float softmax(const float *logits, int index)
{
    struct prediction top[K];
    postprocess_top_k(logits, K, K, top);
    for (int i = 0; i < K; i++)
        if (top[i].class_index == index)
            return top[i].probability;
    fail_msg("no class %d", index);
    return 0.0f;
}

static void numbers_in_json(void **state)
{
    (void)state;
    struct oip_request request = {
        .count = 2,
        .n_outputs = 2,
        .outputs = {{.tensor = OIP_PROBABILITIES}, {.tensor = OIP_LOGITS}}};
    struct written written;
    write_answer(&written, &request, two_images);
    assert_int_equal(written.body.json_length, written.body.length);
    assert_null(json_object_get(written.root, "id"));
    const json_t *probabilities =
                     json_object_get(output_at(&written, 0, "probabilities", "FP32", 2, K), "data"),
                 *logits = json_object_get(output_at(&written, 1, "logits", "FP32", 2, K), "data");
    assert_int_equal(json_array_size(logits), 2 * K);
    assert_int_equal(json_array_size(probabilities), 2 * K);
    for (int i = 0; i < 2 * K; i++) { // to the bit
        float logit = (float)json_number_value(json_array_get(logits, (size_t)i)),
              probability = (float)json_number_value(json_array_get(probabilities, (size_t)i)),
              expected = softmax(two_images[i / K], i % K);
        assert_memory_equal(&logit, &two_images[i / K][i % K], sizeof logit);
        assert_memory_equal(&probability, &expected, sizeof probability);
    }
    release(&written);
}

static void numbers_in_binary(void **state)
{
    (void)state;
    struct oip_request request = {.count = 2,
                                  .n_outputs = 2,
                                  .outputs = {{.tensor = OIP_LOGITS, .binary = true},
                                              {.tensor = OIP_PROBABILITIES, .binary = true}}};
    struct written written;
    write_answer(&written, &request, two_images);
    size_t size = sizeof two_images;
    assert_int_equal(binary_size(output_at(&written, 0, "logits", "FP32", 2, K)), size);
    assert_int_equal(binary_size(output_at(&written, 1, "probabilities", "FP32", 2, K)), size);
    assert_int_equal(written.body.length, written.body.json_length + 2 * size);
    const char *tensors = written.body.bytes + written.body.json_length;
    assert_memory_equal(tensors, two_images, size);
    for (int i = 0; i < 2 * K; i++) {
        float expected = softmax(two_images[i / K], i % K);
        assert_memory_equal(tensors + size + sizeof expected * (size_t)i, &expected,
                            sizeof expected);
    }
    release(&written);
}

static void one_binary_one_not(void **state)
{
    (void)state;
    struct oip_request request = {
        .count = 1,
        .n_outputs = 2,
        .outputs = {{.tensor = OIP_LOGITS}, {.tensor = OIP_PROBABILITIES, .binary = true}}};
    struct written written;
    write_answer(&written, &request, two_images);
    const json_t *logits = output_at(&written, 0, "logits", "FP32", 1, K);
    assert_int_equal(json_array_size(json_object_get(logits, "data")), K);
    assert_null(json_object_get(logits, "parameters"));
    assert_int_equal(binary_size(output_at(&written, 1, "probabilities", "FP32", 1, K)),
                     sizeof(float) * K);
    assert_int_equal(written.body.length, written.body.json_length + sizeof(float) * K);
    release(&written);
}

static void not_finite(void **state)
{
    (void)state;
    static const float logits[1][K] = {{NAN, INFINITY, -INFINITY, 1.0f}};
    struct oip_request request = {
        .count = 1,
        .n_outputs = 2,
        .outputs = {{.tensor = OIP_LOGITS}, {.tensor = OIP_PROBABILITIES}}};
    struct written written;
    write_answer(&written, &request, logits);
    const json_t *data = json_object_get(output_at(&written, 0, "logits", "FP32", 1, K), "data");
    for (size_t i = 0; i < 3; i++)
        assert_true(json_is_null(json_array_get(data, i)));
    assert_true(json_is_number(json_array_get(data, 3)));
    data = json_object_get(output_at(&written, 1, "probabilities", "FP32", 1, K), "data");
    for (size_t i = 0; i < K; i++)
        assert_true(json_is_null(json_array_get(data, i)));
    release(&written);
}

static void best_classes_in_json(void **state)
{
    (void)state;
    struct oip_request request = {.count = 2,
                                  .n_outputs = 2,
                                  .outputs = {{.tensor = OIP_LOGITS, .classification = 3},
                                              {.tensor = OIP_PROBABILITIES, .classification = 1}}};
    struct written written;
    write_answer(&written, &request, two_images);
    static const char *const expected[] = {"2:1:one: \"1\"",     "1:3:three",
                                           "0.100000001:0:zero", "3.00000001e+38:0:zero",
                                           "7:3:three",          "1e-30:1:one: \"1\""};
    const json_t *data = json_object_get(output_at(&written, 0, "logits", "BYTES", 2, 3), "data");
    assert_int_equal(json_array_size(data), 6);
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(json_string_value(json_array_get(data, i)), expected[i]);
    data = json_object_get(output_at(&written, 1, "probabilities", "BYTES", 2, 1), "data");
    assert_int_equal(json_array_size(data), 2);
    assert_string_equal(json_string_value(json_array_get(data, 1)), "1:0:zero");
    release(&written);
}

static void best_classes_in_binary(void **state)
{
    (void)state;
    struct oip_request request = {
        .count = 1,
        .n_outputs = 1,
        .outputs = {{.tensor = OIP_LOGITS, .binary = true, .classification = K}}};
    struct written written;
    write_answer(&written, &request, two_images);
    static const char expected[] = "\xc\0\0\0"
                                   "2:1:one: \"1\""
                                   "\x9\0\0\0"
                                   "1:3:three"
                                   "\x12\0\0\0"
                                   "0.100000001:0:zero"
                                   "\xb\0\0\0"
                                   "-1.5:2:tw\xc3\xb6";
    size_t size = binary_size(output_at(&written, 0, "logits", "BYTES", 1, K));
    assert_int_equal(size, sizeof expected - 1);
    assert_int_equal(written.body.length, written.body.json_length + size);
    assert_memory_equal(written.body.bytes + written.body.json_length, expected, size);
    release(&written);
}

static void the_id_as_it_came(void **state)
{
    (void)state;
    char id[] = "\"\\\n\x01/\xc3\xa9\xf0\x9f\x98\x80";
    struct oip_request request = {
        .id = id, .count = 1, .n_outputs = 1, .outputs = {{.tensor = OIP_LOGITS}}};
    struct written written;
    write_answer(&written, &request, two_images);
    assert_string_equal(json_string_value(json_object_get(written.root, "id")), id);
    // Not escaped where JSON lets it be.
    assert_non_null(strstr(written.body.bytes, "/\xc3\xa9\xf0\x9f\x98\x80\""));
    release(&written);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_in_json),      cmocka_unit_test(numbers_in_binary),
        cmocka_unit_test(one_binary_one_not),   cmocka_unit_test(not_finite),
        cmocka_unit_test(best_classes_in_json), cmocka_unit_test(best_classes_in_binary),
        cmocka_unit_test(the_id_as_it_came),
    };
    return cmocka_run_group_tests(tests, open_labels, close_labels);
}
