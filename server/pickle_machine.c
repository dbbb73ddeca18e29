#include "pickle_machine.h"
#include <stdlib.h>
#include <string.h>

enum status machine_init(struct machine *m, const char *name, const uint8_t *bytes, size_t length,
                         const char *const *globals)
{
    m->name = name;
    m->globals = globals;
    m->bytes = bytes;
    m->length = length;
    m->heap_room = length + 1;
    m->heap_used = 1;
    m->memo_room = length / 2 + 1;
    m->heap = malloc(m->heap_room * sizeof *m->heap);
    m->memo = malloc(m->memo_room * sizeof *m->memo);
    if (!m->heap || !m->memo)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: no memory for a pickle of %zu bytes", name,
                           length);
    return STATUS_OK;
}

void machine_release(struct machine *m)
{
    free(m->heap);
    free(m->memo);
    m->heap = m->memo = NULL;
}

enum status machine_push(struct machine *m, struct pickle_value value)
{
    if (m->stack_used == MACHINE_MAX_STACK)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: more than %d values on the stack",
                           m->name, m->at, MACHINE_MAX_STACK);
    m->stack[m->stack_used++] = value;
    return STATUS_OK;
}

enum status machine_pop(struct machine *m, struct pickle_value *value)
{
    if (m->stack_used == 0 || m->stack[m->stack_used - 1].kind == PICKLE_MARK)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: a value is missing on the stack",
                           m->name, m->at);
    *value = m->stack[--m->stack_used];
    return STATUS_OK;
}

enum status machine_pop_kind(struct machine *m, enum pickle_kind kind, const char *what,
                             struct pickle_value *value)
{
    TRY(machine_pop(m, value));
    if (value->kind != kind)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: expected %s on the stack", m->name,
                           m->at, what);
    return STATUS_OK;
}

enum status machine_find_mark(struct machine *m, size_t *count)
{
    for (*count = 0; *count < m->stack_used; ++*count)
        if (m->stack[m->stack_used - 1 - *count].kind == PICKLE_MARK)
            return STATUS_OK;
    return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: a mark is missing on the stack", m->name,
                       m->at);
}

enum status machine_store(struct machine *m, const struct pickle_value *values, size_t count,
                          int64_t *place)
{
    if (count > m->heap_room - m->heap_used)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: byte %zu: more values than torch.save puts into %zu bytes", m->name,
                           m->at, m->length);
    if (count)
        memcpy(m->heap + m->heap_used, values, count * sizeof *values);
    *place = (int64_t)m->heap_used;
    m->heap_used += count;
    return STATUS_OK;
}

enum status machine_take(struct machine *m, size_t count, const uint8_t **bytes)
{
    if (count > m->length - m->at)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: %zu bytes expected, %zu are left",
                           m->name, m->at, count, m->length - m->at);
    *bytes = m->bytes + m->at;
    m->at += count;
    return STATUS_OK;
}

enum status machine_take_number(struct machine *m, size_t n, uint64_t *number)
{
    const uint8_t *bytes = NULL;
    TRY(machine_take(m, n, &bytes));
    *number = 0;
    for (size_t i = 0; i < n; i++)
        *number |= (uint64_t)bytes[i] << (8 * i);
    return STATUS_OK;
}

enum status machine_memoize(struct machine *m, uint64_t index)
{
    struct pickle_value value;
    TRY(machine_pop(m, &value));
    // Python numbers its memo from 0 up without gaps.
    if (index > m->memo_used || index == m->memo_room)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: memo %llu after %zu of them", m->name,
                           m->at, (unsigned long long)index, m->memo_used);
    m->memo[index] = value;
    m->memo_used += index == m->memo_used;
    return machine_push(m, value);
}

enum status machine_check_top(struct machine *m, enum pickle_kind kind, const char *what)
{
    if (m->stack_used == 0 || m->stack[m->stack_used - 1].kind != kind)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: expected %s on the stack", m->name,
                           m->at, what);
    return STATUS_OK;
}
