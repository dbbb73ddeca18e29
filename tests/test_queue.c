// The queue, alone and under many threads; also built with ThreadSanitizer. Its times are in
// test_queue_times.c, whose turn it is in test_queue_turns.c.

#include "clock.h"
#include "small_queue.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void test_slots_are_apart(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    struct job *jobs[CAPACITY];
    struct ticket ticket;
    assert_int_equal(queue_reserve(queue, &patient, CAPACITY, jobs, &ticket), STATUS_OK);
    for (int i = 0; i < CAPACITY; i++)
        for (int j = 0; j < i; j++) {
            assert_true(labs(jobs[i]->pixels - jobs[j]->pixels) >= PIXEL_BYTES);
            assert_true(labs(jobs[i]->logits - jobs[j]->logits) >= CLASSES);
        }
    ticket_release(&ticket);
    queue_free(queue);
}

// All slots of a request, or none; what is given back can be had again.
static void test_reserve(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    struct job *jobs[CAPACITY + 1], *more[CAPACITY];
    struct ticket first, second;
    assert_int_equal(queue_reserve(queue, &patient, CAPACITY + 1, jobs, &first),
                     STATUS_TOO_MANY_IMAGES);
    assert_int_equal(queue_reserve(queue, &patient, CAPACITY - 2, jobs, &first), STATUS_OK);
    assert_int_equal(queue_length(queue), CAPACITY - 2);
    assert_int_equal(queue_reserve(queue, &patient, 3, more, &second), STATUS_QUEUE_FULL);
    assert_int_equal(queue_reserve(queue, &patient, 2, more, &second), STATUS_OK);
    assert_int_equal(queue_length(queue), CAPACITY);
    ticket_release(&first);
    assert_int_equal(queue_length(queue), 2);
    assert_int_equal(queue_reserve(queue, &patient, CAPACITY - 2, jobs, &first), STATUS_OK);
    ticket_release(&first);
    ticket_release(&second);
    assert_false(queue_closed(queue));
    queue_close(queue);
    assert_true(queue_closed(queue));
    assert_int_equal(queue_reserve(queue, &patient, 1, jobs, &first), STATUS_DRAINING);
    queue_free(queue);
}

// A worker takes what waits, oldest first, and never more than its batch.
static void test_take(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    struct job *jobs[5], *batch[4];
    struct ticket ticket;
    assert_int_equal(queue_reserve(queue, &patient, 5, jobs, &ticket), STATUS_OK);
    for (int i = 0; i < 5; i++)
        queue_submit(jobs[i]);
    assert_int_equal(queue_take(queue, batch, up_to(4)), 4);
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(batch[i], jobs[i]);
    queue_finish(queue, batch, 4, STATUS_OK);
    assert_int_equal(queue_take(queue, batch, up_to(4)), 1);
    assert_ptr_equal(batch[0], jobs[4]);
    queue_finish(queue, batch, 1, STATUS_DEADLINE);
    ticket_wait(&ticket);
    assert_int_equal(jobs[0]->status, STATUS_OK);
    assert_int_equal(jobs[0]->batch, 4);
    assert_int_equal(jobs[4]->status, STATUS_DEADLINE);
    assert_int_equal(jobs[4]->batch, 1);
    ticket_release(&ticket);
    queue_close(queue);
    assert_int_equal(queue_take(queue, batch, up_to(4)), 0);
    queue_free(queue);
}

// A slot that is given back unused, and a ticket of which nothing was submitted.
static void test_wait_without_jobs(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    struct job *jobs[2];
    struct ticket ticket;
    assert_int_equal(queue_reserve(queue, &patient, 2, jobs, &ticket), STATUS_OK);
    ticket_wait(&ticket);
    ticket_release(&ticket);
    assert_int_equal(queue_retry_after(queue), 1);
    queue_free(queue);
}

// Once the device is lost, what waits ends, and so does what comes.
static void test_fail(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    struct job *jobs[3], *other[1], *batch[1];
    struct ticket ticket, next;
    assert_int_equal(queue_reserve(queue, &patient, 3, jobs, &ticket), STATUS_OK);
    queue_submit(jobs[0]);
    queue_submit(jobs[1]);
    assert_int_equal(queue_take(queue, batch, up_to(1)), 1);
    queue_finish(queue, batch, 1, STATUS_DEVICE_FAILED);
    queue_fail(queue);
    queue_submit(jobs[2]);
    ticket_wait(&ticket);
    for (int i = 0; i < 3; i++)
        assert_int_equal(jobs[i]->status, STATUS_DEVICE_FAILED);
    ticket_release(&ticket);
    assert_int_equal(queue_reserve(queue, &patient, 1, other, &next), STATUS_DEVICE_FAILED);
    assert_int_equal(queue_take(queue, batch, up_to(1)), 0);
    queue_free(queue);
}

