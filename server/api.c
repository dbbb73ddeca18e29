#include "api.h"
#include "body.h"
#include "report.h"
#include "result.h"
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct api {
    const struct config *config;
    sem_t decoders;       // images that may be decoded at the same time
    atomic_int readiness; // an enum status; what follows is set before it leaves STATUS_STARTING
    const struct model *model;
    struct queue *queue;
    int max_batch;
};

enum status api_create(const struct config *config, struct api **out)
{
    struct api *api = calloc(1, sizeof *api);
    if (!api)
        return status_fail(STATUS_OUT_OF_MEMORY, "api: out of memory");
    api->config = config;
    atomic_init(&api->readiness, STATUS_STARTING);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    sem_init(&api->decoders, 0,
             config->decode_threads > 0 ? (unsigned)config->decode_threads : (unsigned)cores);
    *out = api;
    return STATUS_OK;
}

void api_free(struct api *api)
{
    if (!api)
        return;
    sem_destroy(&api->decoders);
    free(api);
}

void api_set_ready(struct api *api, const struct model *model, struct queue *queue, int max_batch)
{
    api->model = model;
    api->queue = queue;
    api->max_batch = max_batch;
    atomic_store(&api->readiness, STATUS_OK);
}

void api_set_unready(struct api *api, enum status reason)
{
    atomic_store(&api->readiness, (int)reason);
}

static enum status set_text(struct http_response *response, const char *content_type, char *text)
{
    response->content_type = content_type;
    response->body = text;
    response->length = strlen(text);
    return STATUS_OK;
}

static enum status need_model(const struct api *api)
{
    if (atomic_load(&api->readiness) == STATUS_STARTING)
        return status_fail(STATUS_STARTING, "the model is still loading");
    return STATUS_OK;
}

// ---- /classify ----------------------------------------------------------------------------------

// One request in work; the arrays have one entry per image.
struct classification {
    struct body body;
    struct result *results;
    struct job **jobs;
    int top_k;
    bool logits;
};

// A query parameter, or the form field of the same name.
static const char *parameter(const struct http_request *request, const char *name,
                             const char *form_field)
{
    const char *value = http_query(request, name);
    return value ? value : *form_field ? form_field : NULL;
}

static enum status read_parameters(const struct api *api, const struct http_request *request,
                                   struct classification *c)
{
    int classes = api->model->entry->dims.K;
    c->top_k = api->config->top_k < classes ? (int)api->config->top_k : classes;
    const char *top_k = parameter(request, "top_k", c->body.top_k);
    if (top_k) {
        char *end;
        errno = 0;
        long value = strtol(top_k, &end, 10);
        if (end == top_k || *end || errno || value < 1 || value > classes)
            return status_fail(STATUS_BAD_TOP_K,
                               "top_k: \"%.32s\" is not a whole number from 1 "
                               "to %d",
                               top_k, classes);
        c->top_k = (int)value;
    }
    const char *logits = parameter(request, "logits", c->body.logits);
    if (logits && strcmp(logits, "0") != 0 && strcmp(logits, "1") != 0)
        return status_fail(STATUS_BAD_REQUEST, "logits: \"%.32s\" is neither 0 nor 1", logits);
    c->logits = logits && *logits == '1';
    return STATUS_OK;
}

static void decode_image(struct api *api, const struct upload *image, struct job *job,
                         struct result *result)
{
    struct image_limits limits = {.max_pixels = api->config->max_pixels,
                                  .apply_orientation = api->config->exif_orientation != 0,
                                  .fast_decode = api->config->fast_decode != 0};
    while (sem_wait(&api->decoders) != 0)
        ;
    enum status status = result_prepare(result, image->bytes, image->length, &limits,
                                        &api->model->entry->preprocess, job->pixels);
    sem_post(&api->decoders);
    if (status == STATUS_OK)
        queue_submit(job);
}

// Decodes each image into its slot, and submits it while the next one is decoded.
static void run_jobs(struct api *api, struct classification *c, struct ticket *ticket)
{
    for (int i = 0; i < c->body.count; i++) {
        snprintf(c->results[i].name, sizeof c->results[i].name, "%s", c->body.images[i].name);
        decode_image(api, &c->body.images[i], c->jobs[i], &c->results[i]);
    }
    ticket_wait(ticket);
    for (int i = 0; i < c->body.count; i++) {
        struct result *result = &c->results[i];
        if (result->status != STATUS_OK)
            continue;
        if (c->jobs[i]->status == STATUS_OK)
            result->logits = c->jobs[i]->logits;
        else
            result_fail(result, c->jobs[i]->status);
    }
}

