// The pixels of a request and the memory of decoders; also built with ThreadSanitizer.

#include "clock.h"
#include "other_picture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

// ---- pixels -------------------------------------------------------------------------------------

static void test_the_pixels_of_a_request(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct decode_request request = until(INT64_MAX);
    struct turn turn;
    request.max_pixels = 1000;
    take(turns, &request, &turn);
    assert_int_equal(turn.guard.admit(&turn.guard, 600, 1), STATUS_OK);
    turn_give(&turn);
    take(turns, &request, &turn);
    assert_int_equal(turn.guard.admit(&turn.guard, 400, 1), STATUS_OK);
    assert_int_equal(decode_request_check(&request), STATUS_OK);
    assert_int_equal(turn.guard.admit(&turn.guard, 1, 1), STATUS_IMAGE_TOO_LARGE);
    assert_int_equal(decode_request_check(&request), STATUS_IMAGE_TOO_LARGE);
    assert_non_null(strstr(status_detail(STATUS_IMAGE_TOO_LARGE), "more than 1000 pixels"));
    turn_give(&turn);
    turns_free(turns);
}

// ---- memory -------------------------------------------------------------------------------------
// Of 1600 bytes, 1200 are for costly pictures, which are those of more than 100.

static void test_more_memory_than_there_will_ever_be(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn turn;
    take(turns, &patient, &turn);
    assert_int_equal(admit(&turn, 1201), STATUS_IMAGE_TOO_LARGE);
    assert_non_null(strstr(status_detail(STATUS_IMAGE_TOO_LARGE), "--max-decode-bytes"));
    assert_int_equal(admit(&turn, 1200), STATUS_OK);
    turn_give(&turn);
    turns_free(turns);
}

