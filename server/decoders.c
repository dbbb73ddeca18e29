// DESIGN. A request with several images puts a round on the list and starts on it itself, as long
// as there is a turn without waiting and no other round: what comes first needs no other thread.
// Helpers take a turn first and an image only then, so one that waits for its turn holds no image
// back; they go from round to round, so a request with many images does not keep out one with few.
// There are as many helpers as short turns: whatever the requests' own threads do, each turn that
// falls free goes to somebody. Where all of them are held up by costly images, a request's own
// thread takes part again.
//
// A round lives on its request's stack. The mutex guards the list and the rounds; a helper touches
// a round without it only between claim() and finish(), and the request waits for both.

#include "decoders.h"
#include "clock.h"
#include "machine.h"
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { STACK_BYTES = 512 * 1024 };

// How long a request waits for the helpers before it looks at what they do.
static const int64_t PATIENCE_NS = 20 * 1000000;

struct round {
    decode_fn decode;
    void *context;
    struct decode_request *request;
    int count, claimed, finished; // images
    pthread_cond_t done;
    struct round *next;
};

struct decoders {
    struct turns *turns;
    pthread_mutex_t mutex; // guards everything below
    pthread_cond_t work;
    struct round *first, *last; // those with images that nobody has claimed
    bool stopping;
    int n_helpers;
    pthread_t helpers[];
};

struct turns *decoders_turns(struct decoders *decoders)
{
    return decoders->turns;
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

// One image of the round, if any is left. The caller holds the mutex, and a turn, which is given
// back.
static void decode_one(struct decoders *decoders, struct round *round, struct turn *turn)
{
    const bool left = round && round->claimed < round->count;
    const int index = left ? claim(decoders, round) : 0;
    pthread_mutex_unlock(&decoders->mutex);
    if (left) {
        turn->request = round->request;
        enum status wanted = client_check(&round->request->client);
        round->decode(round->context, index, wanted == STATUS_OK ? &turn->guard : NULL, wanted);
    }
    turn_give(turn);
    pthread_mutex_lock(&decoders->mutex);
    if (left)
        finish(round);
}

static void *help(void *argument)
{
    struct decoders *decoders = argument;
    struct decode_request patient = {.client = {.deadline_ns = INT64_MAX}};
    struct turn turn;
    pthread_setname_np(pthread_self(), "decoder"); // for top and the like
    pthread_mutex_lock(&decoders->mutex);
    while (!decoders->stopping) {
        if (!decoders->first) {
            pthread_cond_wait(&decoders->work, &decoders->mutex);
            continue;
        }
        pthread_mutex_unlock(&decoders->mutex);
        const bool taken = turn_take(decoders->turns, &patient, &turn) == STATUS_OK;
        pthread_mutex_lock(&decoders->mutex);
        if (taken)
            decode_one(decoders, decoders->first, &turn);
    }
    pthread_mutex_unlock(&decoders->mutex);
    return NULL;
}

// Nobody waits for the request any more: its own thread takes what nobody has claimed.
static void give_up(struct decoders *decoders, struct round *round, enum status reason)
{
    int first = round->claimed;
    if (first == round->count)
        return;
    take_out(decoders, round);
    round->claimed = round->count;
    pthread_mutex_unlock(&decoders->mutex);
    for (int i = first; i < round->count; i++)
        round->decode(round->context, i, NULL, reason);
    pthread_mutex_lock(&decoders->mutex);
    round->finished += round->count - first;
}

static void take_part(struct decoders *decoders, struct round *round)
{
    struct turn turn;
    bool taken = true;
    while (taken && round->claimed < round->count) {
        pthread_mutex_unlock(&decoders->mutex);
        taken = turn_take(decoders->turns, round->request, &turn) == STATUS_OK;
        pthread_mutex_lock(&decoders->mutex);
        if (taken)
            decode_one(decoders, round, &turn);
    }
}

static void wait_a_while(struct decoders *decoders, struct round *round)
{
    const int64_t until = clock_ns() + PATIENCE_NS;
    const struct timespec time = {until / 1000000000, until % 1000000000};
    int error = 0;
    while (round->finished < round->count && error != ETIMEDOUT)
        error = pthread_cond_clockwait(&round->done, &decoders->mutex, CLOCK_MONOTONIC, &time);
}

static void wait_for(struct decoders *decoders, struct round *round)
{
    while (round->finished < round->count) {
        const int claimed = round->claimed;
        wait_a_while(decoders, round);
        enum status wanted = client_check(&round->request->client);
        if (wanted != STATUS_OK)
            give_up(decoders, round, wanted);
        else if (round->claimed == claimed)
            take_part(decoders, round);
    }
}

void decoders_run(struct decoders *decoders, struct decode_request *request, int count,
                  decode_fn decode, void *context)
{
    struct round round = {.decode = decode, .context = context, .request = request, .count = count};
    struct turn turn;
    if (count < 1)
        return;
    pthread_cond_init(&round.done, NULL);
    pthread_mutex_lock(&decoders->mutex);
    append(decoders, &round);
    for (int i = 1; i < count && i <= decoders->n_helpers; i++)
        pthread_cond_signal(&decoders->work);
    while (decoders->first == &round && decoders->last == &round &&
           turn_try(decoders->turns, request, &turn))
        decode_one(decoders, &round, &turn);
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

// A GiB holds the largest pictures; many threads that decode at once may hold more.
static int64_t default_max_bytes(const struct machine *machine, int turns)
{
    const int64_t quarter = machine->memory_bytes / 4, gib = INT64_C(1) << 30;
    const int64_t most = turns > 8 ? turns * (gib / 8) : gib;
    return quarter > 0 && quarter < most ? quarter : most;
}

enum status decoders_create(int turns, int64_t max_bytes, struct decoders **out)
{
    struct machine machine;
    machine_read(&machine);
    if (turns == 0)
        turns = machine.cores;
    if (max_bytes == 0)
        max_bytes = default_max_bytes(&machine, turns);
    struct decoders *decoders =
        calloc(1, sizeof *decoders + sizeof *decoders->helpers * (size_t)turns);
    if (!decoders)
        return status_fail(STATUS_OUT_OF_MEMORY, "decoders: out of memory");
    pthread_mutex_init(&decoders->mutex, NULL);
    pthread_cond_init(&decoders->work, NULL);
    enum status status = turns_create(turns, max_bytes, &decoders->turns);
    if (status == STATUS_OK)
        status = start_helpers(decoders, turns);
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
    turns_free(decoders->turns);
    pthread_cond_destroy(&decoders->work);
    pthread_mutex_destroy(&decoders->mutex);
    free(decoders);
}
