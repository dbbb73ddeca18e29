// See include/pickle.h. A pickle is a program for a small machine (pickle_machine.h); opcodes[]
// below are those that torch.save's pickles of tensors are made of. None calls anything, and none
// takes more time than the values that it consumes.

#include "pickle.h"
#include "pickle_machine.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 4 << 20 };

static const char ordered_dict[] = "collections.OrderedDict";
enum { ORDERED_DICT = -1 }; // as the number of a global

static enum status run_skip(struct machine *m, size_t n)
{
    const uint8_t *bytes;
    return machine_take(m, n, &bytes);
}

static enum status run_other(struct machine *m, size_t n)
{
    TRY(run_skip(m, n));
    return machine_push(m, (struct pickle_value){.kind = PICKLE_OTHER});
}

// Of four bytes with a sign, of fewer without.
static enum status run_integer(struct machine *m, size_t n)
{
    uint64_t bits;
    TRY(machine_take_number(m, n, &bits));
    const int64_t number = n == 4 ? (int32_t)(uint32_t)bits : (int64_t)bits;
    return machine_push(m, (struct pickle_value){.kind = PICKLE_INTEGER, .number = number});
}

static enum status run_long(struct machine *m, size_t n)
{
    uint64_t count, bits;
    TRY(machine_take_number(m, n, &count));
    if (count > 8)
        return run_other(m, (size_t)count);
    TRY(machine_take_number(m, (size_t)count, &bits));
    if (count > 0 && count < 8 && bits >> (8 * count - 1)) // negative
        bits |= UINT64_MAX << (8 * count);
    return machine_push(m, (struct pickle_value){.kind = PICKLE_INTEGER, .number = (int64_t)bits});
}

static enum status run_string(struct machine *m, size_t n)
{
    uint64_t count;
    TRY(machine_take_number(m, n, &count));
    const struct pickle_value string = {PICKLE_STRING, (uint32_t)count, (int64_t)m->at};
    TRY(run_skip(m, (size_t)count)); // so it fits 32 bits
    return machine_push(m, string);
}

static bool is_global(const struct machine *m, const char *full, struct pickle_value module,
                      struct pickle_value name)
{
    return strlen(full) == (size_t)module.length + 1 + name.length &&
           memcmp(full, m->bytes + module.number, module.length) == 0 &&
           full[module.length] == '.' &&
           memcmp(full + module.length + 1, m->bytes + name.number, name.length) == 0;
}

static enum status push_global(struct machine *m, struct pickle_value module,
                               struct pickle_value name)
{
    struct pickle_value global = {.kind = PICKLE_GLOBAL, .number = ORDERED_DICT};
    if (is_global(m, ordered_dict, module, name))
        return machine_push(m, global);
    for (global.number = 0; m->globals[global.number]; global.number++)
        if (is_global(m, m->globals[global.number], module, name))
            return machine_push(m, global);
    return status_fail(STATUS_BAD_WEIGHTS,
                       "%s: byte %zu: the pickle wants %.*s.%.*s: refused, as only a state_dict of "
                       "tensors is read",
                       m->name, m->at, module.length < 100 ? (int)module.length : 100,
                       (const char *)m->bytes + module.number,
                       name.length < 100 ? (int)name.length : 100,
                       (const char *)m->bytes + name.number);
}

static enum status take_line(struct machine *m, struct pickle_value *line)
{
    const uint8_t *begin = m->bytes + m->at;
    const uint8_t *end = memchr(begin, '\n', m->length - m->at);
    if (!end)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: a line without end", m->name, m->at);
    *line = (struct pickle_value){PICKLE_STRING, (uint32_t)(end - begin), (int64_t)m->at};
    m->at += line->length + 1;
    return STATUS_OK;
}

static enum status run_global(struct machine *m, size_t n)
{
    (void)n;
    struct pickle_value module = {0}, name = {0};
    TRY(take_line(m, &module));
    TRY(take_line(m, &name));
    return push_global(m, module, name);
}

static enum status run_stack_global(struct machine *m, size_t n)
{
    (void)n;
    struct pickle_value module = {0}, name = {0};
    TRY(machine_pop_kind(m, PICKLE_STRING, "a global's name", &name));
    TRY(machine_pop_kind(m, PICKLE_STRING, "a global's module", &module));
    return push_global(m, module, name);
}

static enum status run_mark(struct machine *m, size_t n)
{
    (void)n;
    return machine_push(m, (struct pickle_value){.kind = PICKLE_MARK});
}

// Of the n values on top.
static enum status run_tuple(struct machine *m, size_t n)
{
    struct pickle_value tuple = {.kind = PICKLE_TUPLE, .length = (uint32_t)n}, unused;
    if (n <= m->stack_used)
        TRY(machine_store(m, m->stack + m->stack_used - n, n, &tuple.number));
    for (size_t i = 0; i < n; i++)
        TRY(machine_pop(m, &unused));
    return machine_push(m, tuple);
}

