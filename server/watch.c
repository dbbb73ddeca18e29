// DESIGN. A list without order: there is an item for each body that arrives, and nearly all are
// removed long before their end. So an item costs two short turns under the mutex, and the thread
// wakes for the nearest end that it saw when it last looked, or for one that is nearer.

#include "watch.h"
#include "clock.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct watch {
    pthread_mutex_t mutex;   // guards the rest, and is held while an item is called
    pthread_cond_t nearer;   // than wake_ns, or the stop
    struct watch_item items; // the list begins and ends here
    int64_t wake_ns;
    bool stopping;
    pthread_t thread;
};

static void unlink_item(struct watch_item *item)
{
    item->previous->next = item->next;
    item->next->previous = item->previous;
    item->end_ns = 0;
}

// Returns the nearest end of those that are left.
static int64_t call_due(struct watch *watch)
{
    int64_t now = clock_ns(), nearest = INT64_MAX;
    for (struct watch_item *item = watch->items.next, *next; item != &watch->items; item = next) {
        next = item->next;
        if (item->end_ns <= now) {
            int64_t again = item->over(item);
            if (again == 0) {
                unlink_item(item);
                continue;
            }
            item->end_ns = again;
        }
        nearest = item->end_ns < nearest ? item->end_ns : nearest;
    }
    return nearest;
}

static void *loop(void *argument)
{
    struct watch *watch = argument;
    pthread_mutex_lock(&watch->mutex);
    while (!watch->stopping) {
        watch->wake_ns = call_due(watch);
        const struct timespec until = {.tv_sec = watch->wake_ns / 1000000000,
                                       .tv_nsec = watch->wake_ns % 1000000000};
        if (watch->wake_ns == INT64_MAX)
            pthread_cond_wait(&watch->nearer, &watch->mutex);
        else
            pthread_cond_timedwait(&watch->nearer, &watch->mutex, &until);
    }
    pthread_mutex_unlock(&watch->mutex);
    return NULL;
}

enum status watch_start(struct watch **out)
{
    struct watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return status_fail(STATUS_OUT_OF_MEMORY, "watch: out of memory");
    watch->items.previous = watch->items.next = &watch->items;
    watch->wake_ns = INT64_MAX;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->nearer, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&watch->mutex, NULL);
    int error = pthread_create(&watch->thread, NULL, loop, watch);
    if (error) {
        free(watch);
        return status_fail(STATUS_INTERNAL, "cannot start a thread: %s", strerror(error));
    }
    *out = watch;
    return STATUS_OK;
}

void watch_stop(struct watch *watch)
{
    if (!watch)
        return;
    pthread_mutex_lock(&watch->mutex);
    watch->stopping = true;
    pthread_cond_signal(&watch->nearer);
    pthread_mutex_unlock(&watch->mutex);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->nearer);
    pthread_mutex_destroy(&watch->mutex);
    free(watch);
}

void watch_set(struct watch *watch, struct watch_item *item, int64_t end_ns)
{
    pthread_mutex_lock(&watch->mutex);
    if (item->end_ns == 0) {
        item->previous = &watch->items;
        item->next = watch->items.next;
        item->previous->next = item->next->previous = item;
    }
    item->end_ns = end_ns;
    if (end_ns < watch->wake_ns) {
        watch->wake_ns = end_ns;
        pthread_cond_signal(&watch->nearer);
    }
    pthread_mutex_unlock(&watch->mutex);
}

void watch_remove(struct watch *watch, struct watch_item *item)
{
    pthread_mutex_lock(&watch->mutex);
    if (item->end_ns != 0)
        unlink_item(item);
    pthread_mutex_unlock(&watch->mutex);
}
