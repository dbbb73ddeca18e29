#pragma once
// The handlers behind the routes of api.c, by the file that holds them.

#include "http.h"
#include "inference.h"

// A request as its handler sees it.
struct call {
    struct engine *engine; // model and queue are set unless `readiness` is STATUS_STARTING
    enum status readiness; // STATUS_OK, _STARTING, _DRAINING, _DEVICE_FAILED
    bool well;             // the workers make progress
    bool admin;            // it came in at --admin-port
    const struct http_load *load;
    const struct http_request *request;
    struct http_response *response;
    struct trace trace;
};

// The status they return becomes the HTTP status. Where that is a failure and no body is set, api.c
// writes the error.
enum status classify_handle(struct call *call) CHECKED;   // api_classify.c
enum status preprocess_handle(struct call *call) CHECKED; // api_classify.c

// Who waits for the images of this call.
struct client call_client(const struct call *call);

// Calls parse(call, into), in a turn (turn.h) where the body may take as long as an image: it is
// compressed, or a large JSON.
enum status call_parse(struct call *call, bool json, enum status (*parse)(struct call *, void *),
                       void *into) CHECKED;

// Makes the answer complete, whatever the handler has done: reply.c.
void reply_finish(struct call *call, enum status status);

// The Open Inference Protocol: oip.c.
enum status oip_server_handle(struct call *call) CHECKED;
enum status oip_live_handle(struct call *call) CHECKED;
enum status oip_ready_handle(struct call *call) CHECKED;
enum status oip_models_handle(struct call *call) CHECKED;
enum status oip_model_handle(struct call *call) CHECKED;
enum status oip_model_ready_handle(struct call *call) CHECKED;
enum status oip_config_handle(struct call *call) CHECKED;
enum status oip_stats_handle(struct call *call) CHECKED;
enum status oip_infer_handle(struct call *call) CHECKED;

// Sets the body; `text` is malloc'ed, and the response's from now on.
void respond(struct call *call, const char *content_type, char *text, size_t length);