static enum status classify_images(struct api *api, const struct http_request *request,
                                   struct classification *c, struct http_response *response)
{
    struct ticket ticket;
    enum status status, written;
    char *text = NULL;
    TRY(read_parameters(api, request, c));
    c->results = calloc((size_t)c->body.count, sizeof *c->results);
    c->jobs = calloc((size_t)c->body.count, sizeof *c->jobs);
    if (!c->results || !c->jobs)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    TRY(queue_reserve(api->queue, c->body.count, c->jobs, &ticket));
    run_jobs(api, c, &ticket);
    written = answer_write(&(struct answer_options){.entry = api->model->entry,
                                                    .labels = api->model->labels,
                                                    .top_k = c->top_k,
                                                    .logits = c->logits,
                                                    .request_id = request->id},
                           c->results, c->body.count, &status, &text);
    ticket_release(&ticket);
    TRY(written);
    set_text(response, "application/json", text);
    return status;
}

static enum status handle_classify(struct api *api, const struct http_request *request,
                                   struct http_response *response)
{
    struct classification c = {0};
    TRY(need_model(api));
    struct body_source source = {.content_type = http_header(request, "Content-Type"),
                                 .content_encoding = http_header(request, "Content-Encoding"),
                                 .bytes = request->body,
                                 .length = request->body_length,
                                 .max_images = (int)api->config->max_images,
                                 .max_bytes = (size_t)api->config->max_body_bytes};
    TRY(body_parse(&source, &c.body));
    enum status status = classify_images(api, request, &c, response);
    free(c.jobs);
    free(c.results);
    body_release(&c.body);
    return status;
}

// ---- the other paths ----------------------------------------------------------------------------

static enum status handle_model(struct api *api, const struct http_request *request,
                                struct http_response *response)
{
    TRY(need_model(api));
    const char *format = http_query(request, "format"), *accept = http_header(request, "Accept");
    bool markdown = format ? strcmp(format, "markdown") == 0
                           : accept && strstr(accept, "text/markdown") != NULL;
    if (format && !markdown && strcmp(format, "json") != 0)
        return status_fail(STATUS_BAD_REQUEST, "format: \"%.32s\" is neither json nor markdown",
                           format);
    const struct model *model = api->model;
    struct report_runtime runtime = {.device = model->replicas[0].backend->name,
                                     .device_name = model->replicas[0].backend->device_name,
                                     .precision =
                                         precision_name(model->replicas[0].backend->precision),
                                     .weights_source = model->weights_source,
                                     .version = VITSERVE_VERSION,
                                     .weights_bytes = model->replicas[0].weights.bytes,
                                     .max_batch = api->max_batch};
    char *text;
    TRY(report_write(model->entry, &runtime, markdown ? REPORT_MARKDOWN : REPORT_JSON, &text));
    return set_text(response, markdown ? "text/markdown; charset=utf-8" : "application/json", text);
}

static enum status answer_ok(struct http_response *response)
{
    char *text = strdup("{\"status\":\"ok\"}");
    return text ? set_text(response, "application/json", text)
                : status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
}

static enum status handle_healthz(struct api *api, const struct http_request *request,
                                  struct http_response *response)
{
    (void)api, (void)request;
    return answer_ok(response);
}

static enum status handle_readyz(struct api *api, const struct http_request *request,
                                 struct http_response *response)
{
    (void)request;
    enum status readiness = (enum status)atomic_load(&api->readiness);
    if (readiness != STATUS_OK)
        return status_fail(readiness, "not ready: %s", status_code(readiness));
    return answer_ok(response);
}

static const struct route {
    const char *path, *method;
    enum status (*handle)(struct api *api, const struct http_request *request,
                          struct http_response *response);
} routes[] = {
    {"/classify", "POST", handle_classify},
    {"/model", "GET", handle_model},
    {"/healthz", "GET", handle_healthz},
    {"/readyz", "GET", handle_readyz},
};

// HEAD is a GET whose body the front end leaves out.
static bool takes_method(const struct route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static enum status dispatch(struct api *api, const struct http_request *request,
                            struct http_response *response)
{
    if (request->refused != STATUS_OK)
        return request->refused;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(routes[i].path, request->path) != 0)
            continue;
        if (takes_method(&routes[i], request->method))
            return routes[i].handle(api, request, response);
        bool get = strcmp(routes[i].method, "GET") == 0;
        http_add_header(response, "Allow", "%s", get ? "GET, HEAD" : routes[i].method);
        return status_fail(STATUS_METHOD_NOT_ALLOWED, "%s takes %s", routes[i].path,
                           get ? "GET and HEAD" : routes[i].method);
    }
    return status_fail(STATUS_NOT_FOUND, "there is nothing at \"%.128s\"", request->path);
}

enum status api_handle(void *context, const struct http_request *request,
                       struct http_response *response)
{
    struct api *api = context;
    enum status status = dispatch(api, request, response);
    if (status == STATUS_OK)
        return status;
    int http = status_http(status);
    if (http == 429 || http == 503) {
        bool busy = http == 429 && atomic_load(&api->readiness) != STATUS_STARTING;
        http_add_header(response, "Retry-After", "%d", busy ? queue_retry_after(api->queue) : 1);
    }
    char *text;
    if (!response->body && answer_write_error(status, request->id, &text) == STATUS_OK)
        set_text(response, "application/json", text);
    return status;
}
