#pragma once
// Allocation for libraries that do not tell memory that ran out from broken input, or that drop
// what they could not store: these functions, given to them in place of the C library's, note a
// failure for the calling thread. Reentrant.

#include "status.h"
#include <stddef.h>
#include <stdio.h>

// As malloc(), calloc() and realloc(); the memory is for free().
void *memory_allocate(size_t bytes);
void *memory_clear(size_t count, size_t bytes);
void *memory_resize(void *memory, size_t bytes);

// As open_memstream(), whose own failures to grow are told by nobody: ask memory_check() once the
// stream is closed. *length is right after a flush too. No seeking. NULL: out of memory.
FILE *memory_open(char **text, size_t *length);

// STATUS_OUT_OF_MEMORY, whatever `status` is, if one of them has failed in this thread since the
// last call; else `status`. `what` starts the message.
enum status memory_check(const char *what, enum status status) CHECKED;
