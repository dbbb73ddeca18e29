// DESIGN. One mutex guards the lists and the counts; pixels and logits are never touched under it.
// Slots move free list -> request (reserved) -> waiting list -> worker -> request -> free list.
// Each request has a waiting list of its own, and those that are not empty wait in a ring: a worker
// takes one image of each in turn, so a request of many images does not keep the others waiting.
// Workers sleep on `work`; each request sleeps on the condition of its own ticket, so a finished
// batch wakes just the requests that it served.

#include "queue.h"
#include "clock.h"
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

struct queue {
    int capacity;
    struct job *jobs; // (capacity)
    float *logits;    // (capacity, K)

    pthread_mutex_t mutex; // guards everything below
    pthread_cond_t work;
    struct job *free;
    int n_free;
    struct ticket *first, *last; // those with jobs that wait, in the order of their turns
    int batches;                 // in work
    bool closed, failed;
    double seconds_per_image; // moving average over batches, 0 before the first
};

enum status queue_create(int capacity, uint8_t *pixels, size_t pixel_bytes, int classes,
                         struct queue **out)
{
    struct queue *queue = calloc(1, sizeof *queue);
    struct job *jobs = calloc((size_t)capacity, sizeof *jobs);
    float *logits = calloc((size_t)capacity * (size_t)classes, sizeof *logits);
    if (!queue || !jobs || !logits) {
        free(queue);
        free(jobs);
        free(logits);
        return status_fail(STATUS_OUT_OF_MEMORY, "queue: no memory for %d images", capacity);
    }
    *queue = (struct queue){.capacity = capacity, .jobs = jobs, .logits = logits};
    for (int i = 0; i < capacity; i++) {
        jobs[i].pixels = pixels + (size_t)i * pixel_bytes;
        jobs[i].logits = logits + (size_t)i * (size_t)classes;
        jobs[i].next = queue->free;
        queue->free = &jobs[i];
    }
    queue->n_free = capacity;
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->work, NULL);
    *out = queue;
    return STATUS_OK;
}

void queue_free(struct queue *queue)
{
    if (!queue)
        return;
    pthread_cond_destroy(&queue->work);
    pthread_mutex_destroy(&queue->mutex);
    free(queue->jobs);
    free(queue->logits);
    free(queue);
}

static enum status admit(struct queue *queue, int count)
{
    if (queue->failed)
        return status_fail(STATUS_DEVICE_FAILED, "the device failed");
    if (queue->closed)
        return status_fail(STATUS_DRAINING, "the server is shutting down");
    if (count > queue->capacity)
        return status_fail(STATUS_TOO_MANY_IMAGES,
                           "%d images in one request, but the queue holds at most %d", count,
                           queue->capacity);
    if (count > queue->n_free)
        return status_fail(STATUS_QUEUE_FULL, "the queue is full (%d images)", queue->capacity);
    return STATUS_OK;
}

// Its time runs on the clock of clock_ns().
static void init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

enum status queue_reserve(struct queue *queue, const struct client *client, int count,
                          struct job **jobs, struct ticket *ticket)
{
    pthread_mutex_lock(&queue->mutex);
    enum status status = admit(queue, count);
    if (status == STATUS_OK) {
        *ticket = (struct ticket){.queue = queue, .client = *client, .jobs = jobs, .count = count};
        init_condition(&ticket->done);
        for (int i = 0; i < count; i++) {
            jobs[i] = queue->free;
            queue->free = jobs[i]->next;
            jobs[i]->ticket = ticket;
        }
        queue->n_free -= count;
        pthread_cond_signal(&queue->work);
    }
    pthread_mutex_unlock(&queue->mutex);
    return status;
}

// Finishes a job; the caller holds the mutex.
static void finish(struct job *job, enum status status)
{
    job->status = status;
    if (--job->ticket->pending == 0)
        pthread_cond_signal(&job->ticket->done);
}

