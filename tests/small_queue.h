#pragma once
// A queue of few slots, for the tests of queue.c.

#include "queue.h"

enum { CAPACITY = 16, PIXEL_BYTES = 12, CLASSES = 3 };

static const struct client patient = {.deadline_ns = INT64_MAX};

struct queue *open_queue(void); // one at a time
struct batch_sizes up_to(int count);
