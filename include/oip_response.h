#pragma once
// The answer to an inference request of the Open Inference Protocol: JSON, and behind it the
// outputs that were asked for as binary tensors. Reentrant.

#include "oip_request.h"
#include "result.h"

struct oip_answer {
    const struct catalog_entry *entry;
    const struct labels *labels;
    const struct oip_request *request;
    const struct result *results; // (request->count), each STATUS_OK
};

struct oip_body {
    char *bytes; // malloc'ed; the caller's
    size_t length;
    size_t json_length; // where binary tensors follow: < length
};

// A number that is not finite is null in JSON. STATUS_OUT_OF_MEMORY.
enum status oip_response_write(const struct oip_answer *answer, struct oip_body *body) CHECKED;