static enum status run_marked_tuple(struct machine *m, size_t n)
{
    TRY(machine_find_mark(m, &n));
    TRY(run_tuple(m, n));
    m->stack[m->stack_used - 2] = m->stack[m->stack_used - 1]; // over the mark
    m->stack_used--;
    return STATUS_OK;
}

static enum status run_dict(struct machine *m, size_t n)
{
    (void)n;
    const struct pickle_value no_pair = {.kind = PICKLE_OTHER};
    struct pickle_value dict = {.kind = PICKLE_DICT};
    TRY(machine_store(m, &no_pair, 1, &dict.number));
    return machine_push(m, dict);
}

static enum status run_list(struct machine *m, size_t n)
{
    (void)n;
    return machine_push(m, (struct pickle_value){.kind = PICKLE_LIST});
}

static enum status run_append(struct machine *m, size_t n)
{
    struct pickle_value unused;
    for (size_t i = 0; i < n; i++)
        TRY(machine_pop(m, &unused));
    return machine_check_top(m, PICKLE_LIST, "a list");
}

static enum status run_appends(struct machine *m, size_t n)
{
    TRY(machine_find_mark(m, &n));
    m->stack_used -= n + 1;
    return machine_check_top(m, PICKLE_LIST, "a list");
}

// Into the dict on top of the stack. A key that is no string is one that nobody could ask for.
static enum status set_pair(struct machine *m, struct pickle_value key, struct pickle_value value)
{
    TRY(machine_check_top(m, PICKLE_DICT, "a dict"));
    struct pickle_value *dict = &m->heap[m->stack[m->stack_used - 1].number];
    if (key.kind != PICKLE_STRING)
        return STATUS_OK;
    const struct pickle_value pair[3] = {key, value, *dict};
    return machine_store(m, pair, 3, &dict->number);
}

static enum status run_set_item(struct machine *m, size_t n)
{
    (void)n;
    struct pickle_value key, value;
    TRY(machine_pop(m, &value));
    TRY(machine_pop(m, &key));
    return set_pair(m, key, value);
}

static enum status run_set_items(struct machine *m, size_t n)
{
    TRY(machine_find_mark(m, &n));
    if (n % 2)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: a key has no value", m->name, m->at);
    m->stack_used -= n + 1; // set_pair() pushes nothing: what lies above stays
    const struct pickle_value *above = m->stack + m->stack_used + 1;
    for (size_t i = 0; i < n; i += 2)
        TRY(set_pair(m, above[i], above[i + 1]));
    return machine_check_top(m, PICKLE_DICT, "a dict");
}

// The call of an OrderedDict makes a dict; every other one is only recorded.
static enum status run_reduce(struct machine *m, size_t n)
{
    struct pickle_value parts[2], call = {.kind = PICKLE_CALL, .length = 2};
    TRY(machine_pop_kind(m, PICKLE_TUPLE, "a tuple of arguments", &parts[1]));
    TRY(machine_pop_kind(m, PICKLE_GLOBAL, "a global to call", &parts[0]));
    if (parts[0].number == ORDERED_DICT && parts[1].length > 0)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: expected %s without arguments",
                           m->name, m->at, ordered_dict);
    if (parts[0].number == ORDERED_DICT)
        return run_dict(m, n);
    TRY(machine_store(m, parts, 2, &call.number));
    return machine_push(m, call);
}

static enum status run_persistent(struct machine *m, size_t n)
{
    (void)n;
    struct pickle_value value;
    TRY(machine_pop_kind(m, PICKLE_TUPLE, "the tuple of a storage", &value));
    value.kind = PICKLE_PERSISTENT;
    return machine_push(m, value);
}

// Sets attributes, which a state_dict has (_metadata) and nobody asks for.
static enum status run_build(struct machine *m, size_t n)
{
    (void)n;
    struct pickle_value unused;
    TRY(machine_pop(m, &unused));
    return machine_check_top(m, PICKLE_DICT, "a dict");
}

static enum status run_memoize(struct machine *m, size_t n)
{
    (void)n;
    return machine_memoize(m, m->memo_used);
}

static enum status run_put(struct machine *m, size_t n)
{
    uint64_t index;
    TRY(machine_take_number(m, n, &index));
    return machine_memoize(m, index);
}

static enum status run_get(struct machine *m, size_t n)
{
    uint64_t index;
    TRY(machine_take_number(m, n, &index));
    if (index >= m->memo_used)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %zu: memo %llu of %zu", m->name, m->at,
                           (unsigned long long)index, m->memo_used);
    return machine_push(m, m->memo[index]);
}

enum { STOP = '.' };

