#pragma once
// A body without its Content-Encoding, and the packed texts of PNG files: the one door to zlib.
// Reentrant.

#include "budget.h"
#include "status.h"
#include <stdbool.h>
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

// zlib's data as the texts of PNG files hold it, read as Pillow reads it: what is cut off is as
// much as there is, what follows its end is nobody's business. *count: capacity + 1 if there is
// more. False: damaged; also if there is no memory (memory.h notes it).
bool inflate_text(const uint8_t *bytes, size_t length, uint8_t *out, size_t capacity,
                  size_t *count);

// The CRC-32 of what was summed up before, 0 at first, and these bytes.
uint32_t inflate_crc(uint32_t crc, const uint8_t *bytes, size_t length);
