#pragma once
// One image's way through us, whoever asked: encoded bytes -> pixels for the model, and logits ->
// the answer's JSON.

#include "catalog.h"
#include "image.h"

struct result {
    char name[256];
    int width, height; // of the picture as it is looked at; 0 if it could not be decoded
    int64_t decode_ns, preprocess_ns; // what that took; the first also where it failed
    enum status status;
    char detail[256];    // of a failure
    const float *logits; // (K), where the status is STATUS_OK
};

// Decodes `bytes` and writes the model's (S, S, 3) crop to pixels. Failures are recorded in the
// result and returned.
enum status result_prepare(struct result *result, const uint8_t *bytes, size_t length,
                           const struct image_limits *limits, const struct preprocess *recipe,
                           uint8_t *pixels) CHECKED;

// Records a failure, with this thread's detail.
void result_fail(struct result *result, enum status status);

struct answer_options {
    const struct catalog_entry *entry;
    const struct labels *labels;
    int top_k;
    bool logits;            // add every logit
    const char *request_id; // for the error object where no image was classified; may be NULL
};

// {"model": ..., "results": [...]}, malloc'ed and zero-terminated. *status is STATUS_OK if any
// image was classified, else the first image's: then the object is an error with results beside.
enum status answer_write(const struct answer_options *options, const struct result *results,
                         int count, enum status *status, char **text) CHECKED;

// {"error", "code", "request_id"}
enum status answer_write_error(enum status error, const char *request_id, char **text) CHECKED;