static void *take_one(void *queue)
{
    struct job *batch[1];
    return queue_take(queue, batch, up_to(1)) == 0 ? queue : NULL;
}

// Workers that sleep, or are about to, learn of it.
static void test_fail_beside_workers(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    pthread_t workers[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&workers[i], NULL, take_one, queue), 0);
    usleep(20 * 1000); // most likely they sleep by now
    queue_fail(queue);
    for (int i = 0; i < 2; i++) {
        void *none;
        pthread_join(workers[i], &none);
        assert_ptr_equal(none, queue);
    }
    queue_free(queue);
}

// What still waits at the deadline is taken back, in whatever order it stands.
static void test_deadline(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    struct client hurried = {.deadline_ns = clock_ns() + 20 * 1000000};
    struct job *jobs[4], *other[2], *batch[CAPACITY];
    struct ticket ticket, next;
    assert_int_equal(queue_reserve(queue, &hurried, 4, jobs, &ticket), STATUS_OK);
    assert_int_equal(queue_reserve(queue, &patient, 2, other, &next), STATUS_OK);
    queue_submit(jobs[0]);
    queue_submit(other[0]);
    queue_submit(jobs[1]);
    queue_submit(other[1]);
    queue_submit(jobs[2]);
    ticket_wait(&ticket);
    for (int i = 0; i < 3; i++)
        assert_int_equal(jobs[i]->status, STATUS_DEADLINE);
    assert_true(clock_ns() >= hurried.deadline_ns);
    queue_submit(jobs[3]); // too late already: it joins the list, and is found at its end
    ticket_wait(&ticket);
    assert_int_equal(jobs[3]->status, STATUS_DEADLINE);
    assert_int_equal(queue_take(queue, batch, up_to(CAPACITY)), 2);
    assert_ptr_equal(batch[0], other[0]);
    assert_ptr_equal(batch[1], other[1]);
    queue_finish(queue, batch, 2, STATUS_OK);
    ticket_wait(&next);
    ticket_release(&ticket);
    ticket_release(&next);
    assert_int_equal(queue_length(queue), 0);
    queue_free(queue);
}

struct slow_worker {
    struct queue *queue;
    struct job *batch[1];
    atomic_bool done;
};

static void *finish_late(void *argument)
{
    struct slow_worker *worker = argument;
    usleep(50 * 1000);
    atomic_store(&worker->done, true);
    queue_finish(worker->queue, worker->batch, 1, STATUS_OK);
    return NULL;
}

static void test_deadline_of_what_a_worker_has(void **state)
{
    (void)state;
    struct slow_worker worker = {.queue = open_queue()};
    const struct client late = {.deadline_ns = 1};
    struct job *job;
    struct ticket ticket;
    pthread_t thread;
    assert_int_equal(queue_reserve(worker.queue, &late, 1, &job, &ticket), STATUS_OK);
    queue_submit(job);
    assert_int_equal(queue_take(worker.queue, worker.batch, up_to(1)), 1);
    assert_int_equal(pthread_create(&thread, NULL, finish_late, &worker), 0);
    ticket_wait(&ticket);
    assert_true(atomic_load(&worker.done));
    assert_int_equal(job->status, STATUS_OK);
    pthread_join(thread, NULL);
    ticket_release(&ticket);
    queue_free(worker.queue);
}

static bool is_gone(void *context)
{
    return *(bool *)context;
}

// Nobody waits for the result: the job is finished, but never part of a batch.
static void test_gone(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    bool gone = false;
    struct client client = {.deadline_ns = INT64_MAX, .gone = is_gone, .context = &gone};
    struct job *jobs[2], *other[1], *batch[CAPACITY];
    struct ticket ticket, next;
    assert_int_equal(queue_reserve(queue, &client, 2, jobs, &ticket), STATUS_OK);
    assert_int_equal(queue_reserve(queue, &patient, 1, other, &next), STATUS_OK);
    queue_submit(jobs[0]);
    assert_int_equal(queue_take(queue, batch, up_to(CAPACITY)), 1);
    queue_finish(queue, batch, 1, STATUS_OK);
    gone = true;
    queue_submit(jobs[1]);
    queue_submit(other[0]);
    assert_int_equal(queue_take(queue, batch, up_to(CAPACITY)), 1);
    assert_ptr_equal(batch[0], other[0]);
    queue_finish(queue, batch, 1, STATUS_OK);
    ticket_wait(&ticket);
    assert_int_equal(jobs[0]->status, STATUS_OK);
    assert_int_equal(jobs[1]->status, STATUS_CANCELLED);
    ticket_release(&ticket);
    ticket_release(&next);
    queue_free(queue);
}

