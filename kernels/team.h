#pragma once
// The threads of the CPU backend. A job is so many tasks. Of T threads, thread t runs tasks
// count * t / T (rounded up) to those of t + 1, and then helps those that are not through;
// the job is over when every task is. So work that is cut the same way in job after job finds in a
// core's cache what it left there, and yet a thread that the system is not running has taken no
// task and nobody waits for it: that is what lets decoding share the cores, where a barrier would
// stop all for the one that is late.
//
// Threads: one job at a time, always from the same thread or with an order between them.

#include "status.h"

struct team;

// thread: 0 for the caller, up to threads - 1.
typedef void (*team_task_fn)(void *context, int task, int thread);

enum status team_create(int threads, struct team **team) CHECKED;
void team_free(struct team *team);
int team_threads(const struct team *team);

// Runs task(context, i, thread) for i in 0..count - 1 and returns when all are done.
void team_run(struct team *team, int count, team_task_fn task, void *context);