static const struct {
    enum status (*run)(struct machine *m, size_t n); // NULL: not known
    size_t n;
} opcodes[256] = {
    [0x80] = {run_skip, 1},   // PROTO: its opcodes say all there is to know
    [0x95] = {run_skip, 8},   // FRAME
    ['N'] = {run_other, 0},   // NONE
    [0x88] = {run_other, 0},  // NEWTRUE
    [0x89] = {run_other, 0},  // NEWFALSE
    ['G'] = {run_other, 8},   // BINFLOAT
    ['K'] = {run_integer, 1}, // BININT1
    ['M'] = {run_integer, 2}, // BININT2
    ['J'] = {run_integer, 4}, // BININT
    [0x8a] = {run_long, 1},   // LONG1
    [0x8c] = {run_string, 1}, // SHORT_BINUNICODE
    ['X'] = {run_string, 4},  // BINUNICODE
    ['c'] = {run_global, 0},       [0x93] = {run_stack_global, 0},
    ['('] = {run_mark, 0},         [')'] = {run_tuple, 0}, // EMPTY_TUPLE
    [0x85] = {run_tuple, 1},                               // TUPLE1
    [0x86] = {run_tuple, 2},                               // TUPLE2
    [0x87] = {run_tuple, 3},                               // TUPLE3
    ['t'] = {run_marked_tuple, 0}, ['}'] = {run_dict, 0},  // EMPTY_DICT
    [']'] = {run_list, 0},                                 // EMPTY_LIST
    ['a'] = {run_append, 1},       ['e'] = {run_appends, 0},
    ['s'] = {run_set_item, 2},     ['u'] = {run_set_items, 0},
    ['R'] = {run_reduce, 0},       ['Q'] = {run_persistent, 0}, // BINPERSID
    ['b'] = {run_build, 0},        [0x94] = {run_memoize, 0},
    ['q'] = {run_put, 1}, // BINPUT
    ['r'] = {run_put, 4}, // LONG_BINPUT
    ['h'] = {run_get, 1}, // BINGET
    ['j'] = {run_get, 4}, // LONG_BINGET
};

static enum status run(struct machine *m, struct pickle_value *top)
{
    const uint8_t *opcode;
    for (;;) {
        TRY(machine_take(m, 1, &opcode));
        if (*opcode == STOP)
            return machine_pop(m, top);
        if (!opcodes[*opcode].run)
            return status_fail(STATUS_BAD_WEIGHTS,
                               "%s: byte %zu: opcode 0x%02x is none that torch.save writes for "
                               "tensors",
                               m->name, m->at - 1, *opcode);
        TRY(opcodes[*opcode].run(m, opcodes[*opcode].n));
    }
}

struct pickle {
    struct machine machine; // for its heap and bytes
    struct pickle_value top;
};

enum status pickle_open(const char *name, const uint8_t *bytes, size_t length,
                        const char *const *globals, struct pickle **pickle)
{
    *pickle = NULL;
    if (length > MAX_BYTES)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: a pickle of %zu bytes, expected <= %d", name,
                           length, MAX_BYTES);
    struct pickle *opened = calloc(1, sizeof *opened);
    if (!opened)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: no memory for %zu bytes", name,
                           sizeof *opened);
    enum status status = machine_init(&opened->machine, name, bytes, length, globals);
    if (status == STATUS_OK)
        status = run(&opened->machine, &opened->top);
    if (status != STATUS_OK) {
        pickle_close(opened);
        return status;
    }
    *pickle = opened;
    return STATUS_OK;
}

struct pickle_value pickle_top(const struct pickle *pickle)
{
    return pickle->top;
}

struct pickle_value pickle_item(const struct pickle *pickle, struct pickle_value value,
                                uint32_t index)
{
    const bool has_items =
        value.kind == PICKLE_TUPLE || value.kind == PICKLE_PERSISTENT || value.kind == PICKLE_CALL;
    if (!has_items || index >= value.length)
        return (struct pickle_value){.kind = PICKLE_OTHER};
    return pickle->machine.heap[value.number + index];
}

const char *pickle_text(const struct pickle *pickle, struct pickle_value string)
{
    return (const char *)pickle->machine.bytes + string.number;
}

bool pickle_equals(const struct pickle *pickle, struct pickle_value value, const char *text)
{
    return value.kind == PICKLE_STRING && value.length == strlen(text) &&
           memcmp(pickle_text(pickle, value), text, value.length) == 0;
}

bool pickle_next(const struct pickle *pickle, struct pickle_value dict, size_t *at,
                 struct pickle_value *key, struct pickle_value *value)
{
    const struct pickle_value *heap = pickle->machine.heap;
    *at = (size_t)heap[*at ? *at + 2 : (size_t)dict.number].number;
    if (*at == 0)
        return false;
    *key = heap[*at];
    *value = heap[*at + 1];
    return true;
}

void pickle_close(struct pickle *pickle)
{
    if (!pickle)
        return;
    machine_release(&pickle->machine);
    free(pickle);
}
