#include "failing_memory.h"
#include "memory.h"
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>

static int left;

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void *allocate(size_t bytes)
{
    return memory_allocate(left-- == 0 ? PTRDIFF_MAX : bytes);
}

void fail_allocation(int count)
{
    left = count;
    json_set_alloc_funcs(allocate, free);
}

bool allocation_failed(void)
{
    json_set_alloc_funcs(memory_allocate, free);
    return left < 0;
}
