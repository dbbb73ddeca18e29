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

enum report_format { REPORT_TEXT, REPORT_JSON, REPORT_MARKDOWN, REPORT_SVG };

// What an HTTP client asks for: by `format`, a query parameter ("text", "json", "markdown", "svg"),
// else by `accept`, its Accept header; each may be NULL. JSON where it asks for nothing we have, or
// for JSON as much as for another. STATUS_BAD_REQUEST where `format` is none of these.
enum status report_format_from(const char *format, const char *accept,
                               enum report_format *out) CHECKED;
const char *report_content_type(enum report_format format);

// *text is malloc'ed, zero-terminated, and belongs to the caller. SVG is a pie of the parameters by
// form; the others list the layers too. runtime may be NULL: then the JSON has no "runtime".
enum status report_write(const struct catalog_entry *entry, const struct report_runtime *runtime,
                         enum report_format format, char **text) CHECKED;
