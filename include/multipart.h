#pragma once
// multipart/form-data (RFC 2046, RFC 7578), part by part: "--boundary CRLF part CRLF --boundary
// CRLF part ... CRLF --boundary--". Nothing is copied or allocated: the slices point into the body.
// Lines that end in LF alone are taken where the first boundary's does, or no other mark is found.

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
    struct slice
        extended;      // the file's name as RFC 8187 encodes it (filename*); empty if there is none
    struct slice type; // Content-Type; empty if there is none
    struct slice data;
    bool is_file; // it has a file name, be it an empty one
    bool base64;  // so is the data
};

// Private to multipart.c, but for the end of the body.
struct multipart {
    const char *at, *end; // after a boundary; of the body
    char mark[4 + MULTIPART_MAX_BOUNDARY + 1];
    size_t mark_length;
    bool lines_end_in_lf; // without a CR, as forms made by hand have them
};

// Both fail with STATUS_BAD_REQUEST, saying what is malformed.
// content_type: of the request, with its boundary.
enum status multipart_begin(struct multipart *form, const char *content_type, const uint8_t *bytes,
                            size_t length) CHECKED;
// *found: false after the last part.
enum status multipart_next(struct multipart *form, struct part *part, bool *found) CHECKED;

// Writes the name of a part's file and returns its length: the decoded extended one if it can be
// read, else the plain one, 0 where it has none or one that does not fit. Not zero-terminated, and
// not checked: it may be any bytes.
size_t multipart_file_name(const struct part *part, char *name, size_t size);
