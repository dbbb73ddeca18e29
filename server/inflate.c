#define ZLIB_CONST
#include "inflate.h"
#include "memory.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

enum {
    MIN_CAPACITY = 4096,
    MAX_STEP = 1 << 30,    // zlib counts what it is given in an unsigned int
    GZIP = 16 + MAX_WBITS, // inflateInit2() wants to know what kind of data it is in these
    ZLIB = MAX_WBITS,
    RAW_DEFLATE = -MAX_WBITS,
};

static enum status read_encoding(const char *text, const char **name)
{
    static const struct {
        const char *text, *name;
    } known[] = {{"", NULL},
                 {"identity", NULL},
                 {"gzip", "gzip"},
                 {"x-gzip", "gzip"},
                 {"deflate", "deflate"}};
    text = text ? text + strspn(text, " \t") : "";
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t", text[length - 1]))
        length--;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (length == strlen(known[i].text) && strncasecmp(text, known[i].text, length) == 0) {
            *name = known[i].name;
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_UNSUPPORTED_MEDIA,
                       "Content-Encoding: \"%.*s\" is neither gzip nor deflate nor identity",
                       (int)(length < 64 ? length : 64), text);
}

// What starts raw deflate data and looks like zlib's header would be a stored block with a bit set
// in its padding, which no compressor writes.
static int window_bits(const char *encoding, const uint8_t *bytes, size_t length)
{
    if (strcmp(encoding, "gzip") == 0)
        return GZIP;
    bool zlib =
        length >= 2 && (bytes[0] & 0x8f) == Z_DEFLATED && (bytes[0] << 8 | bytes[1]) % 31 == 0;
    return zlib ? ZLIB : RAW_DEFLATE;
}

// Room for more: at least for one byte over the limit, by which it is seen that there are too many.
static enum status grow(struct inflated *out, size_t wanted, size_t max_bytes)
{
    size_t capacity = wanted < MIN_CAPACITY ? MIN_CAPACITY : wanted;
    if (capacity > max_bytes + 1)
        capacity = max_bytes + 1;
    if (out->budget)
        TRY(budget_take(out->budget, (int64_t)(capacity - out->capacity)));
    uint8_t *memory = realloc(out->memory, capacity);
    if (!memory) {
        if (out->budget)
            budget_give(out->budget, (int64_t)(capacity - out->capacity));
        return status_fail(STATUS_OUT_OF_MEMORY, "no memory for a body of %zu bytes", capacity);
    }
    out->memory = memory;
    out->capacity = capacity;
    return STATUS_OK;
}

// Runs zlib once, over as much as it can count; *at moves on in the input.
static int step(z_stream *stream, const uint8_t *bytes, size_t length, size_t *at,
                struct inflated *out)
{
    size_t input = length - *at, room = out->capacity - out->length;
    stream->next_in = bytes + *at;
    stream->avail_in = (uInt)(input < MAX_STEP ? input : MAX_STEP);
    stream->next_out = out->memory + out->length;
    stream->avail_out = (uInt)(room < MAX_STEP ? room : MAX_STEP);
    int code = inflate(stream, Z_NO_FLUSH);
    *at = (size_t)(stream->next_in - bytes);
    out->length = (size_t)(stream->next_out - out->memory);
    return code;
}

static enum status inflate_all(z_stream *stream, const char *encoding, const uint8_t *bytes,
                               size_t length, size_t max_bytes, struct inflated *out)
{
    bool many = strcmp(encoding, "gzip") == 0;
    for (size_t at = 0;;) {
        if (out->length == out->capacity)
            TRY(grow(out, 2 * (out->capacity ? out->capacity : length), max_bytes));
        int code = step(stream, bytes, length, &at, out);
        if (out->length > max_bytes)
            return status_fail(STATUS_BODY_TOO_LARGE,
                               "%s: the body is over the limit of %zu bytes once decompressed",
                               encoding, max_bytes);
        if (code == Z_STREAM_END && at == length)
            return STATUS_OK;
        if (code == Z_STREAM_END && !(many && inflateReset(stream) == Z_OK))
            return status_fail(STATUS_BAD_REQUEST, "%s: byte %zu: more data behind the end",
                               encoding, at);
        if (code == Z_MEM_ERROR)
            return status_fail(STATUS_OUT_OF_MEMORY, "%s: out of memory", encoding);
        if (code == Z_BUF_ERROR) // there was room to write, so there was nothing to read
            return status_fail(STATUS_BAD_REQUEST, "%s: the data is cut off", encoding);
        if (code != Z_OK && code != Z_STREAM_END)
            return status_fail(STATUS_BAD_REQUEST, "%s: byte %zu: %s", encoding, at,
                               stream->msg ? stream->msg : "a preset dictionary is needed");
    }
}

enum status inflate_body(const char *encoding, const uint8_t *bytes, size_t length,
                         size_t max_bytes, struct budget *budget, struct inflated *out)
{
    const char *name = NULL;
    *out = (struct inflated){.bytes = bytes, .length = length};
    TRY(read_encoding(encoding, &name));
    if (!name)
        return STATUS_OK;
    *out = (struct inflated){.budget = budget};
    z_stream stream = {0};
    if (inflateInit2(&stream, window_bits(name, bytes, length)) != Z_OK)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: out of memory", name);
    enum status status = inflate_all(&stream, name, bytes, length, max_bytes, out);
    inflateEnd(&stream);
    out->bytes = out->memory;
    if (status != STATUS_OK)
        inflate_release(out);
    return status;
}

void inflate_release(struct inflated *inflated)
{
    free(inflated->memory);
    if (inflated->budget)
        budget_give(inflated->budget, (int64_t)inflated->capacity);
    *inflated = (struct inflated){0};
}

static void *allocate(void *context, unsigned count, unsigned bytes)
{
    (void)context;
    return memory_allocate((size_t)count * bytes);
}

static void release(void *context, void *memory)
{
    (void)context;
    free(memory);
}

bool inflate_text(const uint8_t *bytes, size_t length, uint8_t *out, size_t capacity, size_t *count)
{
    z_stream stream = {.zalloc = allocate, .zfree = release};
    *count = 0;
    if (length > UINT32_MAX || capacity > UINT32_MAX || inflateInit(&stream) != Z_OK)
        return false;
    stream.next_in = bytes;
    stream.avail_in = (uInt)length;
    stream.next_out = out;
    stream.avail_out = (uInt)capacity;
    int code = inflate(&stream, Z_SYNC_FLUSH);
    *count = capacity - stream.avail_out;
    if (code == Z_OK && stream.avail_in > 0)
        *count = capacity + 1;
    inflateEnd(&stream);
    return code == Z_STREAM_END || code == Z_OK || code == Z_BUF_ERROR;
}

uint32_t inflate_crc(uint32_t crc, const uint8_t *bytes, size_t length)
{
    return (uint32_t)crc32_z(crc, bytes, length);
}