// The caller of either holds the mutex.
static void add_turn(struct queue *queue, struct ticket *ticket)
{
    ticket->next = NULL;
    if (queue->first)
        queue->last->next = ticket;
    else
        queue->first = ticket;
    queue->last = ticket;
}

static void add_job(struct ticket *ticket, struct job *job)
{
    job->next = NULL;
    if (ticket->first)
        ticket->last->next = job;
    else
        ticket->first = job;
    ticket->last = job;
}

void queue_submit(struct job *job)
{
    struct ticket *ticket = job->ticket;
    struct queue *queue = ticket->queue;
    pthread_mutex_lock(&queue->mutex);
    ticket->pending++;
    job->batch = 0;
    job->queued_ns = job->infer_ns = 0;
    job->submitted_ns = clock_ns();
    if (queue->failed) {
        finish(job, STATUS_DEVICE_FAILED);
    } else {
        if (!ticket->first)
            add_turn(queue, ticket);
        add_job(ticket, job);
        pthread_cond_signal(&queue->work);
    }
    pthread_mutex_unlock(&queue->mutex);
}

// Finishes what waits of a ticket that is in no ring; the caller holds the mutex.
static void finish_waiting(struct ticket *ticket, enum status status)
{
    while (ticket->first) {
        struct job *job = ticket->first;
        ticket->first = job->next;
        finish(job, status);
    }
}

// Ends the ticket's turns; the caller holds the mutex.
static void expire(struct ticket *ticket)
{
    struct queue *queue = ticket->queue;
    struct ticket *before = NULL, *at = queue->first;
    while (at && at != ticket) {
        before = at;
        at = at->next;
    }
    if (!at)
        return;
    *(before ? &before->next : &queue->first) = ticket->next;
    if (queue->last == ticket)
        queue->last = before;
    finish_waiting(ticket, STATUS_DEADLINE);
}

// What a worker has taken by the deadline is waited for: its slot is in use.
void ticket_wait(struct ticket *ticket)
{
    pthread_mutex_t *mutex = &ticket->queue->mutex;
    int64_t deadline = ticket->client.deadline_ns;
    const struct timespec until = {.tv_sec = deadline / 1000000000,
                                   .tv_nsec = deadline % 1000000000};
    pthread_mutex_lock(mutex);
    int error = 0;
    while (ticket->pending > 0 && error == 0)
        error = pthread_cond_timedwait(&ticket->done, mutex, &until);
    if (error == ETIMEDOUT)
        expire(ticket);
    while (ticket->pending > 0)
        pthread_cond_wait(&ticket->done, mutex);
    pthread_mutex_unlock(mutex);
}

void ticket_release(struct ticket *ticket)
{
    struct queue *queue = ticket->queue;
    pthread_mutex_lock(&queue->mutex);
    for (int i = 0; i < ticket->count; i++) {
        ticket->jobs[i]->ticket = NULL;
        ticket->jobs[i]->next = queue->free;
        queue->free = ticket->jobs[i];
    }
    queue->n_free += ticket->count;
    pthread_mutex_unlock(&queue->mutex);
    pthread_cond_destroy(&ticket->done);
}

// Lets others run. Where there are some, who gave way is kept waiting for much longer than who
// sleeps and is woken: false then.
static bool core_is_free(void)
{
    const int64_t before = clock_ns();
    sched_yield();
    return clock_ns() - before < 200 * 1000;
}

// To wake a thread takes 0.1 ms on a virtual machine: a reservation wakes a worker while the
// picture is still to be decoded, and the worker looks for it about as long as that takes.
static void look_for_work(struct queue *queue)
{
    const int64_t until = clock_ns() + 2 * 1000 * 1000;
    bool go_on = true;
    while (go_on && !queue->first && !queue->closed && !queue->failed) {
        pthread_mutex_unlock(&queue->mutex);
        for (int i = 0; go_on && i < 16; i++)
            go_on = core_is_free() && clock_ns() < until;
        pthread_mutex_lock(&queue->mutex);
    }
}