// ---- many threads -------------------------------------------------------------------------------

enum { CLIENTS = 8, REQUESTS = 400, WORKERS = 2, BATCH = 5 };

static atomic_int served, refused, batches;

static void *client(void *context)
{
    struct queue *queue = context;
    struct job *jobs[4];
    struct ticket ticket;
    unsigned random = (unsigned)(uintptr_t)&ticket;
    for (int request = 0; request < REQUESTS;) {
        int count = (int)(rand_r(&random) % 4) + 1;
        if (queue_reserve(queue, &patient, count, jobs, &ticket) != STATUS_OK) {
            atomic_fetch_add(&refused, 1);
            usleep(50);
            continue;
        }
        for (int i = 0; i < count; i++) {
            memset(jobs[i]->pixels, rand_r(&random) % 256, PIXEL_BYTES);
            queue_submit(jobs[i]);
        }
        ticket_wait(&ticket);
        for (int i = 0; i < count; i++) {
            assert_int_equal(jobs[i]->status, STATUS_OK);
            assert_true(jobs[i]->logits[0] == (float)jobs[i]->pixels[0]);
            assert_true(jobs[i]->logits[2] == (float)jobs[i]->pixels[PIXEL_BYTES - 1]);
            assert_in_range(jobs[i]->batch, 1, BATCH);
        }
        ticket_release(&ticket);
        atomic_fetch_add(&served, count);
        request++;
    }
    return NULL;
}

static void *echo_worker(void *context)
{
    struct queue *queue = context;
    struct job *batch[BATCH];
    int count;
    while ((count = queue_take(queue, batch, up_to(BATCH))) > 0) {
        for (int i = 0; i < count; i++) {
            batch[i]->logits[0] = batch[i]->pixels[0];
            batch[i]->logits[2] = batch[i]->pixels[PIXEL_BYTES - 1];
        }
        queue_finish(queue, batch, count, STATUS_OK);
        atomic_fetch_add(&batches, 1);
    }
    return NULL;
}

static double cpu_seconds_of(pthread_t thread)
{
    clockid_t clock;
    struct timespec used;
    assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
    assert_int_equal(clock_gettime(clock, &used), 0);
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec;
}

// A worker that a reservation has woken is served soon, or sleeps again and is served late.
static void test_late_submit(void **state)
{
    (void)state;
    const useconds_t late[] = {500, 400 * 1000, 500};
    struct queue *queue = open_queue();
    pthread_t worker;
    assert_int_equal(pthread_create(&worker, NULL, echo_worker, queue), 0);
    for (int i = 0; i < 3; i++) {
        struct job *job;
        struct ticket ticket;
        usleep(20 * 1000); // until the worker sleeps
        assert_int_equal(queue_reserve(queue, &patient, 1, &job, &ticket), STATUS_OK);
        usleep(late[i]);
        job->pixels[0] = (uint8_t)(i + 1);
        queue_submit(job);
        ticket_wait(&ticket);
        assert_int_equal((int)job->logits[0], i + 1);
        ticket_release(&ticket);
    }
    assert_true(cpu_seconds_of(worker) < 0.1);
    queue_close(queue);
    pthread_join(worker, NULL);
    queue_free(queue);
}

static void test_many_threads(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    pthread_t clients[CLIENTS], workers[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&workers[i], NULL, echo_worker, queue), 0);
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&clients[i], NULL, client, queue), 0);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(clients[i], NULL);
    queue_close(queue);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    assert_true(atomic_load(&served) >= CLIENTS * REQUESTS);
    assert_true(atomic_load(&batches) <= atomic_load(&served));
    print_message("%d images in %d batches, %d requests refused\n", atomic_load(&served),
                  atomic_load(&batches), atomic_load(&refused));
    struct job *jobs[CAPACITY];
    struct ticket ticket;
    assert_int_equal(queue_reserve(queue, &patient, 1, jobs, &ticket), STATUS_DRAINING);
    queue_free(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_are_apart),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_take),
        cmocka_unit_test(test_wait_without_jobs),
        cmocka_unit_test(test_fail),
        cmocka_unit_test(test_fail_beside_workers),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_deadline_of_what_a_worker_has),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_late_submit),
        cmocka_unit_test(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
