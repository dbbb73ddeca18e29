// What the queue makes of the time that batches take: Retry-After, and the times of each image. The
// clock is the test's, and stands still until it is moved.

#include "small_queue.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

static const int64_t SECOND_NS = 1000000000, MS_NS = 1000000;

static int64_t now_ns = 5000000000;

int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    (void)clock;
    *time = (struct timespec){now_ns / SECOND_NS, now_ns % SECOND_NS};
    return 0;
}

// A queue whose slots all belong to one request.
static struct queue *queue;
static struct job *jobs[CAPACITY];
static struct ticket ticket;

static void open_for(const struct client *client)
{
    queue = open_queue();
    assert_int_equal(queue_reserve(queue, client, CAPACITY, jobs, &ticket), STATUS_OK);
}

static void close_queue(void)
{
    ticket_wait(&ticket);
    ticket_release(&ticket);
    assert_int_equal(queue_retry_after(queue), 1); // nobody is ahead
    queue_free(queue);
}

// Jobs first ... first + count - 1 are taken as one batch.
static void take(int first, int count)
{
    struct job *batch[CAPACITY];
    for (int i = first; i < first + count; i++)
        queue_submit(jobs[i]);
    assert_int_equal(queue_take(queue, batch, up_to(count)), count);
    for (int i = 0; i < count; i++)
        assert_ptr_equal(batch[i], jobs[first + i]);
}

static void finish(int first, int count)
{
    queue_finish(queue, jobs + first, count, STATUS_OK);
}

static void run(int first, int count, int64_t ns)
{
    take(first, count);
    now_ns += ns;
    finish(first, count);
}

// ---- Retry-After --------------------------------------------------------------------------------

static void test_nothing_has_run(void **state)
{
    (void)state;
    open_for(&patient);
    assert_int_equal(queue_retry_after(queue), 1);
    close_queue();
}

// The seconds of an image times the slots that are in use, rounded up.
static void test_one_image_at_a_time(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        int seconds;
    } cases[] = {{0, 1},     {62, 1},        {63, 2},        {300, 5},        {1000, 16},
                 {1031, 17}, {225000, 3600}, {225100, 3600}, {10000000, 3600}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_for(&patient);
        run(0, 1, cases[i].ms * MS_NS);
        assert_int_equal(queue_retry_after(queue), cases[i].seconds);
        close_queue();
    }
}

static void test_slots_that_are_given_back(void **state)
{
    (void)state;
    struct job *more[CAPACITY];
    struct ticket next;
    open_for(&patient);
    run(0, 1, 10 * SECOND_NS);
    assert_int_equal(queue_retry_after(queue), 160);
    ticket_wait(&ticket);
    ticket_release(&ticket);
    assert_int_equal(queue_retry_after(queue), 1);
    assert_int_equal(queue_reserve(queue, &patient, 3, more, &next), STATUS_OK);
    assert_int_equal(queue_retry_after(queue), 30);
    ticket_release(&next);
    queue_free(queue);
}

static void test_images_share_the_time_of_their_batch(void **state)
{
    (void)state;
    open_for(&patient);
    run(0, 4, 10 * SECOND_NS);
    assert_int_equal(queue_retry_after(queue), 40);
    close_queue();
}

static void test_batches_side_by_side(void **state)
{
    (void)state;
    open_for(&patient);
    take(0, 1);
    take(1, 1);
    now_ns += 10 * SECOND_NS;
    finish(0, 1); // while the other is in work: as good as half the time
    assert_int_equal(queue_retry_after(queue), 80);
    finish(1, 1); // alone by now: 0.9 x 5 s + 0.1 x 10 s
    assert_int_equal(queue_retry_after(queue), 88);
    close_queue();
}

// The newest batch counts for a tenth.
static void test_the_rate_follows_the_batches(void **state)
{
    (void)state;
    open_for(&patient);
    run(0, 1, 10 * SECOND_NS);
    run(1, 1, 0);
    assert_int_equal(queue_retry_after(queue), 144);
    run(2, 2, 30 * SECOND_NS); // 0.9 x 9 s + 0.1 x 15 s
    assert_int_equal(queue_retry_after(queue), 154);
    close_queue();
}

