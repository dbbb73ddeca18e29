#pragma once
// One request while it arrives: what its head says, and the bytes of its body, within the limit for
// one body and charged to the budget of all.

#include "budget.h"
#include <stdbool.h>
#include <stddef.h>

struct intake {
    struct budget *budget;
    int64_t max_bytes; // of this body
    // What the headers say of its end and of its host; intake_header() fills it.
    struct {
        const char *length, *encoding, *host;
        int count, hosts;
        bool malformed; // there is one that two parties could read in two ways
    } framing;
    uint8_t *bytes;
    size_t length, capacity; // the capacity is what is charged
    size_t declared;         // 0: not known
};

// The path of a target as the routes have it: of an absolute-form one, which every server must know
// (RFC 9112, 3.2.2) and clients of a proxy send, what follows the authority. Without a path that is
// the root, or of OPTIONS the server as a whole (3.2.4).
const char *intake_path(const char *method, const char *target);

// Notes what a header tells of where the body ends and which host is asked. The value must live
// until intake_begin().
void intake_header(struct intake *intake, const char *name, const char *value);

// The headers have arrived. STATUS_BAD_REQUEST: two parties could read them in two ways, and what
// follows them may be a body to one and a request to the other; or they break the rules of Host
// (RFC 9112, 3.2), which since HTTP/1.1 must be there.
enum status intake_check(const struct intake *intake, bool needs_host) CHECKED;

// Then: refuses a body whose declared length there is no room for now. The room itself is taken as
// the bytes come.
// STATUS_BAD_REQUEST (a length that is no number), STATUS_BODY_TOO_LARGE, STATUS_QUEUE_FULL (no
// budget left).
enum status intake_begin(struct intake *intake) CHECKED;

// The next piece. Errors as above.
enum status intake_append(struct intake *intake, const void *bytes, size_t length) CHECKED;

// Frees the bytes and gives the budget back. May be called again.
void intake_release(struct intake *intake);
