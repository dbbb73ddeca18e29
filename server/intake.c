#include "intake.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *intake_path(const char *method, const char *target)
{
    size_t scheme = strncasecmp(target, "http://", 7) == 0    ? 7
                    : strncasecmp(target, "https://", 8) == 0 ? 8
                                                              : 0;
    size_t authority = strcspn(target + scheme, "/");
    if (scheme == 0 || authority == 0)
        return target;
    const char *path = target + scheme + authority;
    return *path ? path : strcmp(method, "OPTIONS") == 0 ? "*" : "/";
}

#define LETTERS_AND_DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// RFC 9110, 5.1: above all no blank before the colon. A line that is folded onto a header's is
// taken by libmicrohttpd 0.9.75 for more of its name.
static bool is_name(const char *name)
{
    static const char *const framing[] = {"Content-Length", "Transfer-Encoding"};
    for (size_t i = 0; i < sizeof framing / sizeof *framing; i++)
        if (strncasecmp(name, framing[i], strlen(framing[i])) == 0 && name[strlen(framing[i])])
            return false;
    return *name && name[strspn(name, LETTERS_AND_DIGITS "!#$%&'*+-.^_`|~")] == '\0';
}

void intake_header(struct intake *intake, const char *name, const char *value)
{
    value = value ? value : "";
    if (!is_name(name) || strpbrk(value, "\r\n"))
        intake->framing.malformed = true;
    if (strcasecmp(name, "Host") == 0) {
        intake->framing.host = value;
        intake->framing.hosts++;
    }
    bool length = strcasecmp(name, "Content-Length") == 0;
    if (!length && strcasecmp(name, "Transfer-Encoding") != 0)
        return;
    *(length ? &intake->framing.length : &intake->framing.encoding) = value;
    intake->framing.count++;
}

static enum status check_host(const char *host, int count, bool needed)
{
    if (count > 1 || (count == 0 && needed))
        return status_fail(STATUS_BAD_REQUEST,
                           count > 1 ? "more than one Host" : "there is no Host");
    if (count == 0)
        return STATUS_OK;
    size_t length = strspn(host, LETTERS_AND_DIGITS "-._~%!$&'()*+,;=:[]");
    if (host[length + strspn(host + length, " \t")] != '\0')
        return status_fail(STATUS_BAD_REQUEST, "Host: \"%.64s\" is no name or address", host);
    return STATUS_OK;
}

enum status intake_check(const struct intake *intake, bool needs_host)
{
    const char *encoding = intake->framing.encoding;
    if (intake->framing.malformed)
        return status_fail(STATUS_BAD_REQUEST,
                           "a header is malformed: a blank before its colon, a folded line, or "
                           "another character that must not be there");
    // Two that disagree are how one request is smuggled past a proxy inside another, and a coding
    // that the library does not know is a body without an end (RFC 9112, 6.3).
    if (intake->framing.count > 1)
        return status_fail(STATUS_BAD_REQUEST, "more than one Content-Length or Transfer-Encoding");
    if (encoding && strcasecmp(encoding, "chunked") != 0)
        return status_fail(STATUS_BAD_REQUEST, "Transfer-Encoding: only chunked is known");
    return check_host(intake->framing.host, intake->framing.hosts, needs_host);
}

static enum status too_large(const struct intake *intake)
{
    return status_fail(STATUS_BODY_TOO_LARGE, "the body is over the limit of %lld bytes",
                       (long long)intake->max_bytes);
}

// What a body takes of the budget before it has arrived: a promise costs its client nothing.
enum { PROMISED_BYTES = 1 << 16 };

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

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

enum status intake_begin(struct intake *intake)
{
    const char *length = intake->framing.length;
    if (!length)
        return STATUS_OK;
    char *end;
    errno = 0;
    long long bytes = strtoll(length, &end, 10);
    if (*end || bytes < 0 || end == length)
        return status_fail(STATUS_BAD_REQUEST, "Content-Length is not a number");
    if (errno || bytes > intake->max_bytes)
        return too_large(intake);
    TRY(budget_check(intake->budget, bytes));
    intake->declared = (size_t)bytes;
    return bytes > 0 ? grow(intake, least(intake->declared, PROMISED_BYTES)) : STATUS_OK;
}

// By half of what is needed more than that, if there is room for it.
static enum status grow_ahead(struct intake *intake, size_t needed)
{
    const size_t most = intake->declared ? intake->declared : (size_t)intake->max_bytes;
    size_t ahead = needed + needed / 2;
    ahead = least(ahead < PROMISED_BYTES ? PROMISED_BYTES : ahead, most);
    if (ahead > needed && grow(intake, ahead) == STATUS_OK)
        return STATUS_OK;
    return grow(intake, needed);
}

enum status intake_append(struct intake *intake, const void *bytes, size_t length)
{
    const size_t needed = intake->length + length;
    if (needed > (size_t)intake->max_bytes)
        return too_large(intake);
    if (needed > intake->capacity)
        TRY(grow_ahead(intake, needed));
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
