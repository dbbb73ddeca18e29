#pragma once
// What a client still sends after its request was refused or answered. Closed on unread bytes, a
// connection is reset, and the reset can overtake the answer: so they are read and thrown away, for
// all of a connection within one bound.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LEAVINGS_BYTES = 64 << 20, LEAVINGS_MS = 5000 };

struct leavings {
    int64_t bytes;  // thrown away so far
    int64_t end_ns; // 0: nothing was left so far
};

// Begins the time, unless it has begun.
void leavings_begin(struct leavings *leavings, int64_t ms);

// Another piece was thrown away; false once that is past the bound.
bool leavings_count(struct leavings *leavings, size_t length);

// Reads the socket until the client has closed its end, nothing came for quiet_ms, or the bound.
void leavings_read(struct leavings *leavings, int fd, int64_t quiet_ms);
