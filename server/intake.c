#include "intake.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void intake_header(struct intake *intake, const char *name, const char *value)
{
    bool length = strcasecmp(name, "Content-Length") == 0;
    if (!length && strcasecmp(name, "Transfer-Encoding") != 0)
        return;
    *(length ? &intake->framing.length : &intake->framing.encoding) = value ? value : "";
    intake->framing.count++;
}

static enum status too_large(const struct intake *intake)
{
    return status_fail(STATUS_BODY_TOO_LARGE, "the body is over the limit of %lld bytes",
                       (long long)intake->max_bytes);
}

static enum status grow(struct intake *intake, size_t capacity)
{
    TRY(budget_take(intake->budget, (int64_t)(capacity - intake->capacity)));
    uint8_t *bytes = realloc(intake->bytes, capacity);
    if (!bytes) {
        budget_give(intake->budget, (int64_t)(capacity - intake->capacity));
        return status_fail(STATUS_OUT_OF_MEMORY, "no memory for a body of %zu bytes", capacity);
    }
    intake->bytes = bytes;
    intake->capacity = capacity;
    return STATUS_OK;
}

enum status intake_begin(struct intake *intake)
{
    const char *length = intake->framing.length, *encoding = intake->framing.encoding;
    // Two that disagree are how one request is smuggled past a proxy inside another, and a coding
    // that the library does not know is a body without an end (RFC 9112, 6.3).
    if (intake->framing.count > 1)
        return status_fail(STATUS_BAD_REQUEST, "more than one Content-Length or Transfer-Encoding");
    if (encoding && strcasecmp(encoding, "chunked") != 0)
        return status_fail(STATUS_BAD_REQUEST, "Transfer-Encoding: only chunked is known");
    if (!length)
        return STATUS_OK;
    char *end;
    errno = 0;
    long long bytes = strtoll(length, &end, 10);
    if (*end || bytes < 0 || end == length)
        return status_fail(STATUS_BAD_REQUEST, "Content-Length is not a number");
    if (errno || bytes > intake->max_bytes)
        return too_large(intake);
    return bytes > 0 ? grow(intake, (size_t)bytes) : STATUS_OK;
}

enum status intake_append(struct intake *intake, const void *bytes, size_t length)
{
    size_t limit = (size_t)intake->max_bytes, needed = intake->length + length;
    if (needed > limit)
        return too_large(intake);
    if (needed > intake->capacity) {
        size_t doubled = needed * 2 < 65536 ? 65536 : needed * 2;
        TRY(grow(intake, doubled < limit ? doubled : limit));
    }
    memcpy(intake->bytes + intake->length, bytes, length);
    intake->length = needed;
    return STATUS_OK;
}

void intake_release(struct intake *intake)
{
    budget_give(intake->budget, (int64_t)intake->capacity);
    free(intake->bytes);
    intake->bytes = NULL;
    intake->length = intake->capacity = 0;
}
