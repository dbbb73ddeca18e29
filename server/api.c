#include "api.h"
#include "clock.h"
#include "handlers.h"
#include "pages.h"
#include "report.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct api {
    struct engine engine;
    struct auth *auth; // NULL: everybody may ask
    const struct http_load *load;
    bool (*well)(void *context);
    void *context;
    atomic_int readiness; // an enum status; the engine is complete before it leaves STATUS_STARTING
};

// "https://example.org:8443" as browsers write it, or "*": anything else would match no page's.
static bool is_origin(const char *text)
{
    const char *host = strstr(text, "://");
    return strcmp(text, "*") == 0 || (host && host[3] && !strpbrk(host + 3, "/?#@, \t\r\n"));
}

enum status api_create(const struct config *config, struct metrics *metrics, struct auth *auth,
                       const struct http_load *load, struct api **out)
{
    if (*config->cors_origin && !is_origin(config->cors_origin))
        return status_fail(STATUS_USAGE,
                           "--cors-origin: \"%s\" is neither scheme://host[:port] nor *",
                           config->cors_origin);
    struct api *api = calloc(1, sizeof *api);
    if (!api)
        return status_fail(STATUS_OUT_OF_MEMORY, "api: out of memory");
    api->engine = (struct engine){.config = config, .metrics = metrics};
    api->load = load;
    api->auth = auth;
    atomic_init(&api->readiness, STATUS_STARTING);
    enum status status = decoders_create((int)config->decode_threads, config->max_decode_bytes,
                                         &api->engine.decoders);
    if (status != STATUS_OK) {
        free(api);
        return status;
    }
    *out = api;
    return STATUS_OK;
}

