// DESIGN. Turns are a semaphore. A request with several images puts a round on the list and starts
// on it itself, as long as there is a turn without waiting and no other round: what comes first
// needs no other thread. Helpers take a turn first and an image only then, so one that waits for
// its turn holds no image back; they go from round to round, so a request with many images does not
// keep out one with few. There are as many helpers as turns: whatever the requests' own threads do,
// each turn that falls free goes to somebody.
//
// A round lives on its request's stack. The mutex guards the list and the rounds; a helper touches
// a round without it only between claim() and finish(), and the request waits for both.

#include "decoders.h"
#include "clock.h"
#include "machine.h"
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { STACK_BYTES = 512 * 1024 };

struct round {
    decode_fn decode;
    void *context;
    int64_t deadline_ns;
    int count, claimed, finished; // images
    pthread_cond_t done;
    struct round *next;
};

struct decoders {
    sem_t turns;
    pthread_mutex_t mutex; // guards everything below
    pthread_cond_t work;
    struct round *first, *last; // those with images that nobody has claimed
    bool stopping;
    int n_helpers;
    pthread_t helpers[];
};

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

static enum status too_late(void)
{
    return status_fail(STATUS_DEADLINE, "the time ran out before the image was decoded");
}

enum status decoders_take_turn(struct decoders *decoders, int64_t deadline_ns)
{
    const struct timespec until = timespec_of(deadline_ns);
    bool in_time = clock_ns() < deadline_ns;
    while (in_time && sem_clockwait(&decoders->turns, CLOCK_MONOTONIC, &until) != 0)
        in_time = errno != ETIMEDOUT;
    return in_time ? STATUS_OK : too_late();
}

void decoders_give_turn(struct decoders *decoders)
{
    sem_post(&decoders->turns);
}

static void append(struct decoders *decoders, struct round *round)
{
    round->next = NULL;
    if (decoders->last)
        decoders->last->next = round;
    else
        decoders->first = round;
    decoders->last = round;
}

static void take_out(struct decoders *decoders, struct round *round)
{
    struct round *before = NULL;
    for (struct round *at = decoders->first; at != round; at = at->next)
        before = at;
    *(before ? &before->next : &decoders->first) = round->next;
    if (decoders->last == round)
        decoders->last = before;
}

// An image of a round on the list, which goes to the list's end, or leaves it with its last one.
static int claim(struct decoders *decoders, struct round *round)
{
    take_out(decoders, round);
    if (round->claimed + 1 < round->count)
        append(decoders, round);
    return round->claimed++;
}

static void finish(struct round *round)
{
    if (++round->finished == round->count)
        pthread_cond_signal(&round->done);
}

// One image. The caller holds the mutex, and a turn, which is given back.
static void decode_one(struct decoders *decoders, struct round *round)
{
    int index = claim(decoders, round);
    pthread_mutex_unlock(&decoders->mutex);
    bool in_time = clock_ns() < round->deadline_ns;
    round->decode(round->context, index, in_time ? STATUS_OK : too_late());
    decoders_give_turn(decoders);
    pthread_mutex_lock(&decoders->mutex);
    finish(round);
}

static void *help(void *argument)
{
    struct decoders *decoders = argument;
    pthread_setname_np(pthread_self(), "decoder"); // for top and the like
    pthread_mutex_lock(&decoders->mutex);
    while (!decoders->stopping) {
        if (!decoders->first) {
            pthread_cond_wait(&decoders->work, &decoders->mutex);
            continue;
        }
        pthread_mutex_unlock(&decoders->mutex);
        while (sem_wait(&decoders->turns) != 0)
            ;
        pthread_mutex_lock(&decoders->mutex);
        if (decoders->first)
            decode_one(decoders, decoders->first);
        else
            decoders_give_turn(decoders);
    }
    pthread_mutex_unlock(&decoders->mutex);
    return NULL;
}

// The request's time is over: its own thread takes what nobody has claimed.
static void give_up(struct decoders *decoders, struct round *round)
{
    int first = round->claimed;
    if (first == round->count)
        return;
    take_out(decoders, round);
    round->claimed = round->count;
    pthread_mutex_unlock(&decoders->mutex);
    for (int i = first; i < round->count; i++)
        round->decode(round->context, i, too_late());
    pthread_mutex_lock(&decoders->mutex);
    round->finished += round->count - first;
}

static void wait_for(struct decoders *decoders, struct round *round)
{
    const struct timespec until = timespec_of(round->deadline_ns);
    int error = 0;
    while (round->finished < round->count && error != ETIMEDOUT)
        error = pthread_cond_clockwait(&round->done, &decoders->mutex, CLOCK_MONOTONIC, &until);
    if (error == ETIMEDOUT)
        give_up(decoders, round);
    while (round->finished < round->count)
        pthread_cond_wait(&round->done, &decoders->mutex);
}

void decoders_run(struct decoders *decoders, int64_t deadline_ns, int count, decode_fn decode,
                  void *context)
{
    struct round round = {
        .decode = decode, .context = context, .deadline_ns = deadline_ns, .count = count};
    if (count < 1)
        return;
    pthread_cond_init(&round.done, NULL);
    pthread_mutex_lock(&decoders->mutex);
    append(decoders, &round);
    for (int i = 1; i < count && i <= decoders->n_helpers; i++)
        pthread_cond_signal(&decoders->work);
    while (decoders->first == &round && decoders->last == &round &&
           sem_trywait(&decoders->turns) == 0)
        decode_one(decoders, &round);
    wait_for(decoders, &round);
    pthread_mutex_unlock(&decoders->mutex);
    pthread_cond_destroy(&round.done);
}

static enum status start_helpers(struct decoders *decoders, int count)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int error = 0;
    while (decoders->n_helpers < count && error == 0) {
        error =
            pthread_create(&decoders->helpers[decoders->n_helpers], &attributes, help, decoders);
        decoders->n_helpers += error == 0;
    }
    pthread_attr_destroy(&attributes);
    if (error == 0)
        return STATUS_OK;
    return status_fail(STATUS_OUT_OF_MEMORY, "decoders: thread %d of %d: %s",
                       decoders->n_helpers + 1, count, strerror(error));
}

enum status decoders_create(int turns, struct decoders **out)
{
    if (turns == 0)
        turns = machine_cores();
    struct decoders *decoders =
        calloc(1, sizeof *decoders + sizeof *decoders->helpers * (size_t)turns);
    if (!decoders)
        return status_fail(STATUS_OUT_OF_MEMORY, "decoders: out of memory");
    sem_init(&decoders->turns, 0, (unsigned)turns);
    pthread_mutex_init(&decoders->mutex, NULL);
    pthread_cond_init(&decoders->work, NULL);
    enum status status = start_helpers(decoders, turns);
    if (status != STATUS_OK) {
        decoders_free(decoders);
        return status;
    }
    *out = decoders;
    return STATUS_OK;
}

void decoders_free(struct decoders *decoders)
{
    if (!decoders)
        return;
    pthread_mutex_lock(&decoders->mutex);
    decoders->stopping = true;
    pthread_cond_broadcast(&decoders->work);
    pthread_mutex_unlock(&decoders->mutex);
    for (int i = 0; i < decoders->n_helpers; i++)
        pthread_join(decoders->helpers[i], NULL);
    pthread_cond_destroy(&decoders->work);
    pthread_mutex_destroy(&decoders->mutex);
    sem_destroy(&decoders->turns);
    free(decoders);
}
