// How long a turn lasts, who has the next one, and how often a client is asked after. The clocks
// are the test's, and stand still until they are moved.

#include "other_picture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

static const int64_t MS_NS = 1000000;

static atomic_llong now_ns = 1000000000, used_ns; // of the world, of whatever thread

int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    const int64_t ns = atomic_load(clock == CLOCK_THREAD_CPUTIME_ID ? &used_ns : &now_ns);
    *time = (struct timespec){ns / 1000000000, ns % 1000000000};
    return 0;
}

static void work(int64_t ns)
{
    atomic_fetch_add(&used_ns, ns);
    atomic_fetch_add(&now_ns, ns);
}

static void check(struct turn *turn, enum status expected)
{
    assert_int_equal(turn->guard.check(&turn->guard), expected);
}

// The short turn, of which there is one.
static bool is_free(struct turns *turns)
{
    struct decode_request patient = until(INT64_MAX);
    struct turn turn;
    const bool taken = turn_try(turns, &patient, &turn);
    if (taken)
        turn_give(&turn);
    return taken;
}

// Of the thread's own time: the world's does not matter.
static void test_a_short_turn(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn turn;
    take(turns, &patient, &turn);
    atomic_fetch_add(&now_ns, 60000 * MS_NS);
    check(&turn, STATUS_OK);
    work(2 * MS_NS - 1);
    check(&turn, STATUS_OK);
    assert_false(is_free(turns));
    work(1);
    check(&turn, STATUS_OK);
    assert_true(is_free(turns));
    turn_give(&turn);
    turns_free(turns);
}

// It begins anew where nobody has waited for it.
static void test_a_long_turn(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn turn;
    struct other next = {.turns = turns, .request = until(INT64_MAX), .unwatched = true};
    take(turns, &patient, &turn);
    work(MS_NS);
    assert_int_equal(turn.guard.unwatched(&turn.guard), STATUS_OK);
    work(100 * MS_NS);
    check(&turn, STATUS_OK);
    other_queue(&next);
    work(100 * MS_NS - 1);
    check(&turn, STATUS_OK);
    assert_false(atomic_load(&next.there));
    work(1);
    check(&turn, STATUS_OK); // once it has the turn again
    assert_true(atomic_load(&next.there));
    assert_int_equal(other_end(&next), STATUS_OK);
    turn_give(&turn);
    turns_free(turns);
}

// Whether of two that wait for the turn the second is first, which comes so much later and has had
// no turn yet.
static bool newcomer_is_first(int64_t later_ns)
{
    struct turns *turns = open_turns(1, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn turn;
    struct other again = {.turns = turns, .request = until(INT64_MAX), .lasting = true};
    struct other newcomer = again;
    again.request.served = true;
    take(turns, &patient, &turn);
    other_queue(&again);
    atomic_fetch_add(&now_ns, later_ns);
    other_queue(&newcomer);
    turn_give(&turn);
    while (!atomic_load(&again.there) && !atomic_load(&newcomer.there))
        pause_us(100);
    const bool first = atomic_load(&newcomer.there);
    assert_int_equal(other_end(first ? &newcomer : &again), STATUS_OK);
    assert_int_equal(other_end(first ? &again : &newcomer), STATUS_OK);
    turns_free(turns);
    return first;
}

static void test_newcomers_go_first(void **state)
{
    (void)state;
    assert_true(newcomer_is_first(20 * MS_NS - 1));
    assert_false(newcomer_is_first(20 * MS_NS));
}

// While somebody in line has waited for 60 ms, a newcomer has no turn, not even one whose owner
// still sleeps.
static void test_who_has_waited_lets_nobody_pass(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct turns *turns = open_turns(1, 1600);
        struct decode_request patient = until(INT64_MAX);
        struct turn turn;
        struct other first = {.turns = turns, .request = until(INT64_MAX)};
        struct other second = first;
        take(turns, &patient, &turn);
        other_queue(&first);
        other_queue(&second);
        atomic_fetch_add(&now_ns, 60 * MS_NS);
        turn_give(&turn);
        struct decode_request newcomer = until(INT64_MAX);
        take(turns, &newcomer, &turn);
        assert_true(atomic_load(&first.there)); // the line was empty no sooner
        turn_give(&turn);
        assert_int_equal(other_end(&first), STATUS_OK);
        assert_int_equal(other_end(&second), STATUS_OK);
        turns_free(turns);
    }
}

static void test_the_deadline(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct decode_request request = until(atomic_load(&now_ns) + 7 * MS_NS);
    struct turn turn;
    take(turns, &request, &turn);
    atomic_fetch_add(&now_ns, 7 * MS_NS - 1);
    check(&turn, STATUS_OK);
    atomic_fetch_add(&now_ns, 1);
    check(&turn, STATUS_DEADLINE);
    turn_give(&turn);
    turns_free(turns);
}

static bool count_question(void *context)
{
    ++*(int *)context;
    return false;
}

// When it takes its turn, and every 20 ms.
static void test_questions_to_the_client(void **state)
{
    (void)state;
    int questions = 0;
    struct turns *turns = open_turns(1, 1600);
    struct decode_request request = until(INT64_MAX);
    struct turn turn;
    request.client.gone = count_question;
    request.client.context = &questions;
    take(turns, &request, &turn);
    assert_int_equal(questions, 1);
    for (int i = 1; i <= 3; i++) {
        atomic_fetch_add(&now_ns, 20 * MS_NS - 1);
        check(&turn, STATUS_OK);
        assert_int_equal(questions, i);
        atomic_fetch_add(&now_ns, 1);
        check(&turn, STATUS_OK);
        check(&turn, STATUS_OK);
        assert_int_equal(questions, i + 1);
    }
    turn_give(&turn);
    turns_free(turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_short_turn),
        cmocka_unit_test(test_a_long_turn),
        cmocka_unit_test(test_newcomers_go_first),
        cmocka_unit_test(test_who_has_waited_lets_nobody_pass),
        cmocka_unit_test(test_the_deadline),
        cmocka_unit_test(test_questions_to_the_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
