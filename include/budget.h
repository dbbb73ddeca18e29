#pragma once
// Bytes that all requests share. What a request holds in memory on its way, its body and what is
// made of it, is taken from here first, so that many at once cannot eat the machine; so is what
// waits to be sent. Any thread.

#include "status.h"
#include <stdatomic.h>
#include <stdint.h>

struct budget {
    int64_t limit;
    atomic_int_fast64_t used;
};

// STATUS_QUEUE_FULL where fewer than `bytes` are left: then nothing is taken.
enum status budget_take(struct budget *budget, int64_t bytes) CHECKED;
// Whether they could be taken now.
enum status budget_check(struct budget *budget, int64_t bytes) CHECKED;
// Takes them even where they are not left, for what is done already and would be lost: an answer.
// There are no more of these at once than the queue lets in, and what comes next finds no room.
void budget_charge(struct budget *budget, int64_t bytes);
void budget_give(struct budget *budget, int64_t bytes);
