#pragma once
// A body without its Content-Encoding: the one door to zlib. Reentrant.

#include "budget.h"
#include "status.h"
#include <stddef.h>
#include <stdint.h>

struct inflated {
    const uint8_t *bytes; // the caller's own where there was no encoding: they must outlive it
    size_t length;
    // Private.
    uint8_t *memory;
    size_t capacity; // of memory, taken from the budget
    struct budget *budget;
};

// encoding: the value of Content-Encoding, NULL where absent: gzip, x-gzip, deflate (with zlib's
// header, or raw as some clients send it), identity or nothing, in any case. gzip may be several
// members. What comes out is taken from the budget as it grows; budget may be NULL.
// STATUS_BODY_TOO_LARGE   as soon as more than max_bytes come out
// STATUS_BAD_REQUEST      damaged or cut off data, or more of it behind the end
// STATUS_UNSUPPORTED_MEDIA  another encoding, or more than one
// STATUS_QUEUE_FULL       the budget is used up; STATUS_OUT_OF_MEMORY
// A failure leaves nothing to release.
enum status inflate_body(const char *encoding, const uint8_t *bytes, size_t length,
                         size_t max_bytes, struct budget *budget, struct inflated *out) CHECKED;
void inflate_release(struct inflated *inflated);
