#pragma once
// The threads of the CPU backend. A job is so many tasks; the caller and whichever threads of the
// team are running take them one by one, and the job is over when every task is. A thread that the
// system is not running has taken none, so nobody waits for it: that is what lets decoding share
// the cores, where a barrier would stop all for the one that is late.
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
