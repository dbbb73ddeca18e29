// DESIGN. There are shares of short turns, of long turns, and of the memory of pictures of each
// size. Each is an amount of which some is free, and a list of those who wait for a part of it,
// by their rank. A picture that waits for memory has given its turn back; one that waits
// for a turn keeps its memory: who holds memory gets a turn in the end, so nothing locks up.

#include "turn.h"
#include "clock.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

// Of the thread's own time, since a core may be busy with others. Most pictures are decoded within
// a short turn.
static const int64_t SHORT_NS = 2 * 1000000, LONG_NS = 100 * 1000000;
// A request that has had a turn already comes after those that come so much later than it.
static const int64_t LATER_NS = 20 * 1000000;
// How often a client is asked whether it is still there: while its picture is decoded, and while it
// waits, which costs nothing but its memory.
static const int64_t ASKED_NS = 20 * 1000000, ASKED_WAITING_NS = 80 * 1000000;
// Who has waited for so long lets nobody else have a turn before it.
static const int64_t PATIENCE_NS = 60 * 1000000;

static int64_t thread_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

struct waiter {
    int64_t need, rank_ns; // a lower rank is served first
    bool granted;
    pthread_cond_t come;
    struct waiter *next;
};

struct share {
    int64_t whole, free;
    struct waiter *first;
    int waking, lent; // granted to those who still sleep, and turns that others have meanwhile
};

// The memory has a share for pictures of each size, so that none waits for much larger ones: what
// one of them may need to be among these, and what they have together, both in 256ths of it all.
static const struct {
    int one, all;
} sizes[] = {{1, 8}, {4, 16}, {16, 40}, {256, 192}};

enum { SIZES = sizeof sizes / sizeof *sizes };

struct turns {
    pthread_mutex_t mutex; // guards everything below
    struct share short_turns, long_turns, memory[SIZES];
    int64_t max_bytes;
};

// ---- shares: the caller holds the mutex ---------------------------------------------------------

static bool share_try(struct share *share, int64_t need)
{
    if (share->first || share->free < need)
        return false;
    share->free -= need;
    return true;
}

static void share_serve(struct share *share)
{
    for (struct waiter *next; (next = share->first) && next->need <= share->free;) {
        share->first = next->next;
        share->free -= next->need;
        next->granted = true;
        share->waking++;
        pthread_cond_signal(&next->come);
    }
}

static void share_give(struct share *share, int64_t amount)
{
    share->free += amount;
    share_serve(share);
}

// On a busy machine whoever was granted a turn needs up to milliseconds to wake up. Meanwhile
// somebody who is awake may have one, if it is short: else the core has nothing to do.
static bool turn_borrow(struct share *turns)
{
    const bool patient = !turns->first || turns->first->rank_ns > clock_ns() - PATIENCE_NS;
    if (turns->waking <= turns->lent || !patient)
        return false;
    turns->lent++;
    return true;
}

static void turn_return(struct share *turns)
{
    if (turns->lent > 0)
        turns->lent--;
    else
        share_give(turns, 1);
}

static void share_add(struct share *share, struct waiter *waiter)
{
    struct waiter **place = &share->first;
    while (*place && (*place)->rank_ns <= waiter->rank_ns)
        place = &(*place)->next;
    waiter->next = *place;
    *place = waiter;
}

static void share_forget(struct share *share, struct waiter *waiter)
{
    struct waiter **place = &share->first;
    while (*place != waiter)
        place = &(*place)->next;
    *place = waiter->next;
    share_serve(share); // the next may need less
}

static void wait_a_while(struct turns *turns, struct waiter *waiter, int64_t deadline_ns)
{
    int64_t until = clock_ns() + ASKED_WAITING_NS;
    until = until < deadline_ns ? until : deadline_ns;
    const struct timespec time = {until / 1000000000, until % 1000000000};
    int error = 0;
    while (!waiter->granted && error != ETIMEDOUT)
        error = pthread_cond_clockwait(&waiter->come, &turns->mutex, CLOCK_MONOTONIC, &time);
}

static enum status share_take(struct turns *turns, struct share *share, int64_t need,
                              const struct decode_request *request)
{
    if (share_try(share, need))
        return STATUS_OK;
    enum status status = STATUS_OK;
    struct waiter waiter = {.need = need, .rank_ns = clock_ns()};
    waiter.rank_ns += request->served ? LATER_NS : 0;
    pthread_cond_init(&waiter.come, NULL);
    share_add(share, &waiter);
    while (!waiter.granted && status == STATUS_OK) {
        wait_a_while(turns, &waiter, request->client.deadline_ns);
        if (!waiter.granted)
            status = client_check(&request->client);
    }
    if (waiter.granted)
        share->waking--;
    else
        share_forget(share, &waiter);
    pthread_cond_destroy(&waiter.come);
    return waiter.granted ? STATUS_OK : status;
}

// ---- a turn -------------------------------------------------------------------------------------

static enum status hold(struct turn *turn, struct share *share)
{
    const bool is_short = share == &turn->turns->short_turns;
    if (!is_short || !turn_borrow(share))
        TRY(share_take(turn->turns, share, 1, turn->request));
    turn->request->served = true;
    turn->held = share;
    turn->since_ns = thread_ns();
    return STATUS_OK;
}

static void let_go(struct turn *turn)
{
    if (turn->held)
        turn_return(turn->held);
    turn->held = NULL;
}

