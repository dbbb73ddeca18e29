#pragma once
// The parameter breakdown of a model: what GET /model and `vitserve model` show. It is computed
// from the weight table alone; no weights are needed.

#include "catalog.h"

// What only a loaded model has.
struct report_runtime {
    const char *device, *device_name, *precision, *weights_source, *version;
    size_t weights_bytes;
    int max_batch;
};

enum report_format { REPORT_JSON, REPORT_MARKDOWN };

// *text is malloc'ed, zero-terminated, and belongs to the caller. runtime may be NULL: then the
// JSON has no "runtime".
enum status report_write(const struct catalog_entry *entry, const struct report_runtime *runtime,
                         enum report_format format, char **text) CHECKED;
