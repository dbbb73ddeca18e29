#pragma once
// What decoding may take of the machine at once: time, by turns, and memory.
//
// A turn is the right to decode one picture. It begins as a short one, of which there is one per
// core; a picture that takes longer goes on in a long one, of which there are as many, and leaves
// it from time to time to the next. So those that come next wait for milliseconds, whatever the
// pictures before them cost. Who must wait does so in the order of coming, but for requests that
// have had a turn, which come somewhat later; and for as long as the client does. While the next
// one wakes up, a newcomer may have a turn too, so that for a moment there may be twice as many.
// Memory likewise, but for that: see image_guard.admit.

#include "client.h"
#include "image.h"
#include <stdatomic.h>

struct turns;

// `count`: short turns. max_bytes: what decoders may hold at once, all together.
enum status turns_create(int count, int64_t max_bytes, struct turns **turns) CHECKED;
void turns_free(struct turns *turns); // after the last turn

// What the pictures of one request share.
struct decode_request {
    struct client client;
    int64_t max_pixels; // of all of them together
    atomic_llong pixels;
    bool served; // it has had a turn
};

// More than max_pixels so far: STATUS_IMAGE_TOO_LARGE, which is the whole request's.
enum status decode_request_check(struct decode_request *request) CHECKED;

// One picture's. The guard stops its decoding: STATUS_DEADLINE, STATUS_CANCELLED;
// STATUS_IMAGE_TOO_LARGE, for want of pixels or of memory that there will never be;
// STATUS_OUT_OF_MEMORY. The rest is private to turn.c.
struct turn {
    struct image_guard guard;
    struct turns *turns;
    struct decode_request *request;
    struct share *held, *pool; // the turn's kind, and where the bytes are from
    int64_t bytes;
    int64_t since_ns; // when it was taken, of the thread's own time
    int64_t asked_ns; // when the client was last looked after, by clock_ns()
};

// STATUS_DEADLINE, STATUS_CANCELLED: no turn is held. The request outlives the turn.
enum status turn_take(struct turns *turns, struct decode_request *request,
                      struct turn *turn) CHECKED;
bool turn_try(struct turns *turns, struct decode_request *request, struct turn *turn) CHECKED;
void turn_give(struct turn *turn); // with all memory that was admitted
