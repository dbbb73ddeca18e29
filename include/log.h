#pragma once
// Lines on standard error, as text: "2026-11-23T08:18:35.123Z info listening on ...", or as JSON
// objects. Any thread.

#include "status.h"
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

// Before the first thread; the default is LOG_INFO, LOG_TEXT.
void log_set(enum log_level level, enum log_format format);
void log_line(enum log_level level, const char *format, ...) PRINTF_LIKE(2);

#define log_error(...)   log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_DEBUG, __VA_ARGS__)

// A request that was answered. Nothing of its content, and no query: a key may be in there.
struct log_request {
    const char *id, *method, *path, *code; // code: of the error, "" for none
    int http_status, images, batch;
    size_t bytes_in, bytes_out; // of the bodies
    int64_t read_ns, decode_ns, preprocess_ns, queue_ns, infer_ns, total_ns;
};

// On LOG_INFO; on LOG_DEBUG where it came from a probe.
void log_request(const struct log_request *request);
