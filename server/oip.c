// The Open Inference Protocol, version 2, over HTTP: what it says of the server and its one model,
// and inference on the same queue as everything else.

#include "handlers.h"
#include "inflate.h"
#include "json.h"
#include "oip_response.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

// The one version that the model has.
#define VERSION "1"

// Sends the JSON, and frees it.
static enum status respond_json(struct call *call, json_t *root)
{
    char *text;
    TRY(json_print(root, JSON_COMPACT, &text));
    respond(call, "application/json", text, strlen(text));
    return STATUS_OK;
}

// Takes the segment at *path and the slash behind it.
static bool take_segment(const char **path, const char *segment)
{
    size_t length = strlen(segment);
    if (strncmp(*path, segment, length) != 0 || ((*path)[length] && (*path)[length] != '/'))
        return false;
    *path += length + ((*path)[length] == '/');
    return true;
}

static int segment_length(const char *path)
{
    size_t length = strcspn(path, "/");
    return length < 128 ? (int)length : 128;
}

// The path names a model, and perhaps a version of it: is it ours?
static enum status check_model(const struct call *call)
{
    const char *name = call->engine->model->entry->name;
    const char *path = call->request->path + strlen("/v2/models/");
    if (!take_segment(&path, name))
        return status_fail(STATUS_NOT_FOUND, "there is no model \"%.*s\", only \"%s\"",
                           segment_length(path), path, name);
    if (take_segment(&path, "versions") && !take_segment(&path, VERSION))
        return status_fail(STATUS_NOT_FOUND,
                           "there is no version \"%.*s\" of the model, only " VERSION,
                           segment_length(path), path);
    return STATUS_OK;
}

// ---- the server ---------------------------------------------------------------------------------

enum status oip_server_handle(struct call *call)
{
    return respond_json(call, json_pack("{s:s, s:s, s:[s, s, s, s]}", "name", "vitserve", "version",
                                        VITSERVE_VERSION, "extensions", "binary_tensor_data",
                                        "classification", "model_configuration", "statistics"));
}

enum status oip_live_handle(struct call *call)
{
    return respond_json(call, json_pack("{s:b}", "live", 1));
}

// What is not ready has been refused before.
enum status oip_ready_handle(struct call *call)
{
    return respond_json(call, json_pack("{s:b}", "ready", 1));
}

enum status oip_models_handle(struct call *call)
{
    return respond_json(call, json_pack("{s:[s]}", "models", call->engine->model->entry->name));
}

// ---- the model ----------------------------------------------------------------------------------

enum status oip_model_ready_handle(struct call *call)
{
    TRY(check_model(call));
    return respond_json(
        call, json_pack("{s:s, s:b}", "name", call->engine->model->entry->name, "ready", 1));
}

enum status oip_model_handle(struct call *call)
{
    TRY(check_model(call));
    const struct catalog_entry *entry = call->engine->model->entry;
    int S = entry->dims.S, K = entry->dims.K;
    return respond_json(
        call, json_pack("{s:s, s:[s], s:s, s:[{s:s, s:s, s:[i,i]}, {s:s, s:s, s:[i,i,i,i]}],"
                        " s:[{s:s, s:s, s:[i,i]}, {s:s, s:s, s:[i,i]}]}",
                        "name", entry->name, "versions", VERSION, "platform", "vitserve_vit",
                        "inputs", "name", "image", "datatype", "BYTES", "shape", -1, 1, "name",
                        "pixels", "datatype", "UINT8", "shape", -1, S, S, 3, "outputs", "name",
                        oip_tensor_name(OIP_LOGITS), "datatype", "FP32", "shape", -1, K, "name",
                        oip_tensor_name(OIP_PROBABILITIES), "datatype", "FP32", "shape", -1, K));
}

// In the words of Triton's model configuration, for the clients that want one.
enum status oip_config_handle(struct call *call)
{
    TRY(check_model(call));
    const struct engine *engine = call->engine;
    const struct catalog_entry *entry = engine->model->entry;
    int S = entry->dims.S, K = entry->dims.K, max_images = (int)engine->config->max_images;
    return respond_json(
        call, json_pack("{s:s, s:s, s:i, s:[{s:s, s:s, s:[i], s:b}, {s:s, s:s, s:[i,i,i], s:b}],"
                        " s:[{s:s, s:s, s:[i]}, {s:s, s:s, s:[i]}], s:{}}",
                        "name", entry->name, "platform", "vitserve_vit", "max_batch_size",
                        engine->max_batch < max_images ? engine->max_batch : max_images, "input",
                        "name", "image", "data_type", "TYPE_STRING", "dims", 1, "optional", 1,
                        "name", "pixels", "data_type", "TYPE_UINT8", "dims", S, S, 3, "optional", 1,
                        "output", "name", oip_tensor_name(OIP_LOGITS), "data_type", "TYPE_FP32",
                        "dims", K, "name", oip_tensor_name(OIP_PROBABILITIES), "data_type",
                        "TYPE_FP32", "dims", K, "dynamic_batching"));
}

// ---- statistics ---------------------------------------------------------------------------------