// A picture that has waited to no avail goes to its end without a turn.
static enum status go_on_in_a_long_turn(struct turn *turn)
{
    struct turns *turns = turn->turns;
    enum status status = STATUS_OK;
    pthread_mutex_lock(&turns->mutex);
    if (turn->held != &turns->long_turns || turns->long_turns.first) {
        let_go(turn);
        status = hold(turn, &turns->long_turns);
    }
    turn->since_ns = thread_ns();
    pthread_mutex_unlock(&turns->mutex);
    return status;
}

static enum status guard_unwatched(struct image_guard *guard)
{
    return go_on_in_a_long_turn((struct turn *)guard);
}

static enum status guard_check(struct image_guard *guard)
{
    struct turn *turn = (struct turn *)guard;
    const int64_t now = clock_ns();
    const bool is_short = turn->held == &turn->turns->short_turns;
    if (now - turn->asked_ns >= ASKED_NS || now >= turn->request->client.deadline_ns) {
        turn->asked_ns = now;
        TRY(client_check(&turn->request->client));
    }
    const int64_t used_ns = thread_ns();
    if (used_ns - turn->since_ns >= (is_short ? SHORT_NS : LONG_NS))
        return go_on_in_a_long_turn(turn);
    return STATUS_OK;
}

enum status decode_request_check(struct decode_request *request)
{
    if (atomic_load(&request->pixels) <= request->max_pixels)
        return STATUS_OK;
    return status_fail(STATUS_IMAGE_TOO_LARGE,
                       "the images of the request have more than %lld pixels together "
                       "(--max-request-pixels)",
                       (long long)request->max_pixels);
}

// A picture's first bytes are waited for, its turn given up meanwhile; later ones are not: whoever
// holds some is not to wait for others who do.
static enum status take_memory(struct turn *turn, int64_t bytes)
{
    struct turns *turns = turn->turns;
    if (share_try(turn->pool, bytes))
        return STATUS_OK;
    if (turn->bytes > 0)
        return status_fail(STATUS_OUT_OF_MEMORY,
                           "the memory for decoding is in use (--max-decode-bytes)");
    struct share *kind = turn->held;
    let_go(turn);
    TRY(share_take(turns, turn->pool, bytes, turn->request));
    enum status status = hold(turn, kind);
    if (status != STATUS_OK)
        share_give(turn->pool, bytes);
    return status;
}

static struct share *memory_for(struct turns *turns, int64_t bytes)
{
    int size = 0;
    while (size < SIZES - 1 && bytes > turns->max_bytes * sizes[size].one / 256)
        size++;
    return &turns->memory[size];
}

static enum status guard_admit(struct image_guard *guard, int64_t pixels, int64_t bytes)
{
    struct turn *turn = (struct turn *)guard;
    struct turns *turns = turn->turns;
    atomic_fetch_add(&turn->request->pixels, pixels);
    TRY(decode_request_check(turn->request));
    if (turn->bytes == 0)
        turn->pool = memory_for(turns, bytes);
    if (bytes > turn->pool->whole)
        return status_fail(STATUS_IMAGE_TOO_LARGE,
                           "decoding takes %lld MB, more than there may be (--max-decode-bytes)",
                           (long long)bytes / 1000000);
    pthread_mutex_lock(&turns->mutex);
    enum status status = take_memory(turn, bytes);
    turn->bytes += status == STATUS_OK ? bytes : 0;
    pthread_mutex_unlock(&turns->mutex);
    return status;
}

static struct turn turn_of(struct turns *turns, struct decode_request *request)
{
    return (struct turn){.guard = {guard_admit, guard_check, guard_unwatched},
                         .turns = turns,
                         .request = request,
                         .asked_ns = clock_ns()};
}

enum status turn_take(struct turns *turns, struct decode_request *request, struct turn *turn)
{
    *turn = turn_of(turns, request);
    TRY(client_check(&request->client));
    pthread_mutex_lock(&turns->mutex);
    enum status status = hold(turn, &turns->short_turns);
    pthread_mutex_unlock(&turns->mutex);
    return status;
}

bool turn_try(struct turns *turns, struct decode_request *request, struct turn *turn)
{
    *turn = turn_of(turns, request);
    pthread_mutex_lock(&turns->mutex);
    bool taken = share_try(&turns->short_turns, 1);
    request->served = request->served || taken;
    pthread_mutex_unlock(&turns->mutex);
    turn->held = taken ? &turns->short_turns : NULL;
    turn->since_ns = thread_ns();
    return taken;
}

void turn_give(struct turn *turn)
{
    pthread_mutex_lock(&turn->turns->mutex);
    let_go(turn);
    if (turn->bytes > 0)
        share_give(turn->pool, turn->bytes);
    pthread_mutex_unlock(&turn->turns->mutex);
}

enum status turns_create(int count, int64_t max_bytes, struct turns **out)
{
    struct turns *turns = calloc(1, sizeof *turns);
    if (!turns)
        return status_fail(STATUS_OUT_OF_MEMORY, "decoding: out of memory");
    turns->short_turns = turns->long_turns = (struct share){.whole = count, .free = count};
    for (int i = 0; i < SIZES; i++)
        turns->memory[i].whole = turns->memory[i].free = max_bytes * sizes[i].all / 256;
    turns->max_bytes = max_bytes;
    pthread_mutex_init(&turns->mutex, NULL);
    *out = turns;
    return STATUS_OK;
}

void turns_free(struct turns *turns)
{
    if (!turns)
        return;
    pthread_mutex_destroy(&turns->mutex);
    free(turns);
}
