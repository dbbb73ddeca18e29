#include "result.h"
#include "clock.h"
#include "json.h"
#include "memory.h"
#include "postprocess.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void result_fail(struct result *result, enum status status)
{
    result->status = status;
    snprintf(result->detail, sizeof result->detail, "%s", status_detail(status));
}

enum status result_prepare(struct result *result, const uint8_t *bytes, size_t length,
                           const struct image_limits *limits, const struct preprocess *recipe,
                           uint8_t *pixels)
{
    struct preprocessed done = {0};
    int64_t start = clock_ns();
    enum status status = preprocess_bytes(recipe, bytes, length, limits, pixels, &done);
    result->decode_ns = clock_ns() - start - done.resample_ns;
    if (status == STATUS_OK) {
        result->width = done.width;
        result->height = done.height;
        result->preprocess_ns = done.resample_ns;
    } else {
        result_fail(result, status);
    }
    return status;
}

// Text that a client may have sent, as a JSON string whatever its bytes are.
static json_t *json_text(const char *text)
{
    json_t *string = json_string(text);
    if (string)
        return string;
    char ascii[512];
    snprintf(ascii, sizeof ascii, "%s", text);
    for (char *c = ascii; *c; c++)
        *c = (unsigned char)*c < 0x80 ? *c : '?';
    return json_string(ascii);
}

// JSON has no NaN and no infinity: null stands for them.
static json_t *json_number(float value)
{
    return isfinite(value) ? json_real((double)value) : json_null();
}

static json_t *predictions_json(const struct answer_options *options, const float *logits)
{
    struct prediction *top = memory_allocate(sizeof *top * (size_t)options->top_k);
    json_t *list = json_array();
    if (!top)
        return list;
    postprocess_top_k(logits, options->entry->dims.K, options->top_k, top);
    for (int i = 0; i < options->top_k; i++)
        json_array_append_new(list,
                              json_pack("{s:i, s:o, s:o}", "class", top[i].class_index, "label",
                                        json_text(labels_name(options->labels, top[i].class_index)),
                                        "probability", json_number(top[i].probability)));
    free(top);
    return list;
}

static json_t *logits_json(const float *logits, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_number(logits[i]));
    return list;
}

static json_t *result_json(const struct answer_options *options, const struct result *result)
{
    json_t *object = json_object();
    json_object_set_new(object, "name", json_text(result->name));
    if (result->status != STATUS_OK) {
        json_object_set_new(object, "error", json_text(result->detail));
        json_object_set_new(object, "code", json_string(status_code(result->status)));
        return object;
    }
    json_object_set_new(object, "width", json_integer(result->width));
    json_object_set_new(object, "height", json_integer(result->height));
    json_object_set_new(object, "predictions", predictions_json(options, result->logits));
    if (options->logits)
        json_object_set_new(object, "logits", logits_json(result->logits, options->entry->dims.K));
    return object;
}

// Nine digits name every float exactly.
static enum status dump(json_t *root, char **text)
{
    return json_print(root, JSON_COMPACT | JSON_REAL_PRECISION(9), text);
}

static json_t *error_json(enum status error, const char *detail, const char *request_id)
{
    json_t *object = json_object();
    json_object_set_new(object, "error", json_text(detail));
    json_object_set_new(object, "code", json_string(status_code(error)));
    if (request_id)
        json_object_set_new(object, "request_id", json_text(request_id));
    return object;
}

enum status answer_write(const struct answer_options *options, const struct result *results,
                         int count, enum status *status, char **text)
{
    *status = results[0].status;
    for (int i = 1; i < count && *status != STATUS_OK; i++)
        if (results[i].status == STATUS_OK)
            *status = STATUS_OK;
    json_t *root = *status == STATUS_OK
                       ? json_object()
                       : error_json(*status, results[0].detail, options->request_id);
    json_object_set_new(root, "model", json_string(options->entry->name));
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, result_json(options, &results[i]));
    json_object_set_new(root, "results", list);
    return dump(root, text);
}

enum status answer_write_error(enum status error, const char *request_id, char **text)
{
    return dump(error_json(error, status_detail(error), request_id), text);
}
