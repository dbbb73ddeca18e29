// The decoders under many requests; also built with ThreadSanitizer. Deadlines are
// test_decoders_late.c's.

#include "machine.h"
#include "noted_images.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_every_image_once(void **state)
{
    (void)state;
    for (int turns = 0; turns <= 5; turns++) {
        struct decoders *decoders = open_decoders(turns);
        for (int count = 0; count <= MOST; count += count < 6 ? 1 : 29) {
            struct request request = {0};
            struct decode_request patient = until(INT64_MAX);
            decoders_run(decoders, &patient, count, note, &request);
            expect_each_once(&request, count, STATUS_OK);
        }
        decoders_free(decoders);
    }
}

// ---- side by side -------------------------------------------------------------------------------

static void test_side_by_side(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(4);
    for (int i = 0; i < 4; i++) {
        struct meeting meeting = {.expected = 4};
        struct decode_request patient = until(INT64_MAX);
        decoders_run(decoders, &patient, 4, meet, &meeting);
        assert_true(meeting.met);
        pause_us(5000); // most likely the helpers sleep by now
    }
    decoders_free(decoders);
}

// A meeting of images that have asked for their memory.
struct admitted {
    struct meeting meeting;
    enum status statuses[4];
};

static void admit(void *context, int i, struct image_guard *guard, enum status turn)
{
    struct admitted *admitted = context;
    admitted->statuses[i] = guard->admit(guard, 10, 1);
    meet(&admitted->meeting, i, guard, turn);
}

// Whoever decodes an image, its pixels are those of its request.
static void test_the_pixels_of_a_request(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(4);
    struct admitted admitted = {.meeting = {.expected = 4}};
    struct decode_request request = until(INT64_MAX);
    request.max_pixels = 30;
    decoders_run(decoders, &request, 4, admit, &admitted);
    int refused = 0;
    for (int i = 0; i < 4; i++)
        refused += admitted.statuses[i] == STATUS_IMAGE_TOO_LARGE;
    assert_int_equal(refused, 1);
    assert_int_equal(atomic_load(&request.pixels), 40);
    decoders_free(decoders);
}

// As many turns as cores, and a quarter of the memory, but a GiB at most; of it, three quarters
// are for costly images.
static void test_what_the_machine_allows(void **state)
{
    (void)state;
    enum { MANY = 4096 };
    struct machine machine;
    machine_read(&machine);
    const int64_t gib = INT64_C(1) << 30, quarter = machine.memory_bytes / 4;
    const int64_t most = quarter > 0 && quarter < gib ? quarter : gib, costly = most - most / 4;
    struct decoders *decoders = open_decoders(0);
    struct decode_request patient = until(INT64_MAX);
    struct turn *turns = calloc(MANY, sizeof *turns);
    int count = 0;
    assert_non_null(turns);
    while (count < MANY && turn_try(decoders_turns(decoders), &patient, &turns[count]))
        count++;
    assert_int_equal(count, machine.cores);
    struct image_guard *guard = &turns[0].guard;
    assert_int_equal(guard->admit(guard, 1, costly + 1), STATUS_IMAGE_TOO_LARGE);
    assert_int_equal(guard->admit(guard, 1, costly), STATUS_OK);
    while (count > 0)
        turn_give(&turns[--count]);
    free(turns);
    decoders_free(decoders);
}

static void test_one_image_stays_on_its_thread(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(4);
    struct request request = {0};
    struct decode_request patient = until(INT64_MAX);
    decoders_run(decoders, &patient, 1, note, &request);
    assert_true(pthread_equal(request.threads[0], pthread_self()));
    decoders_free(decoders);
}

// ---- many requests ------------------------------------------------------------------------------

struct visitor {
    struct decoders *decoders;
    atomic_int *at_once, *most;
    int number;
    bool sound;
};