void api_free(struct api *api)
{
    if (!api)
        return;
    decoders_free(api->engine.decoders);
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

enum status call_parse(struct call *call, bool json, enum status (*parse)(struct call *, void *),
                       void *into)
{
    enum { LARGE_JSON = 1 << 20 };
    const struct http_request *request = call->request;
    if (!http_header(request, "Content-Encoding") && !(json && request->body_length > LARGE_JSON))
        return parse(call, into);
    struct decode_request work = {.client = call_client(call)};
    struct turn turn;
    TRY(turn_take(decoders_turns(call->engine->decoders), &work, &turn));
    enum status status = turn.guard.unwatched(&turn.guard);
    if (status == STATUS_OK)
        status = parse(call, into);
    turn_give(&turn);
    return status;
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

// Who is not well, or not ready, has been refused before.
static enum status ok_handle(struct call *call)
{
    char *text = strdup("{\"status\":\"ok\"}");
    if (!text)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    respond(call, "application/json", text, strlen(text));
    return STATUS_OK;
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
    const struct page *page = page_find(call->trace.route);
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

enum access {
    KEYED, // where there are keys
    OPEN,  // to everybody: what probes, scrapers and the page itself ask
};

enum need {
    NEEDS_NOTHING,
    NEEDS_WELL,  // workers that make progress, if there are any yet
    NEEDS_MODEL, // loaded
    NEEDS_READY, // and neither draining nor failed
};

static const struct route {
    const char *path, *methods; // as Allow lists them, but for OPTIONS
    enum access access;
    enum need need;
    bool admin; // also at --admin-port
    enum status (*handle)(struct call *call);
} routes[] = {
    {"/classify", "POST, PUT", KEYED, NEEDS_MODEL, false, classify_handle},
    {"/preprocess", "POST", KEYED, NEEDS_MODEL, false, preprocess_handle},
    {"/model", "GET, HEAD", KEYED, NEEDS_MODEL, false, model_handle},
    {"/healthz", "GET, HEAD", OPEN, NEEDS_WELL, true, ok_handle},
    {"/readyz", "GET, HEAD", OPEN, NEEDS_READY, true, ok_handle},
    {"/metrics", "GET, HEAD", OPEN, NEEDS_NOTHING, true, metrics_handle},
    {"/", "GET, HEAD", OPEN, NEEDS_NOTHING, false, page_handle},
    {"/style.css", "GET, HEAD", OPEN, NEEDS_NOTHING, false, page_handle},
    {"/app.js", "GET, HEAD", OPEN, NEEDS_NOTHING, false, page_handle},
    {"/favicon.svg", "GET, HEAD", OPEN, NEEDS_NOTHING, false, page_handle},
    {"/openapi.json", "GET, HEAD", KEYED, NEEDS_NOTHING, false, page_handle},
    {"/v2", "GET, HEAD", KEYED, NEEDS_NOTHING, false, oip_server_handle},
    {"/v2/health/live", "GET, HEAD", OPEN, NEEDS_WELL, false, oip_live_handle},
    {"/v2/health/ready", "GET, HEAD", OPEN, NEEDS_READY, false, oip_ready_handle},
    {"/v2/models", "GET, HEAD", KEYED, NEEDS_MODEL, false, oip_models_handle},
    {"/v2/models/{name}", "GET, HEAD", KEYED, NEEDS_MODEL, false, oip_model_handle},
    {"/v2/models/{name}/ready", "GET, HEAD", KEYED, NEEDS_READY, false, oip_model_ready_handle},
    {"/v2/models/{name}/config", "GET, HEAD", KEYED, NEEDS_MODEL, false, oip_config_handle},
    {"/v2/models/{name}/stats", "GET, HEAD", KEYED, NEEDS_MODEL, false, oip_stats_handle},
    {"/v2/models/{name}/infer", "POST", KEYED, NEEDS_MODEL, false, oip_infer_handle},
    {"/v2/models/{name}/versions/{version}", "GET, HEAD", KEYED, NEEDS_MODEL, false,
     oip_model_handle},
    {"/v2/models/{name}/versions/{version}/ready", "GET, HEAD", KEYED, NEEDS_READY, false,
     oip_model_ready_handle},
    {"/v2/models/{name}/versions/{version}/config", "GET, HEAD", KEYED, NEEDS_MODEL, false,
     oip_config_handle},
    {"/v2/models/{name}/versions/{version}/stats", "GET, HEAD", KEYED, NEEDS_MODEL, false,
     oip_stats_handle},
    {"/v2/models/{name}/versions/{version}/infer", "POST", KEYED, NEEDS_MODEL, false,
     oip_infer_handle},
};

// {name} stands for any segment that is not empty; one slash at the end is passed over.
static bool matches(const char *pattern, const char *path)
{
    const char *start = path;
    for (; *pattern && *path; pattern++, path++) {
        if (*pattern == '{' && *path != '/') {
            pattern = strchr(pattern, '}');
            path += strcspn(path, "/") - 1;
        } else if (*pattern != *path) {
            return false;
        }
    }
    bool slash = strcmp(path, "/") == 0 && path > start && path[-1] != '/';
    return !*pattern && (!*path || slash);
}

static const struct route *find_route(const char *path, bool admin)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (matches(routes[i].path, path) && (routes[i].admin || !admin))
            return &routes[i];
    return NULL;
}

// HEAD is a GET whose body the front end leaves out.
static bool takes_method(const struct route *route, const char *method)
{
    size_t length = strlen(method);
    for (const char *c = route->methods; *c; c += strspn(c, ", ")) {
        size_t word = strcspn(c, ",");
        if (word == length && strncmp(c, method, length) == 0)
            return true;
        c += word;
    }
    return false;
}

// NULL: of any route, as OPTIONS * asks.
static const char *methods_of(const struct route *route)
{
    return route ? route->methods : "GET, HEAD, POST, PUT";
}

static enum status check_need(enum need need, const struct call *call)
{
    if (need == NEEDS_WELL && !call->well)
        return status_fail(STATUS_DEVICE_FAILED, "the device does not finish what it was given");
    if (need >= NEEDS_MODEL && call->readiness == STATUS_STARTING)
        return status_fail(STATUS_STARTING, "the model is still loading");
    if (need == NEEDS_READY && call->readiness != STATUS_OK)
        return status_fail(call->readiness, "not ready: %s", status_code(call->readiness));
    return STATUS_OK;
}

static enum status dispatch(struct call *call)
{
    const struct http_request *request = call->request;
    const struct route *route = find_route(request->path, call->admin);
    call->trace.route = route ? route->path : "other";
    if (request->refused != STATUS_OK)
        return request->refused;
    bool options = strcmp(request->method, "OPTIONS") == 0;
    if (!route && !(options && strcmp(request->path, "*") == 0))
        return status_fail(STATUS_NOT_FOUND, "there is nothing at \"%.128s\"", request->path);
    if (options || !takes_method(route, request->method))
        http_add_header(call->response, "Allow", "%s, OPTIONS", methods_of(route));
    if (options)
        return STATUS_OK;
    if (!takes_method(route, request->method))
        return status_fail(STATUS_METHOD_NOT_ALLOWED, "%s takes %s, OPTIONS", route->path,
                           methods_of(route));
    TRY(check_need(route->need, call));
    return route->handle(call);
}

static bool has_body(const struct http_request *request)
{
    const char *length = http_header(request, "Content-Length");
    return http_header(request, "Transfer-Encoding") || (length && strcmp(length, "0") != 0);
}

// Nobody without a key may send a body, wherever to: it would fill the budget of those who have
// one.
enum status api_admit(void *context, const struct http_request *request)
{
    const struct api *api = context;
    const struct route *route = find_route(request->path, false);
    bool open = (route && route->access == OPEN) || strcmp(request->method, "OPTIONS") == 0;
    if (!api->auth || (open && !has_body(request)))
        return STATUS_OK;
    return auth_check(api->auth, http_header(request, "Authorization"));
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
    reply_finish(&call, status);
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
