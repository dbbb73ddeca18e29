#pragma once
// The threads that help a request which has several images: these are decoded side by side, each in
// a turn of its own (turn.h).

#include "turn.h"

struct decoders;

// `turns`: short turns, and threads that help; 0 for the cores of machine.h. max_bytes: of
// turns_create(); 0 for a quarter of the memory of machine.h, at most 1 GiB or 128 MiB
// for each turn.
enum status decoders_create(int turns, int64_t max_bytes, struct decoders **decoders) CHECKED;
// After the last decoders_run() has returned.
void decoders_free(struct decoders *decoders);

// For one image, or other work of the kind, on the caller's thread.
struct turns *decoders_turns(struct decoders *decoders);

// Calls decode(context, i, guard, STATUS_OK) once for each i below count, in any order, on this
// thread and on those that help; returns after the last. An image that has had no turn before the
// client's time was over, or before it left, gets decode(context, i, NULL, that status), with its
// detail.
typedef void (*decode_fn)(void *context, int index, struct image_guard *guard, enum status turn);
void decoders_run(struct decoders *decoders, struct decode_request *request, int count,
                  decode_fn decode, void *context);
