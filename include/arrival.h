#pragma once
// The body of one request on its way in: kept (intake.h) as long as it may come, thrown away
// (leavings.h) once it is refused or late, cut off at the end of that.
//
// The time is ours, not the HTTP library's: version 1.0.1 gives a connection no time of its own.

#include "intake.h"
#include "leavings.h"
#include "watch.h"
#include <pthread.h>

struct arrival {
    struct watch *watch;
    int fd;
    int64_t timeout_ms;    // for all of the body
    pthread_mutex_t mutex; // guards intake, late and refused: the watch, too, looks at them
    struct intake intake;
    bool late;
    enum status refused; // of a piece; the detail is the connection's thread's
    struct watch_item item;
    struct leavings leavings;
};

// Its budget, limit, watch, fd and timeout_ms are set, the rest is 0.
void arrival_init(struct arrival *arrival);

// The headers have arrived and the body may come: from now on it has timeout_ms. Errors as
// intake_begin()'s.
enum status arrival_begin(struct arrival *arrival) CHECKED;

// The next piece, kept or thrown away. What it returns ends the connection: the bound is passed.
enum status arrival_append(struct arrival *arrival, const void *bytes, size_t length) CHECKED;

// The body is complete; whether all of it was taken. STATUS_BODY_TIMEOUT, or intake_append()'s.
enum status arrival_end(struct arrival *arrival) CHECKED;

// Frees the bytes and gives the budget back.
void arrival_release(struct arrival *arrival);
