#pragma once
// Calls back when a time is over, from a thread of its own: for threads that cannot see it
// themselves while they wait for a client.

#include "status.h"
#include <stdint.h>

struct watch;

// Belongs to its owner, who may free it once watch_remove() has returned.
struct watch_item {
    // Returns when to call again, 0 for never. Must be short, and must not call the watch.
    int64_t (*over)(struct watch_item *item);
    int64_t end_ns; // by clock_ns(); 0: not watched
    struct watch_item *previous, *next;
};

enum status watch_start(struct watch **watch) CHECKED;

// NULL is ignored. Nothing may be watched any more.
void watch_stop(struct watch *watch);

// From now on, until end_ns; an item that is watched already gets another end.
void watch_set(struct watch *watch, struct watch_item *item, int64_t end_ns);

// No call is under way when this returns, and none follows. An item that is not watched is ignored.
void watch_remove(struct watch *watch, struct watch_item *item);