static json_t *statistic_json(struct statistic statistic)
{
    return json_pack("{s:I, s:I}", "count", (json_int_t)statistic.count, "ns",
                     (json_int_t)statistic.ns);
}

// The time that is not told apart: the logits' way back is part of compute_infer.
static struct statistic no_time(struct statistic statistic)
{
    return (struct statistic){.count = statistic.count};
}

static json_t *batches_json(const struct inference_statistics *statistics)
{
    json_t *list = json_array();
    for (int size = 1; size <= METRICS_MAX_BATCH; size++) {
        struct statistic infer = statistics->batches[size];
        if (infer.count > 0)
            json_array_append_new(list,
                                  json_pack("{s:i, s:o, s:o, s:o}", "batch_size", size,
                                            "compute_input", statistic_json(no_time(infer)),
                                            "compute_infer", statistic_json(infer),
                                            "compute_output", statistic_json(no_time(infer))));
    }
    return list;
}

static json_t *inferences_json(const struct inference_statistics *statistics)
{
    const struct statistic none = {0};
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "success",
                     statistic_json(statistics->success), "fail", statistic_json(statistics->fail),
                     "queue", statistic_json(statistics->queue), "compute_input",
                     statistic_json(statistics->compute_input), "compute_infer",
                     statistic_json(statistics->compute_infer), "compute_output",
                     statistic_json(no_time(statistics->compute_infer)), "cache_hit",
                     statistic_json(none), "cache_miss", statistic_json(none));
}

enum status oip_stats_handle(struct call *call)
{
    TRY(check_model(call));
    struct inference_statistics statistics;
    metrics_read_inferences(call->engine->metrics, &statistics);
    uint64_t images = 0, batches = 0;
    for (unsigned size = 1; size <= METRICS_MAX_BATCH; size++) {
        images += size * statistics.batches[size].count;
        batches += statistics.batches[size].count;
    }
    return respond_json(
        call, json_pack("{s:[{s:s, s:s, s:I, s:I, s:I, s:o, s:{}, s:o, s:[]}]}", "model_stats",
                        "name", call->engine->model->entry->name, "version", VERSION,
                        "last_inference", (json_int_t)statistics.last_ms, "inference_count",
                        (json_int_t)images, "execution_count", (json_int_t)batches,
                        "inference_stats", inferences_json(&statistics), "response_stats",
                        "batch_stats", batches_json(&statistics), "memory_usage"));
}

// ---- inference ----------------------------------------------------------------------------------

// The protocol knows no failure of a part: the first image that failed is the whole answer.
static enum status check_results(const struct inference *inference)
{
    for (int i = 0; i < inference->count; i++) {
        const struct result *result = &inference->results[i];
        if (result->status != STATUS_OK)
            return status_fail(result->status, "image %d: %s", i + 1, result->detail);
    }
    return STATUS_OK;
}

static void respond_tensors(struct call *call, const struct oip_body *body)
{
    bool binary = body->json_length < body->length;
    respond(call, binary ? "application/octet-stream" : "application/json", body->bytes,
            body->length);
    if (binary)
        http_add_header(call->response, "Inference-Header-Content-Length", "%zu",
                        body->json_length);
}

static enum status infer(struct call *call, const struct oip_request *request)
{
    const struct model *model = call->engine->model;
    struct inference inference;
    struct oip_body body;
    struct client client = call_client(call);
    TRY(inference_run(call->engine, &client, request->images, request->count, &call->trace,
                      &inference));
    enum status status = check_results(&inference);
    if (status == STATUS_OK)
        status = oip_response_write(&(struct oip_answer){.entry = model->entry,
                                                         .labels = model->labels,
                                                         .request = request,
                                                         .results = inference.results},
                                    &body);
    inference_release(&inference);
    TRY(status);
    respond_tensors(call, &body);
    return STATUS_OK;
}

// A request and the bytes that it points into.
struct received {
    struct inflated body;
    struct oip_request request;
};

static enum status parse(struct call *call, void *into)
{
    struct received *received = into;
    const struct http_request *request = call->request;
    const struct config *config = call->engine->config;
    const struct vit_dims *dims = &call->engine->model->entry->dims;
    TRY(inflate_body(http_header(request, "Content-Encoding"), request->body, request->body_length,
                     (size_t)config->max_body_bytes, request->budget, &received->body));
    const struct oip_source source = {.json_length =
                                          http_header(request, "Inference-Header-Content-Length"),
                                      .bytes = received->body.bytes,
                                      .length = received->body.length,
                                      .S = dims->S,
                                      .K = dims->K,
                                      .max_images = (int)config->max_images,
                                      .budget = request->budget};
    enum status status = oip_request_parse(&source, &received->request);
    if (status != STATUS_OK)
        inflate_release(&received->body);
    return status;
}

enum status oip_infer_handle(struct call *call)
{
    struct received received;
    TRY(check_model(call));
    TRY(call_parse(call, true, parse, &received));
    enum status status = infer(call, &received.request);
    oip_request_release(&received.request);
    inflate_release(&received.body);
    return status;
}
