#pragma once
// multipart/form-data (RFC 2046, RFC 7578), part by part: "--boundary CRLF part CRLF --boundary
// CRLF part ... CRLF --boundary--". Nothing is copied or allocated: the slices point into the body.

#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MULTIPART_MAX_BOUNDARY = 70 }; // RFC 2046

// A stretch of the body or of a header; not zero-terminated.
struct slice {
    const char *at;
    size_t length;
};

struct part {
    struct slice name; // of the file, or else of the field, as it stands between its quotes
    struct slice data;
    bool is_file; // it has a file name, be it an empty one
};

// Private to multipart.c.
struct multipart {
    const char *at, *end; // behind a boundary; of the body
    char mark[4 + MULTIPART_MAX_BOUNDARY + 1];
    size_t mark_length;
};

// Both fail with STATUS_BAD_REQUEST, saying what is malformed.
// content_type: of the request, with its boundary.
enum status multipart_begin(struct multipart *form, const char *content_type, const uint8_t *bytes,
                            size_t length) CHECKED;
// *found: false behind the last part.
enum status multipart_next(struct multipart *form, struct part *part, bool *found) CHECKED;
