#pragma once
// The body of one request while it arrives: what its headers say of it, and its bytes, within the
// limit for one body and charged to the budget of all.

#include "budget.h"
#include <stdbool.h>
#include <stddef.h>

struct intake {
    struct budget *budget;
    int64_t max_bytes; // of this body
    // What the headers say of its end; intake_header() fills it.
    struct {
        const char *length, *encoding;
        int count;
    } framing;
    uint8_t *bytes;
    size_t length, capacity;
};

// Notes a header that tells where the body ends; others are passed over. The value must live until
// intake_begin().
void intake_header(struct intake *intake, const char *name, const char *value);

// The headers have arrived: makes room for a body whose length they declare.
// STATUS_BAD_REQUEST (a length that two parties could read in two ways), STATUS_BODY_TOO_LARGE,
// STATUS_QUEUE_FULL (no budget left).
enum status intake_begin(struct intake *intake) CHECKED;

// The next piece. Errors as above.
enum status intake_append(struct intake *intake, const void *bytes, size_t length) CHECKED;

// Frees the bytes and gives the budget back. May be called again.
void intake_release(struct intake *intake);
