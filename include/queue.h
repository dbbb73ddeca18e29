#pragma once
// The bounded queue between the HTTP threads and the workers. It owns one slot per image: room for
// the pixels that go in and the logits that come out, allocated once.
//
// A request takes all its slots before it decodes anything (a ticket), fills and submits them one
// by one, and waits for the ticket. A worker takes everything that waits, up to its batch size, one
// image of each request in turn, and never waits for more. Every submitted job is finished exactly
// once; nothing is allocated between queue_reserve() and ticket_release().
//
// Threads: every function may be called from any thread; a ticket belongs to one request thread.

#include "client.h"
#include "status.h"
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue;
struct ticket;

// How many images a worker takes: at most `max`, of each request one; more of a request only until
// there are `bulk`, so that a request of many does not keep the next one waiting for its batch.
struct batch_sizes {
    int max, bulk;
};

// One image on its way through the engine. The request thread owns it until queue_submit() and
// again once ticket_wait() has returned. Whoever fills a job for the request may submit it.
struct job {
    uint8_t *pixels;       // (S, S, 3), filled before submit
    float *logits;         // (K), filled by the worker
    enum status status;    // of the job, once finished
    int batch;             // how many images shared its batch
    int64_t queued_ns;     // from submit until a worker took it
    int64_t infer_ns;      // from there until it was finished
    struct ticket *ticket; // private to queue.c, as is all below
    struct job *next;
    int64_t submitted_ns, taken_ns;
};

// The slots of one request. Set up by queue_reserve().
struct ticket {
    struct queue *queue;
    struct client client;
    struct job **jobs; // (count), the caller's array
    int count;
    pthread_cond_t done;
    int pending; // submitted and not yet finished; guarded by the queue's mutex, as is all below
    struct job *first, *last; // those that wait, oldest first
    struct ticket *next;      // whose turn is next
};

// `pixels` (capacity * pixel_bytes) belongs to the caller, who chose memory that the device reads
// fast; it outlives the queue.
enum status queue_create(int capacity, uint8_t *pixels, size_t pixel_bytes, int classes,
                         struct queue **queue) CHECKED;
void queue_free(struct queue *queue);

// What still waits at the client's deadline is finished as STATUS_DEADLINE; what is about to go
// into a batch when the client has gone, as STATUS_CANCELLED.
//
// All `count` slots or none. jobs is an array of count pointers that lives as long as the ticket.
// Wakes a worker, so that it is there when the first job comes. STATUS_QUEUE_FULL,
// STATUS_TOO_MANY_IMAGES (more than the queue can ever hold), STATUS_DRAINING (closed),
// STATUS_DEVICE_FAILED.
enum status queue_reserve(struct queue *queue, const struct client *client, int count,
                          struct job **jobs, struct ticket *ticket) CHECKED;
void queue_submit(struct job *job);
void ticket_wait(struct ticket *ticket);    // until every submitted job is finished
void ticket_release(struct ticket *ticket); // gives all slots back

// For workers: waits for at least one job that somebody wants, then takes up to sizes.max of them,
// one of each request in turn, oldest first. Returns 0 when the queue is closed and empty.
int queue_take(struct queue *queue, struct job **jobs, struct batch_sizes sizes);
void queue_finish(struct queue *queue, struct job **jobs, int count, enum status status);

// No more reservations; what was submitted is still served.
void queue_close(struct queue *queue);
bool queue_closed(struct queue *queue);
// The device is lost: what waits is finished as STATUS_DEVICE_FAILED, and so is every reservation.
void queue_fail(struct queue *queue);

int queue_length(struct queue *queue); // images that are reserved, wait or are in work

// Seconds until a slot is likely to be free, from the rate of the last batches; at least 1.
int queue_retry_after(struct queue *queue);
