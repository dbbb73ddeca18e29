#include "memory.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static _Thread_local bool ran_out;

static void *noted(void *memory)
{
    ran_out = ran_out || !memory;
    return memory;
}

void *memory_allocate(size_t bytes)
{
    return noted(malloc(bytes ? bytes : 1)); // of nothing, NULL would be no failure
}

void *memory_clear(size_t count, size_t bytes)
{
    return noted(count && bytes ? calloc(count, bytes) : calloc(1, 1));
}

void *memory_resize(void *memory, size_t bytes)
{
    return noted(realloc(memory, bytes ? bytes : 1));
}

struct growing {
    char **text;
    size_t *length, room;
};

static ssize_t append(void *context, const char *data, size_t bytes)
{
    struct growing *growing = context;
    size_t needed = *growing->length + bytes + 1;
    if (needed > growing->room) {
        size_t room = needed > 2 * growing->room ? needed : 2 * growing->room;
        char *grown = memory_resize(*growing->text, room);
        if (!grown)
            return 0;
        *growing->text = grown;
        growing->room = room;
    }
    memcpy(*growing->text + *growing->length, data, bytes);
    *growing->length += bytes;
    (*growing->text)[*growing->length] = '\0';
    return (ssize_t)bytes;
}

static int end(void *growing)
{
    free(growing);
    return 0;
}

FILE *memory_open(char **text, size_t *length)
{
    struct growing *growing = memory_allocate(sizeof *growing);
    *text = NULL;
    *length = 0;
    if (!growing)
        return NULL;
    *growing = (struct growing){text, length, 0};
    FILE *stream =
        fopencookie(growing, "w", (cookie_io_functions_t){.write = append, .close = end});
    if (!noted(stream))
        free(growing);
    return stream;
}

enum status memory_check(const char *what, enum status status)
{
    if (ran_out)
        status = status_fail(STATUS_OUT_OF_MEMORY, "%s: out of memory", what);
    ran_out = false;
    return status;
}
