#pragma once
// How many images may be decoded at the same time, and the threads that help a request which has
// several. A turn is the right to decode one image; who has one image takes a turn and decodes it
// on its own thread. Any thread may call these.

#include "status.h"
#include <stdint.h>

struct decoders;

// `turns`: images at the same time, and threads that help; 0 for the cores of machine.h.
enum status decoders_create(int turns, struct decoders **decoders) CHECKED;
// After the last decoders_run() has returned.
void decoders_free(struct decoders *decoders);

// Waits for a turn. STATUS_DEADLINE at `deadline_ns` (as clock_ns()), also if a turn is free then.
enum status decoders_take_turn(struct decoders *decoders, int64_t deadline_ns) CHECKED;
void decoders_give_turn(struct decoders *decoders);

// Calls decode(context, i, STATUS_OK) once for each i below count, in any order, on this thread and
// on those that help, each call in a turn of its own; returns after the last. An image that has had
// no turn by the deadline gets decode(context, i, STATUS_DEADLINE), with the status's detail.
typedef void (*decode_fn)(void *context, int index, enum status turn);
void decoders_run(struct decoders *decoders, int64_t deadline_ns, int count, decode_fn decode,
                  void *context);
