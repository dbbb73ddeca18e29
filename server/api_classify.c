// POST /classify and POST /preprocess: the same bodies; one answers with what the model says, the
// other with what it sees.

#include "accept.h"
#include "handlers.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// A query parameter, or the form field of the same name.
static const char *parameter(const struct http_request *request, const char *name,
                             const char *form_field)
{
    const char *value = http_query(request, name);
    return value ? value : *form_field ? form_field : NULL;
}

static enum status read_top_k(const struct engine *engine, const char *text, int *top_k)
{
    int classes = engine->model->entry->dims.K;
    *top_k = engine->config->top_k < classes ? (int)engine->config->top_k : classes;
    if (!text)
        return STATUS_OK;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < 1 || value > classes)
        return status_fail(STATUS_BAD_TOP_K, "top_k: \"%.32s\" is not a whole number from 1 to %d",
                           text, classes);
    *top_k = (int)value;
    return STATUS_OK;
}

static enum status read_logits(const char *text, bool *logits)
{
    if (text && strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
        return status_fail(STATUS_BAD_REQUEST, "logits: \"%.32s\" is neither 0 nor 1", text);
    *logits = text && *text == '1';
    return STATUS_OK;
}

static enum status read_options(const struct call *call, const struct body *body,
                                struct answer_options *options)
{
    const struct engine *engine = call->engine;
    const struct http_request *request = call->request;
    *options = (struct answer_options){
        .entry = engine->model->entry, .labels = engine->model->labels, .request_id = request->id};
    TRY(read_top_k(engine, parameter(request, "top_k", body->top_k), &options->top_k));
    return read_logits(parameter(request, "logits", body->logits), &options->logits);
}

static enum status parse_body(struct call *call, void *body)
{
    const struct http_request *request = call->request;
    const struct config *config = call->engine->config;
    return body_parse(
        &(struct body_source){.content_type = http_header(request, "Content-Type"),
                              .content_encoding = http_header(request, "Content-Encoding"),
                              .bytes = request->body,
                              .length = request->body_length,
                              .max_images = (int)config->max_images,
                              .max_bytes = (size_t)config->max_body_bytes,
                              .budget = request->budget},
        body);
}

static enum status classify(struct call *call, const struct body *body)
{
    struct answer_options options;
    struct inference inference;
    enum status status;
    char *text;
    enum status read = read_options(call, body, &options);
    if (read != STATUS_OK) {
        call->trace.images[OUTCOME_REJECTED] += body->count;
        return read;
    }
    struct client client = call_client(call);
    TRY(inference_run(call->engine, &client, body->images, body->count, &call->trace, &inference));
    enum status written =
        answer_write(&options, inference.results, inference.count, &status, &text);
    inference_release(&inference);
    TRY(written);
    respond(call, "application/json", text, strlen(text));
    return status;
}

// A form or a picture needs no more than a look at its bytes, unless they are compressed.
static enum status read_body(struct call *call, struct body *body)
{
    return call_parse(call, body_is_json(http_header(call->request, "Content-Type")), parse_body,
                      body);
}

enum status classify_handle(struct call *call)
{
    struct body body;
    TRY(read_body(call, &body));
    enum status status = classify(call, &body);
    body_release(&body);
    return status;
}

// ---- /preprocess --------------------------------------------------------------------------------

static enum status respond_pixels(struct call *call, const uint8_t *pixels, int side)
{
    const char *accept = http_header(call->request, "Accept");
    bool raw =
        accept_weight(accept, "application/octet-stream") > accept_weight(accept, "image/png");
    size_t length = (size_t)side * (size_t)side * 3;
    uint8_t *bytes;
    if (!raw) {
        TRY(png_write(pixels, side, side, &bytes, &length));
    } else {
        bytes = malloc(length);
        if (!bytes)
            return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
        memcpy(bytes, pixels, length);
    }
    respond(call, raw ? "application/octet-stream" : "image/png", (char *)bytes, length);
    return STATUS_OK;
}

static enum status preprocess(struct call *call, const struct body *body)
{
    int side = call->engine->model->entry->dims.S;
    struct result result = {0};
    if (body->count != 1) {
        call->trace.images[OUTCOME_REJECTED] += body->count;
        return status_fail(STATUS_BAD_REQUEST, "one image at a time, not %d", body->count);
    }
    uint8_t *pixels = malloc((size_t)side * (size_t)side * 3);
    enum status status = STATUS_OUT_OF_MEMORY;
    struct client client = call_client(call);
    if (pixels)
        status = inference_prepare(call->engine, &client, &body->images[0], &call->trace, &result,
                                   pixels);
    call->trace.images[inference_outcome(status)]++;
    if (status == STATUS_OK)
        status = respond_pixels(call, pixels, side);
    free(pixels);
    return status;
}

enum status preprocess_handle(struct call *call)
{
    struct body body;
    TRY(read_body(call, &body));
    enum status status = preprocess(call, &body);
    body_release(&body);
    return status;
}
