// The decoders under many requests; also built with ThreadSanitizer.

#include "clock.h"
#include "decoders.h"
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { MOST = 64 };

static const int64_t PATIENCE_NS = INT64_C(60) * 1000000000;

static struct decoders *open_decoders(int turns)
{
    struct decoders *decoders;
    assert_int_equal(decoders_create(turns, &decoders), STATUS_OK);
    return decoders;
}

static void pause_us(int us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000L}, NULL);
}

// What became of each image of a request.
struct request {
    atomic_int calls[MOST];
    enum status turns[MOST];
    pthread_t threads[MOST];
    char details[MOST][64];
    atomic_int *at_once, *most; // images in work now, over all requests, and ever
    sem_t *go;                  // each image takes one, if there is any
};

static void note(void *context, int i, enum status turn)
{
    struct request *request = context;
    atomic_fetch_add(&request->calls[i], 1);
    request->turns[i] = turn;
    request->threads[i] = pthread_self();
    if (turn != STATUS_OK) {
        strncpy(request->details[i], status_detail(turn), sizeof request->details[i] - 1);
        return;
    }
    if (request->at_once) {
        int now = atomic_fetch_add(request->at_once, 1) + 1, most = atomic_load(request->most);
        while (now > most && !atomic_compare_exchange_weak(request->most, &most, now))
            ;
        pause_us(20);
        atomic_fetch_sub(request->at_once, 1);
    }
    while (request->go && sem_wait(request->go) != 0)
        ;
}

static void expect_each_once(const struct request *request, int count, enum status turn)
{
    for (int i = 0; i < MOST; i++)
        assert_int_equal(atomic_load(&request->calls[i]), i < count);
    for (int i = 0; i < count; i++)
        assert_int_equal(request->turns[i], turn);
}

static void test_every_image_once(void **state)
{
    (void)state;
    for (int turns = 0; turns <= 5; turns++) {
        struct decoders *decoders = open_decoders(turns);
        for (int count = 0; count <= MOST; count += count < 6 ? 1 : 29) {
            struct request request = {0};
            decoders_run(decoders, INT64_MAX, count, note, &request);
            expect_each_once(&request, count, STATUS_OK);
        }
        decoders_free(decoders);
    }
}

// ---- side by side -------------------------------------------------------------------------------

// Each image waits until all of them are in work.
struct meeting {
    atomic_int there;
    int expected;
    bool met;
};

static void meet(void *context, int i, enum status turn)
{
    struct meeting *meeting = context;
    assert_int_equal(turn, STATUS_OK);
    atomic_fetch_add(&meeting->there, 1);
    int64_t until = clock_ns() + PATIENCE_NS;
    while (atomic_load(&meeting->there) < meeting->expected && clock_ns() < until)
        pause_us(100);
    if (i == 0)
        meeting->met = atomic_load(&meeting->there) >= meeting->expected;
}

static void test_side_by_side(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(4);
    struct meeting meeting = {.expected = 4};
    decoders_run(decoders, INT64_MAX, 4, meet, &meeting);
    assert_true(meeting.met);
    decoders_free(decoders);
}

static void test_one_image_stays_on_its_thread(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(4);
    struct request request = {0};
    decoders_run(decoders, INT64_MAX, 1, note, &request);
    assert_true(pthread_equal(request.threads[0], pthread_self()));
    decoders_free(decoders);
}

// ---- many requests ------------------------------------------------------------------------------

struct client {
    struct decoders *decoders;
    atomic_int *at_once, *most;
    int number;
    bool sound;
};

