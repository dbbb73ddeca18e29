// Turns of decoders, and who waits for them; also built with ThreadSanitizer. Their memory is
// test_turn_memory.c's.

#include "clock.h"
#include "other_picture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

// ---- turns --------------------------------------------------------------------------------------

static void test_no_more_turns_than_there_are(void **state)
{
    (void)state;
    struct turns *turns = open_turns(2, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn first, second, third;
    take(turns, &patient, &first);
    assert_true(turn_try(turns, &patient, &second));
    assert_false(turn_try(turns, &patient, &third));
    struct decode_request hurried = until(clock_ns() + 5000000);
    assert_int_equal(turn_take(turns, &hurried, &third), STATUS_DEADLINE);
    assert_non_null(strstr(status_detail(STATUS_DEADLINE), "time ran out"));
    turn_give(&first);
    take(turns, &patient, &third);
    turn_give(&second);
    turn_give(&third);
    turns_free(turns);
}

static void test_a_free_turn_is_no_help_after_the_deadline(void **state)
{
    (void)state;
    struct turns *turns = open_turns(2, 1600);
    struct decode_request late = until(clock_ns() - 1);
    struct turn turn;
    assert_int_equal(turn_take(turns, &late, &turn), STATUS_DEADLINE);
    turns_free(turns);
}

// The only turn goes to the next after a while, though its picture is not done.
static void test_a_long_picture_lets_the_next_in(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct other longer = {.turns = turns, .request = until(INT64_MAX), .lasting = true};
    other_start(&longer);
    assert_true(other_comes(&longer));
    for (int i = 0; i < 3; i++) {
        struct other next = {.turns = turns, .request = until(INT64_MAX)};
        other_start(&next);
        assert_true(other_comes(&next));
        assert_int_equal(other_end(&next), STATUS_OK);
    }
    assert_int_equal(other_end(&longer), STATUS_OK);
    turns_free(turns);
}

// Two long pictures share the one long turn.
static void test_long_pictures_take_turns(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct other pair[2];
    for (int i = 0; i < 2; i++) {
        pair[i] = (struct other){
            .turns = turns, .request = until(INT64_MAX), .unwatched = true, .lasting = true};
        other_start(&pair[i]);
    }
    for (int i = 0; i < 2; i++)
        assert_true(other_comes(&pair[i]));
    for (int i = 0; i < 4; i++) {
        int before = atomic_load(&pair[i % 2].checks);
        int64_t until_ns = clock_ns() + PATIENCE_NS;
        while (atomic_load(&pair[i % 2].checks) == before && clock_ns() < until_ns)
            pause_us(100);
        assert_int_not_equal(atomic_load(&pair[i % 2].checks), before);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(other_end(&pair[i]), STATUS_OK);
    turns_free(turns);
}

// Whoever was granted the only turn needs a while to wake up: who is awake has one meanwhile.
static bool is_lent(void)
{
    struct turns *turns = open_turns(1, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct other sleeper = {.turns = turns, .request = until(INT64_MAX), .lasting = true};
    struct turn turn, none;
    take(turns, &patient, &turn);
    other_queue(&sleeper);
    turn_give(&turn);
    take(turns, &patient, &turn);
    const bool lent = !atomic_load(&sleeper.there);
    turn_give(&turn);
    assert_int_equal(other_end(&sleeper), STATUS_OK);
    assert_true(turn_try(turns, &patient, &turn)); // of which there is one, as before
    assert_false(turn_try(turns, &patient, &none));
    turn_give(&turn);
    turns_free(turns);
    return lent;
}

static void test_a_turn_is_lent(void **state)
{
    (void)state;
    bool lent = false;
    for (int i = 0; i < 1000 && !lent; i++)
        lent = is_lent();
    assert_true(lent);
}

static void test_what_cannot_be_watched_is_long(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn costly, other, third;
    take(turns, &patient, &costly);
    assert_int_equal(costly.guard.unwatched(&costly.guard), STATUS_OK);
    take(turns, &patient, &other);
    struct decode_request hurried = until(clock_ns() + 5000000);
    other.request = &hurried;
    assert_int_equal(other.guard.unwatched(&other.guard), STATUS_DEADLINE);
    turn_give(&other); // which holds none
    take(turns, &patient, &third);
    turn_give(&costly);
    assert_int_equal(third.guard.unwatched(&third.guard), STATUS_OK);
    turn_give(&third);
    turns_free(turns);
}

// ---- who waits for it ---------------------------------------------------------------------------

static void test_the_deadline_ends_a_picture(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct other longer = {
        .turns = turns, .request = until(clock_ns() + 300 * 1000000), .lasting = true};
    other_start(&longer);
    pthread_join(longer.thread, NULL);
    assert_int_equal(longer.status, STATUS_DEADLINE);
    turns_free(turns);
}

static bool has_left(void *context)
{
    return atomic_load((atomic_bool *)context);
}

static void test_a_client_that_leaves_ends_its_picture(void **state)
{
    (void)state;
    atomic_bool left = false;
    struct turns *turns = open_turns(1, 1600);
    struct other longer = {.turns = turns, .request = until(INT64_MAX), .lasting = true};
    longer.request.client.gone = has_left;
    longer.request.client.context = &left;
    struct other waiting = {.turns = turns, .request = longer.request, .unwatched = true};
    struct decode_request patient = until(INT64_MAX);
    struct turn turn;
    other_start(&longer);
    assert_true(other_comes(&longer));
    take(turns, &patient, &turn);
    assert_int_equal(turn.guard.unwatched(&turn.guard), STATUS_OK);
    other_start(&waiting); // for a long turn, which there is not
    atomic_store(&left, true);
    pthread_join(longer.thread, NULL);
    pthread_join(waiting.thread, NULL);
    assert_int_equal(longer.status, STATUS_CANCELLED);
    assert_int_equal(waiting.status, STATUS_CANCELLED);
    turn_give(&turn);
    turns_free(turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_more_turns_than_there_are),
        cmocka_unit_test(test_a_free_turn_is_no_help_after_the_deadline),
        cmocka_unit_test(test_a_long_picture_lets_the_next_in),
        cmocka_unit_test(test_long_pictures_take_turns),
        cmocka_unit_test(test_a_turn_is_lent),
        cmocka_unit_test(test_what_cannot_be_watched_is_long),
        cmocka_unit_test(test_the_deadline_ends_a_picture),
        cmocka_unit_test(test_a_client_that_leaves_ends_its_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
