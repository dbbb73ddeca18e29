#pragma once
// Memory that runs out, in tests. Its allocations ask for more than there can be, so that what
// fails fails in memory.c; a sanitizer gives nothing then, too.

#include <stdbool.h>

// The allocation of jansson after `count` more fails.
void fail_allocation(int count);

// Whether it has come to that. From here on all succeed.
bool allocation_failed(void);
