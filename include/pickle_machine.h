#pragma once
// The machine that a pickle runs on (pickle.h): the bytes, a stack, a memo, and a heap for what
// tuples, calls and dicts hold. All have a fixed size: the heap holds as many values as the pickle
// has bytes, the memo half of that, both far more than torch.save needs. Every function checks what
// it needs and says STATUS_BAD_WEIGHTS with the place in the pickle.

#include "pickle.h"

enum { MACHINE_MAX_STACK = 1 << 14 }; // Python writes dicts and lists in pieces of 1000 items

struct machine {
    const char *name; // for errors
    const char *const *globals;
    const uint8_t *bytes;
    size_t length, at; // `at`: the next byte to be read
    // A tuple's or a call's number is the place of its first item. A dict's number is the place of
    // a value whose number is the place of the dict's last pair, 0 for none; a pair is three
    // values: key, value, and one whose number is the place of the pair before. Place 0 holds
    // nothing.
    struct pickle_value *heap;
    size_t heap_room, heap_used;
    struct pickle_value *memo;
    size_t memo_room, memo_used;
    struct pickle_value stack[MACHINE_MAX_STACK];
    size_t stack_used;
};

// *m: all zero. STATUS_OUT_OF_MEMORY; machine_release() is due in any case.
enum status machine_init(struct machine *m, const char *name, const uint8_t *bytes, size_t length,
                         const char *const *globals) CHECKED;
void machine_release(struct machine *m);

enum status machine_take(struct machine *m, size_t count, const uint8_t **bytes) CHECKED;
// Little-endian, of n <= 8 bytes.
enum status machine_take_number(struct machine *m, size_t n, uint64_t *number) CHECKED;

enum status machine_push(struct machine *m, struct pickle_value value) CHECKED;
// A mark is no value: it cannot be popped.
enum status machine_pop(struct machine *m, struct pickle_value *value) CHECKED;
// `what` says in the error what the kind is.
enum status machine_pop_kind(struct machine *m, enum pickle_kind kind, const char *what,
                             struct pickle_value *value) CHECKED;
enum status machine_check_top(struct machine *m, enum pickle_kind kind, const char *what) CHECKED;
// *count: of the values above the last mark. Nothing moves.
enum status machine_find_mark(struct machine *m, size_t *count) CHECKED;

// Copies the values to the end of the heap.
enum status machine_store(struct machine *m, const struct pickle_value *values, size_t count,
                          int64_t *place) CHECKED;

// Writes the value on top into the memo.
enum status machine_memoize(struct machine *m, uint64_t index) CHECKED;
