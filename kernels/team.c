// DESIGN. Each member has a share of the job, consecutive tasks, and takes them in order; when it
// has none left it takes those of others. Its `work` holds the job's number and how many tasks of
// its share are not taken yet, in one word: who takes one by compare-and-exchange knows that the
// job is still the current one, and it stays so until that task is done, so its fields can be read.
// Threads that find no work look for a while, giving way to others, and then sleep on a condition.
// A sleeper counts itself in `sleepers` before it looks a last time, the caller writes every `work`
// before it looks at `sleepers`: one of them sees the other. The caller waits for the last tasks of
// others in the same way, with `waiting` and `unfinished`: a core that looks on cannot take over a
// thread that stands in line for another core, an idle one does.

#include "team.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    CACHE_LINE = 64,
    LOOKS_BEFORE_YIELD = 64,
    YIELDS_BEFORE_SLEEP = 200,
    YIELDS_BEFORE_WAIT = 20,
};

struct team {
    uint32_t job; // its number
    team_task_fn task;
    void *context;
    atomic_int unfinished; // tasks

    atomic_int sleepers;
    pthread_mutex_t mutex; // guards the sleep, and stopping
    pthread_cond_t wake, done;
    atomic_bool waiting; // the caller, for `done`
    atomic_bool stopping;

    int threads, started; // the caller's included
    struct member {
        _Alignas(CACHE_LINE) _Atomic uint64_t work; // job number << 32 | tasks not taken
        int end;                                    // of its share
        int index;
        struct team *team;
        pthread_t thread;
    } members[];
};

static void relax(int looks)
{
    if (looks % LOOKS_BEFORE_YIELD != 0) {
#if defined __x86_64__
        __builtin_ia32_pause();
#endif
    } else {
        sched_yield();
    }
}

// Takes one task of the owner's share of a job and runs it; false where there is none.
static bool run_one_of(struct team *team, struct member *owner, uint64_t job, int thread)
{
    uint64_t work = atomic_load_explicit(&owner->work, memory_order_relaxed);
    do {
        if ((uint32_t)work == 0 || work >> 32 != job)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&owner->work, &work, work - 1,
                                                    memory_order_acquire, memory_order_relaxed));
    team->task(team->context, owner->end - (int)(uint32_t)work, thread);
    if (atomic_fetch_sub(&team->unfinished, 1) == 1 && atomic_load(&team->waiting)) {
        pthread_mutex_lock(&team->mutex);
        pthread_cond_signal(&team->done);
        pthread_mutex_unlock(&team->mutex);
    }
    return true;
}

// The same of any share, the thread's own first. A thread that sees the others' shares of a job
// before its own waits for that.
static bool run_one(struct team *team, int thread)
{
    uint64_t job = atomic_load_explicit(&team->members[thread].work, memory_order_relaxed) >> 32;
    for (int i = 0; i < team->threads; i++)
        if (run_one_of(team, &team->members[(thread + i) % team->threads], job, thread))
            return true;
    return false;
}

static bool has_work(struct team *team)
{
    for (int i = 0; i < team->threads; i++)
        if ((uint32_t)atomic_load(&team->members[i].work) != 0)
            return true;
    return false;
}

static void sleep_until_work(struct team *team)
{
    pthread_mutex_lock(&team->mutex);
    atomic_fetch_add(&team->sleepers, 1);
    while (!has_work(team) && !atomic_load(&team->stopping))
        pthread_cond_wait(&team->wake, &team->mutex);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->mutex);
}

static void *member_main(void *argument)
{
    struct member *member = argument;
    struct team *team = member->team;
    while (!atomic_load(&team->stopping)) {
        int looks = 0;
        while (!run_one(team, member->index) && ++looks < LOOKS_BEFORE_YIELD * YIELDS_BEFORE_SLEEP)
            relax(looks);
        if (looks == LOOKS_BEFORE_YIELD * YIELDS_BEFORE_SLEEP)
            sleep_until_work(team);
    }
    return NULL;
}

static void wake_all(struct team *team)
{
    pthread_mutex_lock(&team->mutex);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->mutex);
}

static void wait_for_the_last(struct team *team)
{
    for (int looks = 1; looks < LOOKS_BEFORE_YIELD * YIELDS_BEFORE_WAIT; looks++) {
        if (atomic_load_explicit(&team->unfinished, memory_order_acquire) == 0)
            return;
        relax(looks);
    }
    pthread_mutex_lock(&team->mutex);
    atomic_store(&team->waiting, true);
    while (atomic_load(&team->unfinished) > 0)
        pthread_cond_wait(&team->done, &team->mutex);
    atomic_store(&team->waiting, false);
    pthread_mutex_unlock(&team->mutex);
}

static void share_out(struct team *team, int count)
{
    int begin = 0;
    team->job++;
    for (int i = 0; i < team->threads; i++) {
        struct member *member = &team->members[i];
        member->end = (int)(((int64_t)count * (i + 1) + team->threads - 1) / team->threads);
        atomic_store(&member->work, (uint64_t)team->job << 32 | (uint32_t)(member->end - begin));
        begin = member->end;
    }
}

void team_run(struct team *team, int count, team_task_fn task, void *context)
{
    if (count <= 0)
        return;
    team->task = task;
    team->context = context;
    atomic_store(&team->unfinished, count);
    share_out(team, count);
    if (count > 1 && atomic_load(&team->sleepers) > 0)
        wake_all(team);
    while (run_one(team, 0))
        ;
    wait_for_the_last(team);
}

enum status team_create(int threads, struct team **out)
{
    size_t bytes = sizeof(struct team) + sizeof(struct member) * (size_t)threads;
    struct team *team = aligned_alloc(CACHE_LINE, bytes);
    if (!team)
        return status_fail(STATUS_OUT_OF_MEMORY, "cpu: no memory for %d threads", threads);
    memset(team, 0, bytes);
    team->threads = threads;
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->wake, NULL);
    pthread_cond_init(&team->done, NULL);
    for (team->started = 1; team->started < threads; team->started++) {
        struct member *member = &team->members[team->started];
        member->team = team;
        member->index = team->started;
        int error = pthread_create(&member->thread, NULL, member_main, member);
        if (error) {
            enum status status = status_fail(STATUS_OUT_OF_MEMORY, "cpu: thread %d of %d: %s",
                                             member->index + 1, threads, strerror(error));
            team_free(team);
            return status;
        }
    }
    *out = team;
    return STATUS_OK;
}

void team_free(struct team *team)
{
    if (!team)
        return;
    atomic_store(&team->stopping, true);
    wake_all(team);
    for (int i = 1; i < team->started; i++)
        pthread_join(team->members[i].thread, NULL);
    pthread_cond_destroy(&team->wake);
    pthread_cond_destroy(&team->done);
    pthread_mutex_destroy(&team->mutex);
    free(team);
}

int team_threads(const struct team *team)
{
    return team->threads;
}
