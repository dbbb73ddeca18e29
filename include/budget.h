#pragma once
// Bytes that all requests share. What a request holds in memory on its way, its body and what is
// made of it, is taken from here first, so that many at once cannot eat the machine. Any thread.

#include "status.h"
#include <stdatomic.h>
#include <stdint.h>

struct budget {
    int64_t limit;
    atomic_int_fast64_t used;
};

// STATUS_QUEUE_FULL where fewer than `bytes` are left: then nothing is taken.
enum status budget_take(struct budget *budget, int64_t bytes) CHECKED;
void budget_give(struct budget *budget, int64_t bytes);