static bool is_gone(void *context)
{
    return *(bool *)context;
}

// What nobody wants any more takes no time: neither a batch of such jobs alone, which is none, nor
// those that leave a batch.
static void test_cancelled_jobs(void **state)
{
    (void)state;
    bool gone = true;
    struct client client = {.deadline_ns = INT64_MAX, .gone = is_gone, .context = &gone};
    struct job *batch[CAPACITY], *left;
    struct ticket others;
    queue = open_queue();
    assert_int_equal(queue_reserve(queue, &client, CAPACITY - 1, jobs, &ticket), STATUS_OK);
    assert_int_equal(queue_reserve(queue, &patient, 1, &left, &others), STATUS_OK);
    queue_close(queue);
    queue_submit(jobs[0]);
    queue_submit(jobs[1]);
    assert_int_equal(queue_take(queue, batch, up_to(CAPACITY)), 0);

    queue_submit(jobs[2]);
    queue_submit(left);
    queue_submit(jobs[3]);
    assert_int_equal(queue_take(queue, batch, up_to(CAPACITY)), 1);
    assert_ptr_equal(batch[0], left);
    now_ns += 10 * SECOND_NS;
    queue_finish(queue, batch, 1, STATUS_OK);
    assert_int_equal(queue_retry_after(queue), 160);
    assert_int_equal(left->batch, 1);
    ticket_wait(&others);
    ticket_release(&others);
    for (int i = 0; i < 4; i++)
        assert_int_equal(jobs[i]->status, STATUS_CANCELLED);
    close_queue();
}

// ---- the times of an image ----------------------------------------------------------------------

static void test_queued_and_then_in_work(void **state)
{
    (void)state;
    struct job *batch[CAPACITY];
    open_for(&patient);
    now_ns += 70 * MS_NS; // which the picture takes to decode
    queue_submit(jobs[0]);
    now_ns += 20 * MS_NS;
    queue_submit(jobs[1]);
    now_ns += 3 * MS_NS;
    assert_int_equal(queue_take(queue, batch, up_to(CAPACITY)), 2);
    now_ns += 500 * MS_NS;
    queue_finish(queue, batch, 2, STATUS_OK);
    now_ns += 11 * MS_NS;
    ticket_wait(&ticket);
    assert_int_equal(jobs[0]->queued_ns, 23 * MS_NS);
    assert_int_equal(jobs[1]->queued_ns, 3 * MS_NS);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(jobs[i]->infer_ns, 500 * MS_NS);
        assert_int_equal(jobs[i]->batch, 2);
    }
    close_queue();
}

// A slot keeps nothing of the image that had it before.
static void test_times_of_what_never_ran(void **state)
{
    (void)state;
    const struct client late = {.deadline_ns = 1};
    open_for(&patient);
    run(0, CAPACITY, SECOND_NS);
    ticket_wait(&ticket);
    ticket_release(&ticket);
    assert_int_equal(queue_reserve(queue, &late, CAPACITY, jobs, &ticket), STATUS_OK);
    for (int i = 0; i < CAPACITY; i++)
        queue_submit(jobs[i]);
    ticket_wait(&ticket);
    for (int i = 0; i < CAPACITY; i++) {
        assert_int_equal(jobs[i]->status, STATUS_DEADLINE);
        assert_int_equal(jobs[i]->queued_ns, 0);
        assert_int_equal(jobs[i]->infer_ns, 0);
        assert_int_equal(jobs[i]->batch, 0);
    }
    close_queue();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_has_run),
        cmocka_unit_test(test_one_image_at_a_time),
        cmocka_unit_test(test_slots_that_are_given_back),
        cmocka_unit_test(test_images_share_the_time_of_their_batch),
        cmocka_unit_test(test_batches_side_by_side),
        cmocka_unit_test(test_the_rate_follows_the_batches),
        cmocka_unit_test(test_cancelled_jobs),
        cmocka_unit_test(test_queued_and_then_in_work),
        cmocka_unit_test(test_times_of_what_never_ran),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
