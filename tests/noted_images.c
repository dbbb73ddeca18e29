#include "noted_images.h"
#include "clock.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

struct decoders *open_decoders(int turns)
{
    struct decoders *decoders;
    assert_int_equal(decoders_create(turns, 0, &decoders), STATUS_OK);
    return decoders;
}

void pause_us(int us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000L}, NULL);
}

struct decode_request until(int64_t deadline_ns)
{
    return (struct decode_request){.client = {.deadline_ns = deadline_ns}, .max_pixels = INT64_MAX};
}

void note(void *context, int i, struct image_guard *guard, enum status turn)
{
    struct request *request = context;
    assert_int_equal(guard == NULL, turn != STATUS_OK);
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

void expect_each_once(const struct request *request, int count, enum status turn)
{
    for (int i = 0; i < MOST; i++)
        assert_int_equal(atomic_load(&request->calls[i]), i < count);
    for (int i = 0; i < count; i++)
        assert_int_equal(request->turns[i], turn);
}

void meet(void *context, int i, struct image_guard *guard, enum status turn)
{
    const int64_t patience_ns = INT64_C(60) * 1000000000;
    struct meeting *meeting = context;
    (void)guard;
    assert_int_equal(turn, STATUS_OK);
    atomic_fetch_add(&meeting->there, 1);
    int64_t until = clock_ns() + patience_ns;
    while (atomic_load(&meeting->there) < meeting->expected && clock_ns() < until)
        pause_us(100);
    if (i == 0)
        meeting->met = atomic_load(&meeting->there) >= meeting->expected;
}

void *run_crowd(void *argument)
{
    struct crowd *crowd = argument;
    decoders_run(crowd->decoders, &crowd->decoding, crowd->count,
                 crowd->decode ? crowd->decode : note, &crowd->request);
    atomic_store(&crowd->done, true);
    return NULL;
}
