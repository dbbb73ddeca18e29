// server/result.c: the shapes of the JSON, what a failure leaves in it, and that any name and any
// number come out as valid JSON.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "given_labels.h"
#include "result.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { K = 4 };

static struct catalog_entry entry = {.name = "tiny", .dims = {.K = K}};
static struct labels *labels;

static int open_labels(void **state)
{
    (void)state;
    labels = given_labels(&entry, "zero\none, \"quoted\"\ntw\xc3\xb6\nthree\n");
    return 0;
}

static int close_labels(void **state)
{
    (void)state;
    labels_close(labels);
    return 0;
}

// The answer's JSON, which must be valid, and its status.
static json_t *answer(struct answer_options options, const struct result *results, int count,
                      enum status *status)
{
    char *text;
    options.entry = &entry;
    options.labels = labels;
    assert_int_equal(answer_write(&options, results, count, status, &text), STATUS_OK);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (!root)
        fail_msg("not JSON: %s", text);
    free(text);
    return root;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "(none)";
}

static const json_t *result_at(const json_t *root, size_t index)
{
    const json_t *result = json_array_get(json_object_get(root, "results"), index);
    assert_non_null(result);
    return result;
}

// ---- shapes -------------------------------------------------------------------------------------

static void one_image(void **state)
{
    (void)state;
    const float logits[K] = {0.1f, 2.0f, -1.0f, 1.0f};
    const struct result result = {
        .name = "cat \"1\".jpg", .width = 640, .height = 480, .logits = logits};
    enum status status;
    json_t *root =
        answer((struct answer_options){.top_k = 2, .request_id = "id"}, &result, 1, &status);
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(json_object_size(root), 2); // no error, no request_id
    assert_string_equal(text_of(root, "model"), "tiny");
    assert_int_equal(json_array_size(json_object_get(root, "results")), 1);
    const json_t *first = result_at(root, 0), *top = json_object_get(first, "predictions");
    assert_int_equal(json_object_size(first), 4); // no logits
    assert_string_equal(text_of(first, "name"), "cat \"1\".jpg");
    assert_int_equal(json_integer_value(json_object_get(first, "width")), 640);
    assert_int_equal(json_integer_value(json_object_get(first, "height")), 480);
    assert_int_equal(json_array_size(top), 2);
    static const struct {
        int index;
        const char *label;
        double probability;
    } expected[] = {{1, "one, \"quoted\"", 0.63806635}, {3, "three", 0.23473149}};
    for (size_t i = 0; i < 2; i++) {
        const json_t *prediction = json_array_get(top, i);
        assert_int_equal(json_object_size(prediction), 3);
        assert_int_equal(json_integer_value(json_object_get(prediction, "class")),
                         expected[i].index);
        assert_string_equal(text_of(prediction, "label"), expected[i].label);
        double probability = json_real_value(json_object_get(prediction, "probability"));
        assert_true(fabs(probability - expected[i].probability) < 1e-6);
    }
    json_decref(root);
}

// Nine digits bring every float back to the bit.
static void logits_are_exact(void **state)
{
    (void)state;
    const float logits[K] = {0.1f, -1.17549435e-38f, 3.40282347e+38f, 1.00000012f};
    const struct result result = {.name = "a", .logits = logits};
    enum status status;
    json_t *root = answer((struct answer_options){.top_k = K, .logits = true}, &result, 1, &status);
    const json_t *list = json_object_get(result_at(root, 0), "logits");
    assert_int_equal(json_array_size(list), K);
    for (size_t i = 0; i < K; i++)
        assert_true((float)json_real_value(json_array_get(list, i)) == logits[i]);
    json_decref(root);
}

static void failures_beside_a_success(void **state)
{
    (void)state;
    const float logits[K] = {0};
    const struct result results[] = {
        {.name = "a", .status = STATUS_BAD_IMAGE, .detail = "png: cut"},
        {.name = "b", .width = 3, .height = 2, .logits = logits},
        {.name = "c", .width = 9, .status = STATUS_DEVICE_FAILED, .detail = "gone"}};
    enum status status;
    json_t *root = answer((struct answer_options){.top_k = 1, .logits = true}, results, 3, &status);
    assert_int_equal(status, STATUS_OK);
    assert_null(json_object_get(root, "error"));
    assert_int_equal(json_object_size(result_at(root, 0)), 3);
    assert_string_equal(text_of(result_at(root, 0), "error"), "png: cut");
    assert_string_equal(text_of(result_at(root, 0), "code"), "bad_image");
    assert_string_equal(text_of(result_at(root, 1), "name"), "b");
    assert_null(json_object_get(result_at(root, 1), "error"));
    assert_string_equal(text_of(result_at(root, 2), "code"), "device_failed");
    json_decref(root);
}

