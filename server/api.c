#include "api.h"
#include "clock.h"
#include "handlers.h"
#include "log.h"
#include "pages.h"
#include "report.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct api {
    struct engine engine;
    const struct http_load *load;
    bool (*well)(void *context);
    void *context;
    atomic_int readiness; // an enum status; the engine is complete before it leaves STATUS_STARTING
};

enum status api_create(const struct config *config, struct metrics *metrics,
                       const struct http_load *load, struct api **out)
{
    struct api *api = calloc(1, sizeof *api);
    if (!api)
        return status_fail(STATUS_OUT_OF_MEMORY, "api: out of memory");
    api->engine = (struct engine){.config = config, .metrics = metrics};
    api->load = load;
    atomic_init(&api->readiness, STATUS_STARTING);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    sem_init(&api->engine.decoders, 0,
             config->decode_threads > 0 ? (unsigned)config->decode_threads : (unsigned)cores);
    *out = api;
    return STATUS_OK;
}

void api_free(struct api *api)
{
    if (!api)
        return;
    sem_destroy(&api->engine.decoders);
    free(api);
}

void api_set_ready(struct api *api, const struct model *model, struct queue *queue, int max_batch,
                   bool (*well)(void *context), void *context)
{
    api->well = well;
    api->context = context;
    api->engine.model = model;
    api->engine.queue = queue;
    api->engine.max_batch = max_batch;
    atomic_store(&api->readiness, STATUS_OK);
}

void api_set_unready(struct api *api, enum status reason)
{
    atomic_store(&api->readiness, (int)reason);
}

void respond(struct call *call, const char *content_type, char *text, size_t length)
{
    call->response->content_type = content_type;
    call->response->body = text;
    call->response->length = length;
}

struct client call_client(const struct call *call)
{
    return (struct client){.deadline_ns = call->request->deadline_ns,
                           .gone = http_client_gone,
                           .context = call->request->connection};
}

// ---- the small handlers -------------------------------------------------------------------------

static enum status model_handle(struct call *call)
{
    const struct model *model = call->engine->model;
    const struct backend *backend = model->replicas[0].backend;
    struct report_runtime runtime = {.device = backend->name,
                                     .device_name = backend->device_name,
                                     .precision = precision_name(backend->precision),
                                     .weights_source = model->weights_source,
                                     .version = VITSERVE_VERSION,
                                     .weights_bytes = model->replicas[0].weights.bytes,
                                     .max_batch = call->engine->max_batch};
    enum report_format format;
    char *text;
    TRY(report_format_from(http_query(call->request, "format"),
                           http_header(call->request, "Accept"), &format));
    TRY(report_write(model->entry, &runtime, format, &text));
    respond(call, report_content_type(format), text, strlen(text));
    return STATUS_OK;
}

static enum status respond_ok(struct call *call)
{
    char *text = strdup("{\"status\":\"ok\"}");
    if (!text)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    respond(call, "application/json", text, strlen(text));
    return STATUS_OK;
}

static enum status healthz_handle(struct call *call)
{
    if (!call->well)
        return status_fail(STATUS_DEVICE_FAILED, "the device does not finish what it was given");
    return respond_ok(call);
}

// What is not ready has been refused before.
static enum status readyz_handle(struct call *call)
{
    return respond_ok(call);
}

static enum status metrics_handle(struct call *call)
{
    const struct engine *engine = call->engine;
    struct gauges gauges = {.inflight_requests = atomic_load(&call->load->requests) - !call->admin,
                            .inflight_bytes = (int64_t)atomic_load(&call->load->bytes.used),
                            .ready = call->readiness == STATUS_OK,
                            .version = VITSERVE_VERSION,
                            .device = "",
                            .precision = "",
                            .model = engine->config->model};
    if (call->readiness != STATUS_STARTING) {
        const struct backend *backend = engine->model->replicas[0].backend;
        gauges.queue_images = queue_length(engine->queue);
        gauges.device = backend->name;
        gauges.precision = precision_name(backend->precision);
        gauges.device_memory_bytes = (int64_t)engine->model->replicas[0].weights.bytes;
    }
    char *text;
    TRY(metrics_write(engine->metrics, &gauges, &text));
    respond(call, "text/plain; version=0.0.4; charset=utf-8", text, strlen(text));
    return STATUS_OK;
}