static void *ask(void *argument)
{
    struct client *client = argument;
    client->sound = true;
    for (int round = 0; round < 60; round++) {
        struct request request = {.at_once = client->at_once, .most = client->most};
        int count = 1 + (client->number * 7 + round * 5) % 9;
        if (count == 1) {
            client->sound =
                decoders_take_turn(client->decoders, INT64_MAX) == STATUS_OK && client->sound;
            note(&request, 0, STATUS_OK);
            decoders_give_turn(client->decoders);
        } else {
            decoders_run(client->decoders, INT64_MAX, count, note, &request);
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
    struct client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    atomic_int at_once = 0, most = 0;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){decoders, &at_once, &most, i, false};
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(clients[i].sound);
    }
    assert_in_range(atomic_load(&most), 2, TURNS);
    decoders_free(decoders);
}

struct crowd {
    struct decoders *decoders;
    struct request request;
    int64_t deadline_ns;
    int count;
    atomic_bool done;
};

static void *run_crowd(void *argument)
{
    struct crowd *crowd = argument;
    decoders_run(crowd->decoders, crowd->deadline_ns, crowd->count, note, &crowd->request);
    atomic_store(&crowd->done, true);
    return NULL;
}

// A request with many images has the only turn, and gives way to one that comes later.
static void test_few_images_beside_many(void **state)
{
    (void)state;
    sem_t go;
    pthread_t threads[2];
    struct decoders *decoders = open_decoders(1);
    struct crowd many = {.decoders = decoders, .deadline_ns = INT64_MAX, .count = MOST};
    struct crowd few = {.decoders = decoders, .deadline_ns = INT64_MAX, .count = 2};
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

// ---- deadlines ----------------------------------------------------------------------------------

static void test_no_turn_in_time(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(1);
    assert_int_equal(decoders_take_turn(decoders, INT64_MAX), STATUS_OK);
    assert_int_equal(decoders_take_turn(decoders, clock_ns() + 1000000), STATUS_DEADLINE);
    struct request request = {0};
    decoders_run(decoders, clock_ns() + 20 * 1000000, 5, note, &request);
    expect_each_once(&request, 5, STATUS_DEADLINE);
    for (int i = 0; i < 5; i++) {
        assert_true(pthread_equal(request.threads[i], pthread_self()));
        assert_non_null(strstr(request.details[i], "time ran out"));
    }
    decoders_give_turn(decoders);
    decoders_free(decoders);
}

// Turns that are free do not help one whose time is over.
static void test_a_deadline_that_has_passed(void **state)
{
    (void)state;
    struct decoders *decoders = open_decoders(3);
    assert_int_equal(decoders_take_turn(decoders, clock_ns() - 1), STATUS_DEADLINE);
    struct request request = {0};
    sem_t go;
    pthread_t thread;
    struct crowd busy = {.decoders = decoders, .deadline_ns = INT64_MAX, .count = 3};
    sem_init(&go, 0, 0);
    busy.request.go = &go; // so that no helper looks for work
    assert_int_equal(pthread_create(&thread, NULL, run_crowd, &busy), 0);
    for (int i = 0; i < 3; i++)
        while (atomic_load(&busy.request.calls[i]) == 0)
            pause_us(100);
    decoders_run(decoders, clock_ns() - 1, 3, note, &request);
    expect_each_once(&request, 3, STATUS_DEADLINE);
    for (int i = 0; i < 3; i++)
        sem_post(&go);
    pthread_join(thread, NULL);
    sem_destroy(&go);
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
        .decoders = decoders, .deadline_ns = clock_ns() + 300 * 1000000, .count = 6};
    sem_init(&go, 0, 0);
    crowd.request.go = &go;
    assert_int_equal(pthread_create(&thread, NULL, run_crowd, &crowd), 0);
    while (clock_ns() <= crowd.deadline_ns)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_image_once),
        cmocka_unit_test(test_side_by_side),
        cmocka_unit_test(test_one_image_stays_on_its_thread),
        cmocka_unit_test(test_many_requests_share_the_turns),
        cmocka_unit_test(test_few_images_beside_many),
        cmocka_unit_test(test_no_turn_in_time),
        cmocka_unit_test(test_a_deadline_that_has_passed),
        cmocka_unit_test(test_a_deadline_amid_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
