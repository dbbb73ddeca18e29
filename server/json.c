// DESIGN. jansson takes 25 ns for each character of a string, most of the time of a request with a
// picture in base64. So it is given the text without what stands in its long strings, and these are
// put into its values afterwards.

#include "json.h"
#include "memory.h"
#include "utf8.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_NESTING = 64,
    MAX_VALUES = 100000,
    // Of a value beside the characters of a string; the largest is an empty object in a list.
    VALUE_BYTES = 256,
    MIN_LEFT_OUT = 256, // with both quotes
};

static enum status over_bound(const char *text, const char *at, const char *problem, int bound)
{
    size_t line = 1, column = 1;
    for (const char *c = text; c < at; c++) {
        if (*c == '\n')
            line++, column = 1;
        else if ((*c & 0xc0) != 0x80) // not within a character of UTF-8
            column++;
    }
    return status_fail(STATUS_BAD_REQUEST, "json: line %zu, column %zu: %s %d", line, column,
                       problem, bound);
}

// Behind the string whose first quote is at c.
static const char *skip_string(const char *c, const char *end)
{
    const char *start = ++c;
    for (; (c = memchr(c, '"', (size_t)(end - c))); c++) {
        const char *slash = c;
        while (slash > start && slash[-1] == '\\')
            slash--;
        if ((c - slash) % 2 == 0)
            return c + 1;
    }
    return end;
}

// Whether jansson need not see this string, quotes included: long, nothing in it to unescape or to
// check, and no key.
static bool is_left_out(const char *string, const char *behind, const char *end)
{
    if (behind - string < MIN_LEFT_OUT || behind[-1] != '"')
        return false;
    bool plain = true;
    for (const unsigned char *c = (const unsigned char *)string + 1;
         c < (const unsigned char *)behind - 1; c++)
        plain &= *c >= ' ' && *c < 0x80 && *c != '\\';
    while (behind < end && memchr(" \t\r\n", *behind, 4))
        behind++;
    return plain && !(behind < end && *behind == ':');
}

// As far as the text is well-formed this counts right; where it is not, jansson stops.
enum status json_measure(const char *text, size_t length, size_t *memory_bytes)
{
    const char *end = text + length;
    text += utf8_mark(text, length);
    size_t values = 0, kept = length;
    int depth = 0;
    bool in_word = false; // a number, true, false or null
    for (const char *c = text, *next; c < end; c = next) {
        bool word = false;
        next = c + 1;
        switch (*c) {
        case ' ':
        case '\t':
        case '\r':
        case '\n':
        case ',':
        case ':':
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case '[':
        case '{':
            values++;
            if (++depth > MAX_NESTING)
                return over_bound(text, c, "more levels of nesting than", MAX_NESTING);
            break;
        case '"':
            values++;
            next = skip_string(c, end);
            if (is_left_out(c, next, end))
                kept -= (size_t)(next - c);
            break;
        default:
            word = true;
            values += !in_word;
        }
        in_word = word;
        if (values > MAX_VALUES)
            return over_bound(text, c, "more values and keys than", MAX_VALUES);
    }
    // Of what jansson sees there are our copy and, while a string is read, its own two.
    *memory_bytes = length + 2 * kept + VALUE_BYTES * values;
    return STATUS_OK;
}

// The text with long strings made empty; returns its length.
static size_t condense(const char *text, size_t length, char *condensed)
{
    const char *end = text + length, *c = text;
    char *out = condensed;
    while (c < end) {
        const char *string = memchr(c, '"', (size_t)(end - c)), *behind;
        string = string ? string : end;
        behind = string < end ? skip_string(string, end) : end;
        bool left_out = is_left_out(string, behind, end);
        size_t kept = (size_t)((left_out ? string + 1 : behind) - c);
        memcpy(out, c, kept);
        out += kept;
        c = left_out ? behind - 1 : behind;
        if (left_out)
            *out++ = *c++;
    }
    return (size_t)(out - condensed);
}

// Puts back what condense() left out. *c moves through the text as the walk does through its
// values, which stand in the same order: from string to string.
static enum status restore(json_t *value, const char **c, const char *end)
{
    const char *key, *string;
    json_t *inner;
    size_t index;
    if (json_is_string(value)) {
        string = memchr(*c, '"', (size_t)(end - *c));
        *c = skip_string(string, end);
        size_t length = (size_t)(*c - string - 2);
        if (length > 0 && json_string_length(value) == 0 &&
            json_string_setn_nocheck(value, string + 1, length) != 0)
            return memory_check("json", STATUS_OUT_OF_MEMORY);
    } else if (json_is_array(value)) {
        json_array_foreach(value, index, inner) TRY(restore(inner, c, end));
    } else if (json_is_object(value)) {
        json_object_foreach(value, key, inner)
        {
            *c = skip_string(memchr(*c, '"', (size_t)(end - *c)), end);
            TRY(restore(inner, c, end));
        }
    }
    return STATUS_OK;
}

static enum status load(const char *text, size_t length, json_t **root)
{
    json_error_t error;
    enum status status = STATUS_OK;
    *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!*root)
        status = status_fail(STATUS_BAD_REQUEST, "json: line %d, column %d: %s", error.line,
                             error.column, error.text);
    status = memory_check("json", status);
    if (status != STATUS_OK) { // a list may have lost a member for lack of memory
        json_decref(*root);
        *root = NULL;
    }
    return status;
}

enum status json_parse(const char *text, size_t length, struct json_t **root)
{
    size_t memory_bytes, mark = utf8_mark(text, length);
    TRY(json_measure(text, length, &memory_bytes));
    text += mark; // RFC 8259, 8.1: it may be passed over
    length -= mark;
    char *condensed = malloc(length + 1);
    if (!condensed)
        return status_fail(STATUS_OUT_OF_MEMORY, "json: no memory for %zu bytes", length);
    size_t condensed_length = condense(text, length, condensed);
    enum status status = load(condensed, condensed_length, root);
    free(condensed);
    if (status != STATUS_OK && condensed_length < length)
        status = load(text, length, root); // says where in the whole text the error is
    if (status != STATUS_OK)
        return status;
    const char *c = text;
    status = restore(*root, &c, text + length);
    if (status != STATUS_OK) {
        json_decref(*root);
        *root = NULL;
    }
    return status;
}

enum status json_print(struct json_t *root, size_t flags, char **text)
{
    *text = root ? json_dumps(root, flags) : NULL;
    json_decref(root);
    enum status status = *text ? STATUS_OK : status_fail(STATUS_INTERNAL, "json: cannot be built");
    status = memory_check("json", status);
    if (status != STATUS_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

// Before any value is made, as jansson wants it.
__attribute__((constructor)) static void watch_memory(void)
{
    json_set_alloc_funcs(memory_allocate, free);
}
