#include "arrival.h"
#include "clock.h"
#include <sys/socket.h>

static int64_t late_ms(const struct arrival *arrival)
{
    return arrival->timeout_ms < LEAVINGS_MS ? arrival->timeout_ms : LEAVINGS_MS;
}

// On the watch's thread. The first time the body is late, and what it holds is given back at once:
// its client may be silent for ever. No reply can be queued while it still arrives, so it is waited
// for as long again; then the connection's thread finds its socket at an end.
static int64_t over(struct watch_item *item)
{
    struct arrival *arrival =
        (struct arrival *)(void *)((char *)item - offsetof(struct arrival, item));
    pthread_mutex_lock(&arrival->mutex);
    bool cut = arrival->late || arrival->refused != STATUS_OK;
    if (!cut) {
        arrival->late = true;
        intake_release(&arrival->intake);
        leavings_begin(&arrival->leavings, late_ms(arrival));
    }
    pthread_mutex_unlock(&arrival->mutex);
    if (cut)
        shutdown(arrival->fd, SHUT_RDWR);
    return cut ? 0 : arrival->leavings.end_ns;
}

void arrival_init(struct arrival *arrival)
{
    arrival->item.over = over;
    pthread_mutex_init(&arrival->mutex, NULL);
}

enum status arrival_begin(struct arrival *arrival)
{
    TRY(intake_begin(&arrival->intake));
    watch_set(arrival->watch, &arrival->item, clock_ns() + arrival->timeout_ms * 1000000);
    return STATUS_OK;
}

static enum status verdict(const struct arrival *arrival)
{
    if (arrival->late)
        return status_fail(STATUS_BODY_TIMEOUT, "the body was not there within %lld ms",
                           (long long)arrival->timeout_ms);
    return arrival->refused;
}

// Returns whether this piece is the first that is refused.
static bool take(struct arrival *arrival, const void *bytes, size_t length)
{
    if (arrival->late || arrival->refused != STATUS_OK)
        return false;
    arrival->refused = intake_append(&arrival->intake, bytes, length);
    if (arrival->refused == STATUS_OK)
        return false;
    intake_release(&arrival->intake);
    leavings_begin(&arrival->leavings, LEAVINGS_MS);
    return true;
}

enum status arrival_append(struct arrival *arrival, const void *bytes, size_t length)
{
    pthread_mutex_lock(&arrival->mutex);
    bool first = take(arrival, bytes, length), kept = !arrival->late && !arrival->refused;
    bool within = kept || leavings_count(&arrival->leavings, length);
    pthread_mutex_unlock(&arrival->mutex);
    if (first)
        watch_set(arrival->watch, &arrival->item, arrival->leavings.end_ns);
    return within ? STATUS_OK : verdict(arrival);
}

enum status arrival_end(struct arrival *arrival)
{
    watch_remove(arrival->watch, &arrival->item);
    return verdict(arrival);
}

void arrival_release(struct arrival *arrival)
{
    watch_remove(arrival->watch, &arrival->item);
    intake_release(&arrival->intake);
    pthread_mutex_destroy(&arrival->mutex);
}
