#include "other_picture.h"
#include "clock.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

void pause_us(int us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000L}, NULL);
}

struct turns *open_turns(int count, int64_t max_bytes)
{
    struct turns *turns;
    assert_int_equal(turns_create(count, max_bytes, &turns), STATUS_OK);
    return turns;
}

struct decode_request until(int64_t deadline_ns)
{
    return (struct decode_request){.client = {.deadline_ns = deadline_ns}, .max_pixels = INT64_MAX};
}

enum status admit(struct turn *turn, int64_t bytes)
{
    return turn->guard.admit(&turn->guard, 1, bytes);
}

void take(struct turns *turns, struct decode_request *request, struct turn *turn)
{
    assert_int_equal(turn_take(turns, request, turn), STATUS_OK);
}

static enum status decode(struct other *other, struct turn *turn)
{
    struct image_guard *guard = &turn->guard;
    if (other->bytes)
        TRY(guard->admit(guard, 1, other->bytes));
    if (other->unwatched)
        TRY(guard->unwatched(guard));
    atomic_store(&other->there, true);
    while (other->lasting && !atomic_load(&other->told)) {
        TRY(guard->check(guard));
        atomic_fetch_add(&other->checks, 1);
    }
    return STATUS_OK;
}

static void *run(void *argument)
{
    struct other *other = argument;
    struct turn turn;
    other->status = turn_take(other->turns, &other->request, &turn);
    if (other->status == STATUS_OK) {
        other->status = decode(other, &turn);
        turn_give(&turn);
    }
    return NULL;
}

void other_start(struct other *other)
{
    assert_int_equal(pthread_create(&other->thread, NULL, run, other), 0);
}

static bool note_asked(void *context)
{
    struct other *other = context;
    atomic_fetch_add(&other->asked, 1);
    return false;
}

// A picture is asked about when it takes a turn, and again while it waits.
void other_queue(struct other *other)
{
    other->request.client.gone = note_asked;
    other->request.client.context = other;
    other_start(other);
    while (atomic_load(&other->asked) < 2 && !atomic_load(&other->there))
        pause_us(100);
    assert_false(atomic_load(&other->there));
}

enum status other_end(struct other *other)
{
    atomic_store(&other->told, true);
    pthread_join(other->thread, NULL);
    return other->status;
}

bool other_comes(struct other *other)
{
    int64_t until_ns = clock_ns() + PATIENCE_NS;
    while (!atomic_load(&other->there) && clock_ns() < until_ns)
        pause_us(100);
    return atomic_load(&other->there);
}
