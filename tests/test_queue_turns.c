// Whose images a worker takes next, and how many of one request.

#include "clock.h"
#include "small_queue.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static void reserve(struct queue *queue, const struct client *client, int count, struct job **jobs,
                    struct ticket *ticket)
{
    assert_int_equal(queue_reserve(queue, client, count, jobs, ticket), STATUS_OK);
}

static void submit_all(struct job **jobs, int count)
{
    for (int i = 0; i < count; i++)
        queue_submit(jobs[i]);
}

static void expect_batch(struct queue *queue, int count, struct job *const *expected)
{
    struct job *batch[4];
    assert_int_equal(queue_take(queue, batch, up_to(4)), count);
    assert_memory_equal(batch, expected, (size_t)count * sizeof *batch);
    queue_finish(queue, batch, count, STATUS_OK);
}

// One image of each request in turn: that of many does not keep the others waiting.
static void test_turns(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    struct job *a[7], *b[2], *c[2];
    struct ticket many, one, two;
    reserve(queue, &patient, 7, a, &many);
    reserve(queue, &patient, 2, b, &one);
    reserve(queue, &patient, 2, c, &two);
    submit_all(a, 6);
    submit_all(b, 1);
    submit_all(c, 2);
    expect_batch(queue, 4, (struct job *[]){a[0], b[0], c[0], a[1]});
    queue_submit(b[1]); // had its turn, and waits for the next like any other
    expect_batch(queue, 4, (struct job *[]){c[1], a[2], b[1], a[3]});
    queue_submit(a[6]);
    expect_batch(queue, 3, (struct job *[]){a[4], a[5], a[6]});
    ticket_wait(&many);
    ticket_wait(&one);
    ticket_wait(&two);
    ticket_release(&many);
    ticket_release(&one);
    ticket_release(&two);
    queue_free(queue);
}

// Further images of a request fill a batch only so far; the first of each always go in.
static void test_bulk(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    const struct batch_sizes sizes = {.max = 6, .bulk = 3};
    struct job *many[5], *one[6], *batch[6];
    struct ticket tickets[7];
    reserve(queue, &patient, 5, many, &tickets[6]);
    submit_all(many, 5);
    for (int i = 0; i < 6; i++) {
        reserve(queue, &patient, 1, &one[i], &tickets[i]);
        queue_submit(one[i]);
    }
    struct job *const first[] = {many[0], one[0], one[1], one[2], one[3], one[4]};
    assert_int_equal(queue_take(queue, batch, sizes), 6);
    assert_memory_equal(batch, first, sizeof first);
    queue_finish(queue, batch, 6, STATUS_OK);
    struct job *const second[] = {one[5], many[1], many[2]};
    assert_int_equal(queue_take(queue, batch, sizes), 3);
    assert_memory_equal(batch, second, sizeof second);
    queue_finish(queue, batch, 3, STATUS_OK);
    assert_int_equal(queue_take(queue, batch, sizes), 2);
    queue_finish(queue, batch, 2, STATUS_OK);
    for (int i = 0; i < 7; i++) {
        ticket_wait(&tickets[i]);
        ticket_release(&tickets[i]);
    }
    queue_free(queue);
}

// Where the first ones are enough for a batch, no request has a second in it.
static void test_more_than_bulk(void **state)
{
    (void)state;
    struct queue *queue = open_queue();
    const struct batch_sizes sizes = {.max = 6, .bulk = 3};
    struct job *many[2], *one[3], *batch[6];
    struct ticket tickets[4];
    reserve(queue, &patient, 2, many, &tickets[3]);
    submit_all(many, 2);
    for (int i = 0; i < 3; i++) {
        reserve(queue, &patient, 1, &one[i], &tickets[i]);
        queue_submit(one[i]);
    }
    struct job *const first[] = {many[0], one[0], one[1], one[2]};
    assert_int_equal(queue_take(queue, batch, sizes), 4);
    assert_memory_equal(batch, first, sizeof first);
    queue_finish(queue, batch, 4, STATUS_OK);
    assert_int_equal(queue_take(queue, batch, sizes), 1);
    assert_ptr_equal(batch[0], many[1]);
    queue_finish(queue, batch, 1, STATUS_OK);
    for (int i = 0; i < 4; i++) {
        ticket_wait(&tickets[i]);
        ticket_release(&tickets[i]);
    }
    queue_free(queue);
}

// The first, one in the middle or the last of the turns ends at its deadline; the others go on, and
// who comes afterwards has one.
static void test_turns_after_a_deadline(void **state)
{
    (void)state;
    for (int late = 0; late < 3; late++) {
        struct queue *queue = open_queue();
        const struct client hurried = {.deadline_ns = clock_ns() + 1000000};
        struct job *jobs[4][2];
        struct ticket tickets[4];
        for (int i = 0; i < 4; i++)
            reserve(queue, i == late ? &hurried : &patient, 2, jobs[i], &tickets[i]);
        for (int i = 0; i < 3; i++)
            submit_all(jobs[i], 2);
        ticket_wait(&tickets[late]);
        assert_int_equal(jobs[late][0]->status, STATUS_DEADLINE);
        assert_int_equal(jobs[late][1]->status, STATUS_DEADLINE);
        submit_all(jobs[3], 1);
        struct job *const *first = jobs[late == 0 ? 1 : 0];
        struct job *const *second = jobs[late == 2 ? 1 : 2];
        expect_batch(queue, 4, (struct job *[]){first[0], second[0], jobs[3][0], first[1]});
        expect_batch(queue, 1, &second[1]);
        for (int i = 0; i < 4; i++) {
            ticket_wait(&tickets[i]);
            ticket_release(&tickets[i]);
        }
        assert_int_equal(queue_length(queue), 0);
        queue_free(queue);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_bulk),
        cmocka_unit_test(test_more_than_bulk),
        cmocka_unit_test(test_turns_after_a_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