static void *ask(void *argument)
{
    struct visitor *client = argument;
    client->sound = true;
    for (int round = 0; round < 60; round++) {
        struct request request = {.at_once = client->at_once, .most = client->most};
        struct decode_request patient = until(INT64_MAX);
        struct turn turn;
        int count = 1 + (client->number * 7 + round * 5) % 9;
        if (count == 1) {
            client->sound =
                turn_take(decoders_turns(client->decoders), &patient, &turn) == STATUS_OK &&
                client->sound;
            note(&request, 0, &turn.guard, STATUS_OK);
            turn_give(&turn);
        } else {
            decoders_run(client->decoders, &patient, count, note, &request);
        }
        for (int i = 0; i < count; i++)
            client->sound = client->sound && atomic_load(&request.calls[i]) == 1;
    }
    return NULL;
}

static void test_many_requests_share_the_turns(void **state)
{
    (void)state;
    enum { CLIENTS = 12, TURNS = 3 };
    struct decoders *decoders = open_decoders(TURNS);
    struct visitor clients[CLIENTS];
    pthread_t threads[CLIENTS];
    atomic_int at_once = 0, most = 0;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (struct visitor){decoders, &at_once, &most, i, false};
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(clients[i].sound);
    }
    assert_in_range(atomic_load(&most), 2, 2 * TURNS); // with those that are lent
    decoders_free(decoders);
}

// A request with many images has the only turn, and gives way to one that comes later.
static void test_few_images_beside_many(void **state)
{
    (void)state;
    sem_t go;
    pthread_t threads[2];
    struct decoders *decoders = open_decoders(1);
    struct crowd many = {.decoders = decoders, .decoding = until(INT64_MAX), .count = MOST};
    struct crowd few = {.decoders = decoders, .decoding = until(INT64_MAX), .count = 2};
    sem_init(&go, 0, 0);
    many.request.go = &go;
    assert_int_equal(pthread_create(&threads[0], NULL, run_crowd, &many), 0);
    while (atomic_load(&many.request.calls[0]) == 0)
        pause_us(100);
    assert_int_equal(pthread_create(&threads[1], NULL, run_crowd, &few), 0);
    int released = 0;
    for (; released < MOST && !atomic_load(&few.done); released++) {
        pause_us(50 * 1000);
        sem_post(&go);
    }
    assert_in_range(released, 1, MOST / 2);
    for (; released < MOST; released++)
        sem_post(&go);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    expect_each_once(&many.request, MOST, STATUS_OK);
    expect_each_once(&few.request, 2, STATUS_OK);
    sem_destroy(&go);
    decoders_free(decoders);
}

static void note_costly(void *context, int i, struct image_guard *guard, enum status turn)
{
    assert_int_equal(guard->unwatched(guard), STATUS_OK);
    note(context, i, guard, turn);
}

// Costly images that hold every helper up hold no other request up.
static void test_images_beside_costly_ones(void **state)
{
    (void)state;
    sem_t go;
    pthread_t thread;
    struct decoders *decoders = open_decoders(1);
    struct crowd costly = {
        .decoders = decoders, .decoding = until(INT64_MAX), .count = 4, .decode = note_costly};
    sem_init(&go, 0, 0);
    costly.request.go = &go;
    assert_int_equal(pthread_create(&thread, NULL, run_crowd, &costly), 0);
    while (atomic_load(&costly.request.calls[0]) == 0)
        pause_us(100);
    for (int i = 0; i < 10; i++) {
        struct request request = {0};
        struct decode_request patient = until(INT64_MAX);
        decoders_run(decoders, &patient, 5, note, &request);
        expect_each_once(&request, 5, STATUS_OK);
    }
    assert_false(atomic_load(&costly.done));
    for (int i = 0; i < 4; i++)
        sem_post(&go);
    pthread_join(thread, NULL);
    expect_each_once(&costly.request, 4, STATUS_OK);
    sem_destroy(&go);
    decoders_free(decoders);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_image_once),
        cmocka_unit_test(test_side_by_side),
        cmocka_unit_test(test_the_pixels_of_a_request),
        cmocka_unit_test(test_what_the_machine_allows),
        cmocka_unit_test(test_one_image_stays_on_its_thread),
        cmocka_unit_test(test_many_requests_share_the_turns),
        cmocka_unit_test(test_few_images_beside_many),
        cmocka_unit_test(test_images_beside_costly_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
