#pragma once
// Everything that can go wrong, in one table: each row is a status, the HTTP status that answers
// it, the code that scripts match on and a sentence for people. A function that can fail returns
// enum status; the place that detects the failure adds the detail with status_fail(), everybody
// above passes the status on unchanged, and it is logged once, where it stops.
//
// The detail lives in the calling thread: read it before the next failure of that thread.

#define STATUS_TABLE(X)                                                                            \
    X(OK, 200, "ok", "ok")                                                                         \
    X(BAD_REQUEST, 400, "bad_request", "the request is malformed")                                 \
    X(NO_IMAGE, 400, "no_image", "the request holds no image")                                     \
    X(BAD_IMAGE, 400, "bad_image", "the image cannot be decoded")                                  \
    X(BAD_TOP_K, 400, "bad_top_k", "top_k is not a number in range")                               \
    X(UNAUTHORIZED, 401, "unauthorized", "a valid key is needed")                                  \
    X(NOT_FOUND, 404, "not_found", "no such path")                                                 \
    X(METHOD_NOT_ALLOWED, 405, "method_not_allowed", "this path does not take this method")        \
    X(BODY_TIMEOUT, 408, "body_timeout", "the body did not arrive in time")                        \
    X(BODY_TOO_LARGE, 413, "body_too_large", "the body is over the limit")                         \
    X(IMAGE_TOO_LARGE, 413, "image_too_large", "the image has more pixels than the limit")         \
    X(TOO_MANY_IMAGES, 413, "too_many_images", "the request holds more images than the limit")     \
    X(UNSUPPORTED_IMAGE, 415, "unsupported_image", "this is not an image format we support")       \
    X(MISDIRECTED, 421, "misdirected_request", "this server does not answer for that host")        \
    X(UNSUPPORTED_MEDIA, 415, "unsupported_media_type", "this kind of body is not supported")      \
    X(CANCELLED, 499, "cancelled", "the client has gone")                                          \
    X(QUEUE_FULL, 429, "queue_full", "the queue of this replica is full")                          \
    X(INTERNAL, 500, "internal", "an internal error")                                              \
    X(STARTING, 503, "starting", "the model is still loading")                                     \
    X(DRAINING, 503, "draining", "the server is shutting down")                                    \
    X(DEVICE_FAILED, 503, "device_failed", "the device failed")                                    \
    X(OUT_OF_MEMORY, 503, "out_of_memory", "out of memory")                                        \
    X(DEADLINE, 504, "deadline", "the request ran out of time in the queue")                       \
    X(USAGE, 400, "usage", "wrong usage")                                                          \
    X(IO, 500, "io", "a file cannot be read or written")                                           \
    X(BAD_WEIGHTS, 500, "bad_weights", "the weights do not fit the model")                         \
    X(UNSUPPORTED_DEVICE, 500, "unsupported_device", "the device cannot do this")

enum status {
#define X(name, http, code, text) STATUS_##name,
    STATUS_TABLE(X)
#undef X
};

#define CHECKED                   __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index) __attribute__((format(printf, format_index, format_index + 1)))

int status_http(enum status status);
const char *status_code(enum status status);

// Records the detail ("jpeg: premature end of file") for this thread and returns status.
enum status status_fail(enum status status, const char *format, ...) PRINTF_LIKE(2);

// The detail of this thread's last failure; the table's sentence if that failure was another one.
const char *status_detail(enum status status);

// Returns status if it is a failure, from the function that holds the call.
#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (call);                                                          \
        if (try_status_ != STATUS_OK)                                                              \
            return try_status_;                                                                    \
    } while (0)
