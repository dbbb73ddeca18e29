#pragma once
// Who waits for an answer, and for how long.

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct client {
    int64_t deadline_ns; // as clock_ns(); INT64_MAX: never
    // True where nobody is there any more for the answer. NULL: somebody always is. Called on any
    // thread.
    bool (*gone)(void *context);
    void *context;
};

// STATUS_DEADLINE, STATUS_CANCELLED: nothing more is to be done for this client.
enum status client_check(const struct client *client) CHECKED;