// One of the page's files. Nothing in it is inline, and it asks nobody but us.
static enum status page_handle(struct call *call)
{
    const struct page *page = page_find(call->request->path);
    size_t length = (size_t)(page->end - page->bytes);
    char *body = malloc(length);
    if (!body)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    memcpy(body, page->bytes, length);
    respond(call, page->content_type, body, length);
    http_add_header(call->response, "Content-Security-Policy", "%s",
                    "default-src 'none'; script-src 'self'; style-src 'self'; "
                    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
                    "form-action 'none'; frame-ancestors 'none'");
    http_add_header(call->response, "X-Content-Type-Options", "nosniff");
    http_add_header(call->response, "Referrer-Policy", "no-referrer");
    http_add_header(call->response, "Cache-Control", "no-cache");
    http_add_header(call->response, "ETag", "%s", page->etag);
    return STATUS_OK;
}

// ---- routes -------------------------------------------------------------------------------------

enum need {
    NEEDS_NOTHING,
    NEEDS_MODEL, // loaded
    NEEDS_READY, // and neither draining nor failed
};

static const struct route {
    const char *path, *method;
    enum need need;
    bool admin; // also at --admin-port
    enum status (*handle)(struct call *call);
} routes[] = {
    {"/classify", "POST", NEEDS_MODEL, false, classify_handle},
    {"/model", "GET", NEEDS_MODEL, false, model_handle},
    {"/healthz", "GET", NEEDS_NOTHING, true, healthz_handle},
    {"/readyz", "GET", NEEDS_READY, true, readyz_handle},
    {"/metrics", "GET", NEEDS_NOTHING, true, metrics_handle},
    {"/", "GET", NEEDS_NOTHING, false, page_handle},
    {"/style.css", "GET", NEEDS_NOTHING, false, page_handle},
    {"/app.js", "GET", NEEDS_NOTHING, false, page_handle},
    {"/favicon.svg", "GET", NEEDS_NOTHING, false, page_handle},
    {"/openapi.json", "GET", NEEDS_NOTHING, false, page_handle},
};

static const struct route *find_route(const char *path, bool admin)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (strcmp(routes[i].path, path) == 0 && (routes[i].admin || !admin))
            return &routes[i];
    return NULL;
}