// Who waits for memory holds no turn, and no memory back from the small.
static void test_costly_pictures_wait_for_memory(void **state)
{
    (void)state;
    struct turns *turns = open_turns(2, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn costly, small;
    take(turns, &patient, &costly);
    assert_int_equal(admit(&costly, 700), STATUS_OK);
    struct other next = {.turns = turns, .request = until(INT64_MAX), .bytes = 700};
    other_start(&next);
    for (int i = 0; i < 20; i++) {
        take(turns, &patient, &small);
        assert_int_equal(admit(&small, 100), STATUS_OK);
        turn_give(&small);
        pause_us(1000);
    }
    assert_false(atomic_load(&next.there));
    turn_give(&costly);
    assert_true(other_comes(&next));
    assert_int_equal(other_end(&next), STATUS_OK);
    turns_free(turns);
}

// Of 25600 bytes, pictures of up to 100, 400 and 1600 have 800, 1600 and 4000 to themselves.
static void test_no_picture_waits_for_larger_ones(void **state)
{
    (void)state;
    static const struct {
        int64_t one, all;
    } sizes[] = {{100, 800}, {400, 1600}, {1600, 4000}, {19200, 19200}};
    struct turns *turns = open_turns(64, 25600);
    struct decode_request patient = until(INT64_MAX), hurried = until(clock_ns() + 50 * 1000000);
    struct turn held[64], late;
    int count = 0;
    for (int i = 3; i >= 0; i--) // the larger ones first
        for (int64_t left = sizes[i].all; left > 0; left -= sizes[i].one, count++) {
            int64_t bytes = left < sizes[i].one ? left : sizes[i].one;
            if (i > 0 && bytes <= sizes[i - 1].one)
                break;
            take(turns, &patient, &held[count]);
            assert_int_equal(admit(&held[count], bytes), STATUS_OK);
        }
    for (int i = 0; i < 4; i++) {
        take(turns, &patient, &late);
        late.request = &hurried;
        assert_int_equal(admit(&late, i < 3 ? sizes[i].one : 1601), STATUS_DEADLINE);
    }
    while (count > 0)
        turn_give(&held[--count]);
    turns_free(turns);
}

static void test_nobody_waits_for_memory_after_the_deadline(void **state)
{
    (void)state;
    struct turns *turns = open_turns(2, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn costly, turn;
    take(turns, &patient, &costly);
    assert_int_equal(admit(&costly, 1200), STATUS_OK);
    for (int i = 0; i < 3; i++) {
        struct other late = {
            .turns = turns, .request = until(clock_ns() + 20 * 1000000), .bytes = 200};
        other_start(&late);
        pthread_join(late.thread, NULL);
        assert_int_equal(late.status, STATUS_DEADLINE);
    }
    turn_give(&costly);
    take(turns, &patient, &turn); // all is there again
    assert_int_equal(admit(&turn, 1200), STATUS_OK);
    take(turns, &patient, &costly);
    turn_give(&costly);
    turn_give(&turn);
    turns_free(turns);
}

// The next in the line may need less than one that gives up.
static void test_memory_for_the_next_in_line(void **state)
{
    (void)state;
    struct turns *turns = open_turns(3, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn costly;
    take(turns, &patient, &costly);
    assert_int_equal(admit(&costly, 1000), STATUS_OK);
    struct other first = {
        .turns = turns, .request = until(clock_ns() + 200 * 1000000), .bytes = 700};
    struct other next = {.turns = turns, .request = until(INT64_MAX), .bytes = 200};
    other_start(&first);
    pause_us(50 * 1000);
    other_start(&next);
    assert_true(other_comes(&next));
    assert_int_equal(other_end(&next), STATUS_OK);
    assert_int_equal(other_end(&first), STATUS_DEADLINE);
    turn_give(&costly);
    turns_free(turns);
}

// Memory for which two wait goes to the first of them, though it would do for the other one, which
// asks for less.
static void test_first_come_first_served(void **state)
{
    (void)state;
    struct turns *turns = open_turns(2, 1600);
    struct decode_request patient = until(INT64_MAX), hurried = until(0);
    struct turn costly, turn;
    struct other line[2];
    take(turns, &patient, &costly);
    assert_int_equal(admit(&costly, 1000), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        line[i] = (struct other){.turns = turns,
                                 .request = until(INT64_MAX),
                                 .bytes = i == 0 ? 700 : 600,
                                 .lasting = true};
        other_queue(&line[i]);
    }
    turn_give(&costly);
    while (!atomic_load(&line[0].there) && !atomic_load(&line[1].there))
        pause_us(100);
    assert_true(atomic_load(&line[0].there));
    assert_false(atomic_load(&line[1].there));
    assert_int_equal(other_end(&line[0]), STATUS_OK);
    assert_true(other_comes(&line[1]));

    // What it has been given is no longer there.
    take(turns, &patient, &turn);
    hurried.client.deadline_ns = clock_ns() + 20 * 1000000;
    turn.request = &hurried;
    assert_int_equal(admit(&turn, 601), STATUS_DEADLINE);
    turn_give(&turn);
    take(turns, &patient, &turn);
    assert_int_equal(admit(&turn, 600), STATUS_OK);
    turn_give(&turn);
    assert_int_equal(other_end(&line[1]), STATUS_OK);
    turns_free(turns);
}

// However little is asked for: who needs much would wait for ever otherwise.
static void test_nobody_overtakes(void **state)
{
    (void)state;
    struct turns *turns = open_turns(2, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn costly;
    take(turns, &patient, &costly);
    assert_int_equal(admit(&costly, 1000), STATUS_OK);
    struct other much = {.turns = turns, .request = until(INT64_MAX), .bytes = 700};
    struct other little = {.turns = turns, .request = until(INT64_MAX), .bytes = 101};
    other_queue(&much);
    other_queue(&little); // of 200 that are free
    turn_give(&costly);
    assert_true(other_comes(&much));
    assert_true(other_comes(&little));
    assert_int_equal(other_end(&much), STATUS_OK);
    assert_int_equal(other_end(&little), STATUS_OK);
    turns_free(turns);
}

// The last in the line gives up, and another one joins it.
static void test_a_line_that_loses_its_end(void **state)
{
    (void)state;
    struct turns *turns = open_turns(3, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn costly;
    take(turns, &patient, &costly);
    assert_int_equal(admit(&costly, 1200), STATUS_OK);
    struct other first = {.turns = turns, .request = until(INT64_MAX), .bytes = 700};
    struct other last = {
        .turns = turns, .request = until(clock_ns() + 200 * 1000000), .bytes = 200};
    struct other next = {
        .turns = turns, .request = until(clock_ns() + PATIENCE_NS / 4), .bytes = 200};
    other_queue(&first);
    other_start(&last);
    assert_int_equal(other_end(&last), STATUS_DEADLINE);
    other_queue(&next);
    turn_give(&costly);
    assert_int_equal(other_end(&first), STATUS_OK);
    assert_int_equal(other_end(&next), STATUS_OK);
    turns_free(turns);
}

// Who gets memory, and then no turn before its time is over, keeps nothing.
static void test_memory_without_a_turn(void **state)
{
    (void)state;
    struct turns *turns = open_turns(1, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn costly, other;
    take(turns, &patient, &costly);
    assert_int_equal(admit(&costly, 1200), STATUS_OK);
    assert_int_equal(costly.guard.unwatched(&costly.guard), STATUS_OK);
    struct other late = {
        .turns = turns, .request = until(clock_ns() + 300 * 1000000), .bytes = 700};
    other_start(&late);
    pause_us(100 * 1000);
    take(turns, &patient, &other); // which the late one has given up
    turn_give(&costly);
    assert_int_equal(other_end(&late), STATUS_DEADLINE);
    struct decode_request hurried = until(clock_ns() + PATIENCE_NS / 10);
    other.request = &hurried;
    assert_int_equal(admit(&other, 1200), STATUS_OK);
    turn_give(&other);
    turns_free(turns);
}

static bool tell(void *context)
{
    atomic_store(&((struct other *)context)->told, true);
    return false;
}

// Who waits for memory gives its turn up, and comes back to one of the same kind.
static void test_memory_for_a_long_picture(void **state)
{
    (void)state;
    struct turns *turns = open_turns(2, 1600);
    struct decode_request request = until(INT64_MAX);
    struct turn turn, shorter[2];
    struct other costly = {
        .turns = turns, .request = until(INT64_MAX), .bytes = 1000, .lasting = true};
    other_start(&costly);
    assert_true(other_comes(&costly));
    take(turns, &request, &turn);
    assert_int_equal(turn.guard.unwatched(&turn.guard), STATUS_OK);
    request.client.gone = tell; // once it waits
    request.client.context = &costly;
    assert_int_equal(admit(&turn, 700), STATUS_OK);
    assert_int_equal(other_end(&costly), STATUS_OK);
    for (int i = 0; i < 2; i++)
        assert_true(turn_try(turns, &request, &shorter[i]));
    for (int i = 0; i < 2; i++)
        turn_give(&shorter[i]);
    turn_give(&turn);
    turns_free(turns);
}

// An estimate that was too low: who holds memory never waits for more.
static void test_later_memory_is_there_or_not(void **state)
{
    (void)state;
    struct turns *turns = open_turns(2, 1600);
    struct decode_request patient = until(INT64_MAX);
    struct turn turn, other;
    take(turns, &patient, &turn);
    assert_int_equal(admit(&turn, 500), STATUS_OK);
    assert_int_equal(admit(&turn, 50), STATUS_OK);
    take(turns, &patient, &other);
    assert_int_equal(admit(&other, 600), STATUS_OK);
    assert_int_equal(admit(&turn, 51), STATUS_OUT_OF_MEMORY);
    assert_int_equal(admit(&turn, 50), STATUS_OK);
    turn_give(&turn);
    assert_int_equal(admit(&other, 600), STATUS_OK);
    turn_give(&other);
    turns_free(turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_pixels_of_a_request),
        cmocka_unit_test(test_more_memory_than_there_will_ever_be),
        cmocka_unit_test(test_costly_pictures_wait_for_memory),
        cmocka_unit_test(test_no_picture_waits_for_larger_ones),
        cmocka_unit_test(test_nobody_waits_for_memory_after_the_deadline),
        cmocka_unit_test(test_memory_for_the_next_in_line),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_nobody_overtakes),
        cmocka_unit_test(test_a_line_that_loses_its_end),
        cmocka_unit_test(test_memory_without_a_turn),
        cmocka_unit_test(test_memory_for_a_long_picture),
        cmocka_unit_test(test_later_memory_is_there_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