// The first image's status, and the error object with the results beside it.
static void all_failed(void **state)
{
    (void)state;
    const struct result results[] = {
        {.name = "a", .status = STATUS_UNSUPPORTED_IMAGE, .detail = "neither JPEG nor PNG"},
        {.name = "b", .status = STATUS_BAD_IMAGE, .detail = "png: cut"}};
    enum status status;
    json_t *root =
        answer((struct answer_options){.top_k = 1, .request_id = "id-7"}, results, 2, &status);
    assert_int_equal(status, STATUS_UNSUPPORTED_IMAGE);
    assert_string_equal(text_of(root, "error"), "neither JPEG nor PNG");
    assert_string_equal(text_of(root, "code"), "unsupported_image");
    assert_string_equal(text_of(root, "request_id"), "id-7");
    assert_string_equal(text_of(root, "model"), "tiny");
    assert_string_equal(text_of(result_at(root, 1), "code"), "bad_image");
    json_decref(root);
}

static void error_object(void **state)
{
    (void)state;
    char *text;
    enum status failure = status_fail(STATUS_BAD_TOP_K, "top_k: \"%s\"", "\x01");
    assert_int_equal(answer_write_error(failure, "id", &text), STATUS_OK);
    assert_string_equal(text, "{\"error\":\"top_k: \\\"\\u0001\\\"\",\"code\":\"bad_top_k\","
                              "\"request_id\":\"id\"}");
    free(text);
    // Without a detail of its own: the table's sentence; without an id: none.
    assert_int_equal(answer_write_error(STATUS_STARTING, NULL, &text), STATUS_OK);
    assert_string_equal(text, "{\"error\":\"the model is still loading\",\"code\":\"starting\"}");
    free(text);
}

static void result_fail_keeps_the_detail(void **state)
{
    (void)state;
    struct result result = {0};
    char longest[400];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    result_fail(&result, status_fail(STATUS_BAD_IMAGE, "jpeg: %s", longest));
    assert_int_equal(result.status, STATUS_BAD_IMAGE);
    assert_memory_equal(result.detail, "jpeg: xxx", 9);
    assert_int_equal(strlen(result.detail), sizeof result.detail - 1);
    (void)!status_fail(STATUS_IO, "something else");
    result_fail(&result, STATUS_DEADLINE);
    assert_string_equal(result.detail, "the request ran out of time in the queue");
}

static void prepare_records_the_failure(void **state)
{
    (void)state;
    const struct image_limits limits = {.max_pixels = 100};
    struct result result = {.name = "a"};
    enum status status =
        result_prepare(&result, (const uint8_t *)"GIF89a", 6, &limits, &entry.preprocess, NULL);
    assert_int_equal(status, STATUS_UNSUPPORTED_IMAGE);
    assert_int_equal(result.status, status);
    assert_int_equal(result.width, 0);
    assert_string_equal(result.detail, status_detail(status));
    status = result_prepare(&result, NULL, 0, &limits, &entry.preprocess, NULL);
    assert_true(status == STATUS_UNSUPPORTED_IMAGE || status == STATUS_BAD_IMAGE);
}

// ---- hostile values -----------------------------------------------------------------------------

// JSON has no NaN: null stands for it, and nothing is left out.
static void numbers_that_are_not_finite(void **state)
{
    (void)state;
    const float sets[][K] = {{NAN, NAN, NAN, NAN},
                             {1.0f, NAN, 2.0f, 3.0f},
                             {INFINITY, 0.0f, -INFINITY, 1.0f},
                             {-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
    for (size_t set = 0; set < sizeof sets / sizeof *sets; set++) {
        const struct result result = {.name = "a", .logits = sets[set]};
        enum status status;
        json_t *root =
            answer((struct answer_options){.top_k = 3, .logits = true}, &result, 1, &status);
        const json_t *top = json_object_get(result_at(root, 0), "predictions");
        const json_t *list = json_object_get(result_at(root, 0), "logits");
        assert_int_equal(json_array_size(top), 3);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(json_object_size(json_array_get(top, i)), 3);
            const json_t *probability = json_object_get(json_array_get(top, i), "probability");
            assert_true(json_is_null(probability) || json_is_real(probability));
        }
        assert_int_equal(json_array_size(list), K);
        for (size_t i = 0; i < K; i++)
            assert_int_equal(json_is_real(json_array_get(list, i)), isfinite(sets[set][i]));
        json_decref(root);
    }
}

static void text_that_is_not_utf8(void **state)
{
    (void)state;
    const float logits[K] = {0};
    const struct result results[] = {
        {.name = "caf\xe9.jpg", .logits = logits},
        {.name = "\xf0\x9f\x98\x80", .status = STATUS_BAD_IMAGE, .detail = "cut: \"\xf0\x9f\""}};
    enum status status;
    json_t *root = answer((struct answer_options){.top_k = 1}, results, 2, &status);
    assert_string_equal(text_of(result_at(root, 0), "name"), "caf?.jpg");
    assert_string_equal(text_of(result_at(root, 1), "name"), "\xf0\x9f\x98\x80");
    assert_string_equal(text_of(result_at(root, 1), "error"), "cut: \"??\"");
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_image),
        cmocka_unit_test(logits_are_exact),
        cmocka_unit_test(failures_beside_a_success),
        cmocka_unit_test(all_failed),
        cmocka_unit_test(error_object),
        cmocka_unit_test(result_fail_keeps_the_detail),
        cmocka_unit_test(prepare_records_the_failure),
        cmocka_unit_test(numbers_that_are_not_finite),
        cmocka_unit_test(text_that_is_not_utf8),
    };
    return cmocka_run_group_tests(tests, open_labels, close_labels);
}