// The first image of the request whose turn it is; the caller holds the mutex.
static struct job *take_turn(struct queue *queue)
{
    struct ticket *ticket = queue->first;
    struct job *job = ticket->first;
    queue->first = ticket->next;
    ticket->first = job->next;
    if (ticket->first)
        add_turn(queue, ticket);
    return job;
}

static int take_waiting(struct queue *queue, struct job **jobs, struct batch_sizes sizes)
{
    pthread_mutex_lock(&queue->mutex);
    while (!queue->first && !queue->closed && !queue->failed) {
        pthread_cond_wait(&queue->work, &queue->mutex);
        look_for_work(queue);
    }
    int count = 0;
    int64_t now = clock_ns();
    const struct ticket *end = queue->last;
    for (bool first = true; queue->first && count < (first ? sizes.max : sizes.bulk); count++) {
        first = first && queue->first != end;
        struct job *job = jobs[count] = take_turn(queue);
        job->taken_ns = now;
        job->queued_ns = now - job->submitted_ns;
    }
    queue->batches += count > 0;
    pthread_mutex_unlock(&queue->mutex);
    return count;
}

// Finishes those of the jobs that nobody wants any more; returns how many are left. A job that is
// taken keeps its request waiting, and so the client's context alive.
static int drop_cancelled(struct queue *queue, struct job **jobs, int count)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        const struct client *client = &jobs[i]->ticket->client;
        if (!client->gone || !client->gone(client->context)) {
            jobs[kept++] = jobs[i];
            continue;
        }
        pthread_mutex_lock(&queue->mutex);
        finish(jobs[i], STATUS_CANCELLED);
        pthread_mutex_unlock(&queue->mutex);
    }
    return kept;
}

int queue_take(struct queue *queue, struct job **jobs, struct batch_sizes sizes)
{
    for (;;) {
        int count = take_waiting(queue, jobs, sizes);
        int kept = drop_cancelled(queue, jobs, count);
        if (kept > 0 || count == 0)
            return kept;
        pthread_mutex_lock(&queue->mutex);
        queue->batches--;
        pthread_mutex_unlock(&queue->mutex);
    }
}

void queue_finish(struct queue *queue, struct job **jobs, int count, enum status status)
{
    // The weight of the newest batch in the average: about the last ten batches count.
    const double newest = 0.1;

    int64_t now = clock_ns();
    pthread_mutex_lock(&queue->mutex);
    double seconds = (double)(now - jobs[0]->taken_ns) * 1e-9 / count / queue->batches;
    queue->batches--;
    queue->seconds_per_image = queue->seconds_per_image > 0.0
                                   ? (1.0 - newest) * queue->seconds_per_image + newest * seconds
                                   : seconds;
    for (int i = 0; i < count; i++) {
        jobs[i]->batch = count;
        jobs[i]->infer_ns = now - jobs[i]->taken_ns;
        finish(jobs[i], status);
    }
    pthread_mutex_unlock(&queue->mutex);
}

void queue_close(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->closed = true;
    pthread_cond_broadcast(&queue->work);
    pthread_mutex_unlock(&queue->mutex);
}

bool queue_closed(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    bool closed = queue->closed;
    pthread_mutex_unlock(&queue->mutex);
    return closed;
}

void queue_fail(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->failed = true;
    while (queue->first) {
        struct ticket *ticket = queue->first;
        queue->first = ticket->next;
        finish_waiting(ticket, STATUS_DEVICE_FAILED);
    }
    pthread_cond_broadcast(&queue->work);
    pthread_mutex_unlock(&queue->mutex);
}

int queue_length(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    int length = queue->capacity - queue->n_free;
    pthread_mutex_unlock(&queue->mutex);
    return length;
}

int queue_retry_after(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    double seconds = queue->seconds_per_image * (queue->capacity - queue->n_free);
    pthread_mutex_unlock(&queue->mutex);
    return seconds < 1.0 ? 1 : seconds > 3600.0 ? 3600 : (int)(seconds + 0.999);
}
