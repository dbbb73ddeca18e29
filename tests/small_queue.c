#include "small_queue.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct queue *open_queue(void)
{
    static uint8_t pixels[CAPACITY * PIXEL_BYTES];
    struct queue *queue;
    assert_int_equal(queue_create(CAPACITY, pixels, PIXEL_BYTES, CLASSES, &queue), STATUS_OK);
    return queue;
}

struct batch_sizes up_to(int count)
{
    return (struct batch_sizes){count, count};
}
