// The decoders and requests that nobody waits for any more; also built with ThreadSanitizer.

#include "clock.h"
#include "noted_images.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_no_turn_in_time(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(1);
    struct decode_request patient = until(INT64_MAX), hurried = until(clock_ns() + 20 * 1000000);
    struct turn turn;
    assert_int_equal(turn_take(decoders_turns(decoders), &patient, &turn), STATUS_OK);
    struct request request = {0};
    decoders_run(decoders, &hurried, 5, note, &request);
    expect_each_once(&request, 5, STATUS_DEADLINE);
    for (int i = 0; i < 5; i++) {
        assert_true(pthread_equal(request.threads[i], pthread_self()));
        assert_non_null(strstr(request.details[i], "time ran out"));
    }
    turn_give(&turn);
    decoders_free(decoders);
}

// Turns that are free do not help one whose time is over.
static void test_a_deadline_that_has_passed(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(3);
    struct crowd late = {.decoders = decoders, .decoding = until(clock_ns() - 1), .count = 3};
    sem_t go;
    pthread_t thread, late_thread;
    struct crowd busy = {.decoders = decoders, .decoding = until(INT64_MAX), .count = 3};
    sem_init(&go, 0, 0);
    busy.request.go = &go; // so that no helper looks for work
    assert_int_equal(pthread_create(&thread, NULL, run_crowd, &busy), 0);
    for (int i = 0; i < 3; i++)
        while (atomic_load(&busy.request.calls[i]) == 0)
            pause_us(100);
    assert_int_equal(pthread_create(&late_thread, NULL, run_crowd, &late), 0);
    pthread_join(late_thread, NULL);
    expect_each_once(&late.request, 3, STATUS_DEADLINE);
    for (int i = 0; i < 3; i++)
        sem_post(&go);
    pthread_join(thread, NULL);
    sem_destroy(&go);

    // Nothing is left of it in the helpers' way.
    struct meeting meeting = {.expected = 3};
    decoders_run(decoders, &busy.decoding, 3, meet, &meeting);
    assert_true(meeting.met);
    decoders_free(decoders);
}

// What is in work at the deadline is waited for; the rest is not begun.
static void test_a_deadline_amid_the_work(void **state)
{
    (void)state;
    sem_t go;
    pthread_t thread;
    struct decoders *decoders = open_decoders(2);
    struct crowd crowd = {
        .decoders = decoders, .decoding = until(clock_ns() + 300 * 1000000), .count = 6};
    sem_init(&go, 0, 0);
    crowd.request.go = &go;
    assert_int_equal(pthread_create(&thread, NULL, run_crowd, &crowd), 0);
    while (clock_ns() <= crowd.decoding.client.deadline_ns)
        pause_us(1000);
    assert_false(atomic_load(&crowd.done));
    for (int i = 0; i < 6; i++)
        sem_post(&go);
    pthread_join(thread, NULL);
    int begun = 0;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(atomic_load(&crowd.request.calls[i]), 1);
        begun += crowd.request.turns[i] == STATUS_OK;
    }
    assert_in_range(begun, 0, 2);
    assert_int_equal(crowd.request.turns[5], STATUS_DEADLINE);
    sem_destroy(&go);
    decoders_free(decoders);
}

static bool has_left(void *context)
{
    return atomic_load((atomic_bool *)context);
}

// What is in work when the client leaves is waited for; the rest is not begun, with a turn or
// without.
static void test_a_client_that_leaves(void **state)
{
    (void)state;
    sem_t go;
    pthread_t thread;
    atomic_bool left = false;
    struct decoders *decoders = open_decoders(2);
    struct crowd crowd = {.decoders = decoders, .decoding = until(INT64_MAX), .count = MOST};
    crowd.decoding.client.gone = has_left;
    crowd.decoding.client.context = &left;
    sem_init(&go, 0, 0);
    crowd.request.go = &go;
    assert_int_equal(pthread_create(&thread, NULL, run_crowd, &crowd), 0);
    while (atomic_load(&crowd.request.calls[0]) == 0)
        pause_us(100);
    atomic_store(&left, true);
    for (int i = 0; i < MOST; i++)
        sem_post(&go);
    pthread_join(thread, NULL);
    int begun = 0;
    for (int i = 0; i < MOST; i++) {
        assert_int_equal(atomic_load(&crowd.request.calls[i]), 1);
        begun += crowd.request.turns[i] == STATUS_OK;
    }
    assert_in_range(begun, 1, 2);
    assert_int_equal(crowd.request.turns[MOST - 1], STATUS_CANCELLED);
    assert_non_null(strstr(crowd.request.details[MOST - 1], "gone"));
    sem_destroy(&go);
    decoders_free(decoders);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_turn_in_time),
        cmocka_unit_test(test_a_deadline_that_has_passed),
        cmocka_unit_test(test_a_deadline_amid_the_work),
        cmocka_unit_test(test_a_client_that_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
