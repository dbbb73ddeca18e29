#pragma once
// What the server answers: the route table and the handlers behind it.

#include "auth.h"
#include "config.h"
#include "http.h"
#include "metrics.h"
#include "model.h"
#include "queue.h"

struct api;

// What it is given outlives the api; auth is NULL where everybody may ask, the load is that of the
// server for clients. Until api_set_ready() every request that needs the model is answered
// STATUS_STARTING.
enum status api_create(const struct config *config, struct metrics *metrics, struct auth *auth,
                       const struct http_load *load, struct api **api) CHECKED;
void api_free(struct api *api);

// The model and its queue are ready, and outlive the api, as does the context. well: whether the
// workers make progress; asked by every probe.
void api_set_ready(struct api *api, const struct model *model, struct queue *queue, int max_batch,
                   bool (*well)(void *context), void *context);

// From now on /readyz answers 503 with this status: STATUS_DRAINING or STATUS_DEVICE_FAILED.
// Requests are still taken as long as the queue takes them.
void api_set_unready(struct api *api, enum status reason);

// An http_admit and an http_handler; the context is the api.
enum status api_admit(void *api, const struct http_request *request);
enum status api_handle(void *api, const struct http_request *request,
                       struct http_response *response);

// An http_handler for the listener of --admin-port: the health checks and the metrics alone.
enum status api_handle_admin(void *api, const struct http_request *request,
                             struct http_response *response);