// HEAD is a GET whose body the front end leaves out.
static bool takes_method(const struct route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static enum status check_need(enum need need, enum status readiness)
{
    if (need != NEEDS_NOTHING && readiness == STATUS_STARTING)
        return status_fail(STATUS_STARTING, "the model is still loading");
    if (need == NEEDS_READY && readiness != STATUS_OK)
        return status_fail(readiness, "not ready: %s", status_code(readiness));
    return STATUS_OK;
}

static enum status dispatch(struct call *call)
{
    const struct http_request *request = call->request;
    const struct route *route = find_route(request->path, call->admin);
    call->trace.route = route ? route->path : "other";
    if (request->refused != STATUS_OK)
        return request->refused;
    if (!route)
        return status_fail(STATUS_NOT_FOUND, "there is nothing at \"%.128s\"", request->path);
    bool get = strcmp(route->method, "GET") == 0, options = strcmp(request->method, "OPTIONS") == 0;
    if (options || !takes_method(route, request->method))
        http_add_header(call->response, "Allow", "%s",
                        get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
    if (options)
        return STATUS_OK;
    if (!takes_method(route, request->method))
        return status_fail(STATUS_METHOD_NOT_ALLOWED, "%s takes %s", route->path,
                           get ? "GET and HEAD" : "POST");
    TRY(check_need(route->need, call->readiness));
    return route->handle(call);
}

enum status api_admit(void *context, const struct http_request *request)
{
    (void)context, (void)request;
    return STATUS_OK;
}

// ---- around every answer ------------------------------------------------------------------------

static void add_retry_after(struct call *call, int http)
{
    bool busy = http == 429 && call->readiness != STATUS_STARTING;
    if (http == 429 || http == 503)
        http_add_header(call->response, "Retry-After", "%d",
                        busy ? queue_retry_after(call->engine->queue) : 1);
}

static double milliseconds(int64_t ns)
{
    return (double)ns * 1e-6;
}

// What came of images tells its times, in ms.
static void add_server_timing(struct call *call)
{
    const struct trace *trace = &call->trace;
    int64_t arrived = call->request->arrived_ns;
    if (trace->batch > 0)
        http_add_header(call->response, "Server-Timing",
                        "read;dur=%.3f, decode;dur=%.3f, preprocess;dur=%.3f, queue;dur=%.3f, "
                        "infer;dur=%.3f, total;dur=%.3f, batch;desc=\"%d\"",
                        milliseconds(trace->complete_ns - arrived), milliseconds(trace->decode_ns),
                        milliseconds(trace->preprocess_ns), milliseconds(trace->queue_ns),
                        milliseconds(trace->infer_ns), milliseconds(clock_ns() - arrived),
                        trace->batch);
}

static void add_cors(struct call *call)
{
    const char *origin = call->engine->config->cors_origin;
    if (!*origin)
        return;
    http_add_header(call->response, "Access-Control-Allow-Origin", "%s", origin);
    http_add_header(call->response, "Access-Control-Expose-Headers",
                    "X-Request-Id, Retry-After, Server-Timing, Inference-Header-Content-Length");
    if (strcmp(call->request->method, "OPTIONS") != 0)
        return;
    http_add_header(call->response, "Access-Control-Allow-Methods", "GET, HEAD, POST");
    http_add_header(call->response, "Access-Control-Allow-Headers",
                    "Authorization, Content-Type, Content-Encoding, X-Request-Id, "
                    "Inference-Header-Content-Length");
    http_add_header(call->response, "Access-Control-Max-Age", "86400");
}

static void record(const struct call *call, enum status status)
{
    const struct trace *trace = &call->trace;
    const struct http_request *request = call->request;
    int64_t total_ns = clock_ns() - request->arrived_ns;
    int images = 0;
    for (int i = 0; i < OUTCOMES; i++) {
        metrics_count_images(call->engine->metrics, (enum outcome)i, trace->images[i]);
        images += trace->images[i];
    }
    metrics_count_request(call->engine->metrics, trace->route, status_http(status), total_ns);
    log_request(&(struct log_request){.id = request->id,
                                      .method = request->method,
                                      .path = request->path,
                                      .code = status == STATUS_OK ? "" : status_code(status),
                                      .http_status = status_http(status),
                                      .bytes_in = request->body_length,
                                      .bytes_out = call->response->length,
                                      .images = images,
                                      .batch = trace->batch,
                                      .read_ns = trace->complete_ns - request->arrived_ns,
                                      .decode_ns = trace->decode_ns,
                                      .preprocess_ns = trace->preprocess_ns,
                                      .queue_ns = trace->queue_ns,
                                      .infer_ns = trace->infer_ns,
                                      .total_ns = total_ns});
}

static enum status handle(struct api *api, bool admin, const struct http_request *request,
                          struct http_response *response)
{
    enum status readiness = (enum status)atomic_load(&api->readiness);
    bool well = readiness == STATUS_STARTING || api->well(api->context);
    if (readiness == STATUS_OK && !well)
        readiness = STATUS_DEVICE_FAILED;
    struct call call = {.engine = &api->engine,
                        .readiness = readiness,
                        .well = well,
                        .admin = admin,
                        .load = api->load,
                        .request = request,
                        .response = response,
                        .trace = {.complete_ns = clock_ns()}};
    enum status status = dispatch(&call);
    char *text;
    if (status != STATUS_OK && !response->body &&
        answer_write_error(status, request->id, &text) == STATUS_OK)
        respond(&call, "application/json", text, strlen(text));
    add_retry_after(&call, status_http(status));
    add_server_timing(&call);
    add_cors(&call);
    record(&call, status);
    return status;
}

enum status api_handle(void *api, const struct http_request *request,
                       struct http_response *response)
{
    return handle(api, false, request, response);
}

enum status api_handle_admin(void *api, const struct http_request *request,
                             struct http_response *response)
{
    return handle(api, true, request, response);
}
