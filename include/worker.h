#pragma once
// The thread that feeds the device: takes a batch from the queue, runs it, hands the logits back.
// It knows jobs, not requests.

#include "metrics.h"
#include "queue.h"
#include "vit.h"

struct worker;

// Called once, from the worker's thread, when the device is lost: the queue has failed by then.
typedef void (*worker_failed_fn)(void *context);

// The run belongs to the worker until worker_join().
enum status worker_start(struct queue *queue, struct vit_run *run, struct metrics *metrics,
                         struct batch_sizes sizes, int classes, worker_failed_fn failed,
                         void *context, struct worker **worker) CHECKED;

// Whether it makes progress: false while the device has not finished an operation for 5 seconds
// that it was given, and after a batch has failed until a forward pass succeeds. Any thread.
bool worker_well(const struct worker *worker);

// Waits until the worker has emptied the closed queue, and frees it.
void worker_join(struct worker *worker);
