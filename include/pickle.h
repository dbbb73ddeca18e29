#pragma once
// Python's pickles as inert values, for what torch.save writes: plain values, tuples, lists, dicts,
// and calls of globals, which are recorded and never carried out. Only the globals that the caller
// lists may occur, beside collections.OrderedDict, which is a dict. No value is followed by
// recursion, so one that holds itself does no harm. Memory: about 24 bytes for each of the
// pickle's. Format: Lib/pickletools.py of CPython

#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pickle_kind {
    PICKLE_OTHER,      // None, a bool, a float, a huge integer: nothing that anybody asks for
    PICKLE_INTEGER,    // number
    PICKLE_STRING,     // pickle_text()
    PICKLE_GLOBAL,     // number: which of the caller's list
    PICKLE_TUPLE,      // pickle_item()
    PICKLE_LIST,       // of values that are not kept
    PICKLE_DICT,       // pickle_next()
    PICKLE_PERSISTENT, // what lies outside the pickle: the items of the tuple that describes it
    PICKLE_CALL,       // two items: the global, the tuple of arguments
    PICKLE_MARK,       // never seen by the caller
};

struct pickle_value {
    enum pickle_kind kind;
    uint32_t length; // of a string, in bytes; of a tuple, in items
    int64_t number;  // for pickle.c but where said above
};

struct pickle;

// globals: "module.name", NULL behind the last. The caller keeps the bytes alive; `name` says in
// errors what they are. STATUS_BAD_WEIGHTS: not a pickle, or it wants a global that is not listed;
// longer than 4 MiB, which is over ten times what the largest network takes.
enum status pickle_open(const char *name, const uint8_t *bytes, size_t length,
                        const char *const *globals, struct pickle **pickle) CHECKED;

struct pickle_value pickle_top(const struct pickle *pickle);

// Item `index` of what has that many: else a value of PICKLE_OTHER.
struct pickle_value pickle_item(const struct pickle *pickle, struct pickle_value value,
                                uint32_t index);

const char *pickle_text(const struct pickle *pickle, struct pickle_value string); // no zero behind
bool pickle_equals(const struct pickle *pickle, struct pickle_value value, const char *text);

// The pairs of a dict whose key is a string, last first: *at is 0 before the first call, which the
// function moves on. false: there are no more.
bool pickle_next(const struct pickle *pickle, struct pickle_value dict, size_t *at,
                 struct pickle_value *key, struct pickle_value *value);

void pickle_close(struct pickle *pickle);
