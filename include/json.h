#pragma once
// JSON by jansson: out of its values, and into them what comes from outside, with the bounds that
// jansson lacks: 64 levels of nesting (its parser recurses, our threads have small stacks) and
// 100,000 values and keys (a value of two characters takes a hundred bytes). Both are checked
// before it sees the text. Reentrant.

#include "status.h"
#include <stddef.h>

struct json_t; // jansson's json_t, for those who include jansson.h

// The most memory that json_parse() takes for this text, and the values behind it.
// STATUS_BAD_REQUEST: over one of the bounds; nothing else is looked for.
enum status json_measure(const char *text, size_t length, size_t *memory_bytes) CHECKED;

// text: one object or list in UTF-8, after a byte order mark or without. *root: the caller's to
// json_decref(). STATUS_BAD_REQUEST: malformed, over a bound, a key twice in an object, a zero byte
// in a string; says the line and the column, in characters from 1. STATUS_OUT_OF_MEMORY.
enum status json_parse(const char *text, size_t length, struct json_t **root) CHECKED;

// Writes a value, and decrefs it. It need not be looked at while it is built: what jansson could
// not make or add is NULL or missing, and is found here. flags: jansson's. *text: malloc'ed,
// zero-terminated. STATUS_OUT_OF_MEMORY, also if some of the value is missing for it.
// STATUS_INTERNAL: root is NULL.
enum status json_print(struct json_t *root, size_t flags, char **text) CHECKED;
