#include "oip_numbers.h"
#include <stdbool.h>
#include <string.h>

enum { MAX_RANK = 8 };

// ---- where they are -----------------------------------------------------------------------------

static const char *skip_space(const char *c, const char *end)
{
    while (c < end && (*c == ' ' || *c == '\t' || *c == '\n' || *c == '\r'))
        c++;
    return c;
}

// Behind the string whose first quote is at c.
static const char *skip_string(const char *c, const char *end)
{
    for (c++; c < end && *c != '"'; c++)
        c += *c == '\\' && c + 1 < end;
    return c < end ? c + 1 : end;
}

// Behind the list whose bracket is at c; NULL if it does not end.
static const char *skip_list(const char *c, const char *end)
{
    size_t depth = 0;
    while (c < end) {
        if (*c == '"') {
            c = skip_string(c, end);
            continue;
        }
        depth += *c == '[';
        depth -= *c == ']';
        c++;
        if (depth == 0)
            return c;
    }
    return NULL;
}

static bool begins_with_string(const char *c, const char *end)
{
    while (c < end && *c == '[')
        c = skip_space(c + 1, end);
    return c < end && *c == '"';
}

static bool is_key(const char *c, const char *next, const char *name)
{
    size_t length = strlen(name);
    return (size_t)(next - c) == length + 2 && memcmp(c + 1, name, length) == 0;
}

enum status oip_numbers_find(const char *json, size_t length, struct oip_numbers *numbers)
{
    const char *end = json + length;
    bool in_inputs = false;
    size_t depth = 0; // 1 in the request, 2 in the list of inputs, 3 in an input
    *numbers = (struct oip_numbers){0};
    for (const char *c = json, *next; c < end; c = next) {
        next = c + 1;
        depth += *c == '{' || *c == '[';
        depth -= (*c == '}' || *c == ']') && depth > 0;
        if (*c != '"')
            continue;
        next = skip_string(c, end);
        const char *value = skip_space(next, end);
        if (value == end || *value != ':')
            continue;
        value = skip_space(value + 1, end);
        if (depth == 1)
            in_inputs = is_key(c, next, "inputs");
        if (depth != 3 || !in_inputs || !is_key(c, next, "data") || value == end || *value != '[' ||
            begins_with_string(value, end))
            continue;
        next = skip_list(value, end);
        if (!next || numbers->text)
            return status_fail(STATUS_BAD_REQUEST, "json: byte %zu: %s", (size_t)(value - json),
                               next ? "a second list of numbers, but only one input is taken"
                                    : "this list does not end");
        *numbers = (struct oip_numbers){value, (size_t)(next - value)};
    }
    return STATUS_OK;
}

// ---- what they are ------------------------------------------------------------------------------

struct reader {
    const char *at, *end;
    size_t index;             // of the number that comes next
    size_t strides[MAX_RANK]; // numbers in a list, from the outermost list to the innermost
    int levels;               // of lists
};

// Takes the character if it comes next.
static bool take(struct reader *reader, char character)
{
    reader->at = skip_space(reader->at, reader->end);
    bool found = reader->at < reader->end && *reader->at == character;
    reader->at += found;
    return found;
}

// A number as JSON writes it: without leading zeros.
static bool take_byte(struct reader *reader, uint8_t *byte)
{
    const char *start = skip_space(reader->at, reader->end), *c = start;
    unsigned value = 0;
    for (; c < reader->end && c - start < 4 && *c >= '0' && *c <= '9'; c++)
        value = value * 10 + (unsigned)(*c - '0');
    bool more = c < reader->end && (*c == '.' || *c == 'e' || *c == 'E');
    reader->at = c;
    *byte = (uint8_t)value;
    return c > start && value <= 255 && !more && !(*start == '0' && c - start > 1);
}

static enum status expected(const struct reader *reader, const char *what)
{
    return status_fail(STATUS_BAD_REQUEST, "data: behind the first %zu numbers the shape wants %s",
                       reader->index, what);
}

// Takes `count` brackets.
static enum status take_brackets(struct reader *reader, char bracket, int count)
{
    for (int i = 0; i < count; i++)
        if (!take(reader, bracket))
            return expected(reader, bracket == '[' ? "a list to begin" : "a list to end");
    return STATUS_OK;
}

// How many lists begin at the next number, which is as many as end before it.
static int boundaries(const struct reader *reader)
{
    int count = 0;
    while (count < reader->levels &&
           reader->index % reader->strides[reader->levels - 1 - count] == 0)
        count++;
    return count;
}

static enum status read_all(struct reader *reader, uint8_t *bytes, size_t count)
{
    size_t innermost = reader->strides[reader->levels - 1];
    TRY(take_brackets(reader, '[', reader->levels));
    for (reader->index = 0; reader->index < count;) {
        for (size_t i = 0; i < innermost; i++, reader->index++) {
            if (i > 0 && !take(reader, ','))
                return expected(reader, "another one");
            if (!take_byte(reader, &bytes[reader->index]))
                return status_fail(STATUS_BAD_REQUEST,
                                   "data[%zu] is not a whole number from 0 to 255", reader->index);
        }
        int lists = boundaries(reader);
        TRY(take_brackets(reader, ']', lists));
        if (reader->index < count && !take(reader, ','))
            return expected(reader, "another list");
        if (reader->index < count)
            TRY(take_brackets(reader, '[', lists));
    }
    return STATUS_OK;
}

enum status oip_numbers_read(const struct oip_numbers *numbers, const int64_t *shape, int rank,
                             uint8_t *bytes, size_t count)
{
    struct reader reader = {.at = numbers->text, .end = numbers->text + numbers->length};
    int levels = 0;
    while (levels <= rank && take(&reader, '['))
        levels++;
    if (levels != 1 && levels != rank)
        return status_fail(STATUS_BAD_REQUEST, "data: lists %s%d deep, but 1 or %d are expected",
                           levels > rank ? "more than " : "", levels > rank ? rank : levels, rank);
    reader.at = numbers->text;
    reader.levels = levels;
    reader.strides[0] = count;
    for (int i = levels - 1; i > 0; i--)
        reader.strides[i] = (size_t)shape[i] * (i + 1 < levels ? reader.strides[i + 1] : 1);
    return read_all(&reader, bytes, count);
}
