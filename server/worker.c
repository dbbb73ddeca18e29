#include "worker.h"
#include "clock.h"
#include "log.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct worker {
    pthread_t thread;
    struct queue *queue;
    struct vit_run *run;
    struct metrics *metrics;
    struct batch_sizes sizes;
    int classes;
    worker_failed_fn failed;
    void *context;
    atomic_int_fast64_t busy_ns; // clock_ns() when the batch in work was begun; 0: there is none
    atomic_bool failing;         // the last forward pass failed
    struct job *batch[];         // (sizes.max)
};

static enum status run_batch(struct worker *worker, int count)
{
    for (int i = 0; i < count; i++)
        TRY(vit_set_image(worker->run, i, worker->batch[i]->pixels));
    const float *logits;
    TRY(vit_forward(worker->run, count, &logits));
    size_t classes = (size_t)worker->classes;
    for (int i = 0; i < count; i++)
        memcpy(worker->batch[i]->logits, logits + (size_t)i * classes, sizeof *logits * classes);
    return STATUS_OK;
}

// A batch has failed although the device is not lost. Whether another can succeed is found out with
// a pass of our own, before the images of a client are risked.
static void recover(struct worker *worker)
{
    const struct timespec pause = {.tv_nsec = 200 * 1000 * 1000};
    const float *logits;
    while (vit_forward(worker->run, 1, &logits) != STATUS_OK && !queue_closed(worker->queue))
        nanosleep(&pause, NULL);
    atomic_store(&worker->failing, false);
}

bool worker_well(const struct worker *worker)
{
    const int64_t limit_ns = 5 * INT64_C(1000000000);
    int64_t busy = atomic_load(&worker->busy_ns), beat = vit_run_beat_ns(worker->run);
    int64_t since = busy > beat ? busy : beat;
    return !atomic_load(&worker->failing) && (busy == 0 || clock_ns() - since <= limit_ns);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    int count;
    while ((count = queue_take(worker->queue, worker->batch, worker->sizes)) > 0) {
        int64_t start = clock_ns();
        atomic_store(&worker->busy_ns, start);
        metrics_count_batch(worker->metrics, count, count == worker->sizes.max);
        enum status status = run_batch(worker, count);
        if (status == STATUS_OK)
            metrics_time_batch(worker->metrics, count, clock_ns() - start);
        else
            log_error("a batch of %d images failed: %s", count, status_detail(status));
        // Before its clients can know: who has seen a 500 does not find us ready.
        atomic_store(&worker->failing, status != STATUS_OK);
        queue_finish(worker->queue, worker->batch, count, status);
        if (status == STATUS_DEVICE_FAILED) {
            queue_fail(worker->queue);
            worker->failed(worker->context);
            break;
        }
        if (status != STATUS_OK)
            recover(worker);
        atomic_store(&worker->busy_ns, 0);
    }
    return NULL;
}

enum status worker_start(struct queue *queue, struct vit_run *run, struct metrics *metrics,
                         struct batch_sizes sizes, int classes, worker_failed_fn failed,
                         void *context, struct worker **out)
{
    struct worker *worker = calloc(1, sizeof *worker + sizeof *worker->batch * (size_t)sizes.max);
    if (!worker)
        return status_fail(STATUS_OUT_OF_MEMORY, "worker: out of memory");
    worker->queue = queue;
    worker->run = run;
    worker->metrics = metrics;
    worker->sizes = sizes;
    worker->classes = classes;
    worker->failed = failed;
    worker->context = context;
    int error = pthread_create(&worker->thread, NULL, work, worker);
    if (error) {
        free(worker);
        return status_fail(STATUS_INTERNAL, "worker: cannot start a thread: %s", strerror(error));
    }
    *out = worker;
    return STATUS_OK;
}

void worker_join(struct worker *worker)
{
    if (!worker)
        return;
    pthread_join(worker->thread, NULL);
    free(worker);
}
