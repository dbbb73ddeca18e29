// What stands around every answer: the object of an error, the headers that say more, the metrics
// and the line in the log.

#include "clock.h"
#include "handlers.h"
#include "log.h"
#include <string.h>

// What a client whose request failed should do: bring a key, pack otherwise, come back later.
static void add_advice(struct call *call, enum status status)
{
    int http = status_http(status);
    bool busy = http == 429 && call->readiness != STATUS_STARTING;
    if (http == 401)
        http_add_header(call->response, "WWW-Authenticate", "Bearer");
    if (status == STATUS_UNSUPPORTED_MEDIA)
        http_add_header(call->response, "Accept-Encoding", "gzip, deflate");
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
    if (strcmp(origin, "*") != 0)
        http_add_header(call->response, "Vary", "Origin");
    http_add_header(call->response, "Access-Control-Expose-Headers",
                    "X-Request-Id, Retry-After, Server-Timing, Inference-Header-Content-Length");
    if (strcmp(call->request->method, "OPTIONS") != 0)
        return;
    http_add_header(call->response, "Access-Control-Allow-Methods", "GET, HEAD, POST, PUT");
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

static bool write_error(struct call *call, enum status status)
{
    char *text;
    if (answer_write_error(status, call->request->id, &text) != STATUS_OK)
        return false;
    respond(call, "application/json", text, strlen(text));
    return true;
}

void reply_finish(struct call *call, enum status status)
{
    if (status != STATUS_OK && !call->response->body)
        (void)(write_error(call, status) || write_error(call, status)); // memory may be back
    add_advice(call, status);
    add_server_timing(call);
    add_cors(call);
    record(call, status);
}
