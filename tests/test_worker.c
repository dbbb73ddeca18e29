// The worker beside a device that fails: what it says of itself by the time its clients know.

#include "clock.h"
#include "worker.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

enum { CAPACITY = 4, PIXEL_BYTES = 12, CLASSES = 3 };

static struct worker *worker;
static atomic_int outcome;         // of every forward pass
static atomic_int forwards;        // so far
static atomic_bool well_at_finish; // worker_well() when the last batch was finished
static atomic_bool lost;           // the worker has said so

enum status __wrap_vit_set_image(struct vit_run *run, int index, const uint8_t *image);
enum status __wrap_vit_forward(struct vit_run *run, int batch, const float **logits);
int64_t __wrap_vit_run_beat_ns(const struct vit_run *run);
void __wrap_queue_finish(struct queue *queue, struct job **jobs, int count, enum status status);
void __real_queue_finish(struct queue *queue, struct job **jobs, int count, enum status status);

enum status __wrap_vit_set_image(struct vit_run *run, int index, const uint8_t *image)
{
    (void)run, (void)index, (void)image;
    return STATUS_OK;
}

enum status __wrap_vit_forward(struct vit_run *run, int batch, const float **logits)
{
    static const float zeros[CAPACITY * CLASSES];
    (void)run, (void)batch;
    *logits = zeros;
    atomic_fetch_add(&forwards, 1);
    enum status status = (enum status)atomic_load(&outcome);
    return status == STATUS_OK ? status : status_fail(status, "this batch was to fail");
}

int64_t __wrap_vit_run_beat_ns(const struct vit_run *run)
{
    (void)run;
    return clock_ns();
}

void __wrap_queue_finish(struct queue *queue, struct job **jobs, int count, enum status status)
{
    atomic_store(&well_at_finish, worker_well(worker));
    __real_queue_finish(queue, jobs, count, status);
}

static void on_failed(void *context)
{
    (void)context;
    atomic_store(&lost, true);
}

static struct queue *queue;
static struct metrics *metrics;
static uint8_t pixels[CAPACITY * PIXEL_BYTES];

static int start(void **state)
{
    (void)state;
    atomic_store(&outcome, STATUS_OK);
    atomic_store(&lost, false);
    assert_int_equal(metrics_create(&metrics), STATUS_OK);
    assert_int_equal(queue_create(CAPACITY, pixels, PIXEL_BYTES, CLASSES, &queue), STATUS_OK);
    assert_int_equal(worker_start(queue, NULL, metrics, (struct batch_sizes){CAPACITY, CAPACITY},
                                  CLASSES, on_failed, NULL, &worker),
                     STATUS_OK);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    queue_close(queue);
    worker_join(worker);
    queue_free(queue);
    metrics_free(metrics);
    return 0;
}

static enum status classify_one(void)
{
    const struct client patient = {.deadline_ns = INT64_MAX};
    struct job *job;
    struct ticket ticket;
    assert_int_equal(queue_reserve(queue, &patient, 1, &job, &ticket), STATUS_OK);
    queue_submit(job);
    ticket_wait(&ticket);
    enum status status = job->status;
    ticket_release(&ticket);
    return status;
}

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static void test_a_good_batch(void **state)
{
    (void)state;
    assert_int_equal(classify_one(), STATUS_OK);
    assert_true(atomic_load(&well_at_finish));
}

static void test_a_failed_batch(void **state)
{
    (void)state;
    atomic_store(&outcome, STATUS_INTERNAL);
    assert_int_equal(classify_one(), STATUS_INTERNAL);
    assert_false(atomic_load(&well_at_finish));
    for (int tries = atomic_load(&forwards) + 2; atomic_load(&forwards) < tries; pause_ms(1))
        assert_false(worker_well(worker)); // it tries again, in vain
    atomic_store(&outcome, STATUS_OK);
    while (!worker_well(worker))
        pause_ms(1);
    assert_int_equal(classify_one(), STATUS_OK);
    assert_true(atomic_load(&well_at_finish));
    assert_false(atomic_load(&lost));
}

static void test_a_lost_device(void **state)
{
    (void)state;
    atomic_store(&outcome, STATUS_DEVICE_FAILED);
    assert_int_equal(classify_one(), STATUS_DEVICE_FAILED);
    assert_false(atomic_load(&well_at_finish));
    while (!atomic_load(&lost))
        pause_ms(1);
    assert_false(worker_well(worker));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_good_batch, start, stop),
        cmocka_unit_test_setup_teardown(test_a_failed_batch, start, stop),
        cmocka_unit_test_setup_teardown(test_a_lost_device, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
