// kernels/team.c: every task runs once; a thread takes its own share, in order, and then what
// others have not begun; jobs follow one another whoever is late.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "team.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { MOST_TASKS = 300 };

static struct team *create(int threads)
{
    struct team *team;
    enum status status = team_create(threads, &team);
    if (status != STATUS_OK)
        fail_msg("%s", status_detail(status));
    assert_int_equal(team_threads(team), threads);
    return team;
}

// ---- every task once ----------------------------------------------------------------------------

static void count_task(void *context, int task, int thread)
{
    atomic_int *runs = context;
    (void)thread;
    atomic_fetch_add(&runs[task], 1);
}

static void test_every_task_runs_once(void **state)
{
    static const int threads[] = {1, 2, 3, 7};
    (void)state;
    for (size_t i = 0; i < COUNT(threads); i++) {
        struct team *team = create(threads[i]);
        for (int count = 0; count <= MOST_TASKS; count++) {
            atomic_int runs[MOST_TASKS] = {0};
            team_run(team, count, count_task, runs);
            for (int task = 0; task < MOST_TASKS; task++)
                if (runs[task] != (task < count))
                    fail_msg("%d threads, %d tasks: task %d ran %d times", threads[i], count, task,
                             runs[task]);
        }
        team_free(team);
    }
}

// ---- a thread that is late ----------------------------------------------------------------------

// A job in which the caller stays in its first task until the other thread has done all the rest.
struct held {
    int count;
    int order[MOST_TASKS]; // the tasks of thread 1
    atomic_int done;       // how many they are
    bool held;             // the caller has had the first task
};

static void hold_the_caller(void *context, int task, int thread)
{
    struct held *job = context;
    if (thread == 1) {
        job->order[atomic_load(&job->done)] = task;
        atomic_fetch_add(&job->done, 1);
    } else if (task == 0) {
        job->held = true;
        while (atomic_load(&job->done) < job->count - 1)
            sched_yield();
    }
}

// The share of thread 1 is the second half. What it takes of the first half, it takes when its own
// is done.
static void test_a_late_thread_is_helped(void **state)
{
    (void)state;
    struct team *team = create(2);
    for (int count = 2; count < 40; count++) {
        struct held job;
        do { // until the caller is the first at task 0, as it is unless the system does not run it
            job = (struct held){.count = count};
            team_run(team, count, hold_the_caller, &job);
        } while (!job.held);
        int own = count / 2, first = count - own;
        assert_int_equal(atomic_load(&job.done), count - 1);
        for (int i = 0; i < count - 1; i++)
            assert_int_equal(job.order[i], i < own ? first + i : 1 + i - own);
    }
    team_free(team);
}

// ---- sleep --------------------------------------------------------------------------------------

// Threads without work sleep after a while; a job wakes them: this one is over only when two
// threads are in it at once.
static void meet(void *context, int task, int thread)
{
    atomic_int *there = context;
    (void)task, (void)thread;
    atomic_fetch_add(there, 1);
    while (atomic_load(there) < 2)
        sched_yield();
}

static void test_sleepers_wake(void **state)
{
    static const int pauses_ms[] = {0, 1, 20, 100};
    (void)state;
    struct team *team = create(2);
    for (size_t i = 0; i < COUNT(pauses_ms); i++) {
        struct timespec pause = {.tv_nsec = pauses_ms[i] * 1000000L};
        nanosleep(&pause, NULL);
        atomic_int there = 0;
        team_run(team, 2, meet, &there);
        assert_int_equal(there, 2);
    }
    team_free(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_runs_once),
        cmocka_unit_test(test_a_late_thread_is_helped),
        cmocka_unit_test(test_sleepers_wake),
    };
    return cmocka_run_group_tests_name("team", tests, NULL, NULL);
}
