#include "multipart.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

// The value of `key` in a header like `form-data; name="file"; filename="a \"b\".jpg"`, without its
// quotes. Browsers and curl escape a quote with a backslash or as %22; both are left as they are.
static bool header_parameter(struct slice header, const char *key, struct slice *value)
{
    const char *end = header.at + header.length, *c = memchr(header.at, ';', header.length);
    size_t key_length = strlen(key);
    while (c && c < end) {
        for (c++; c < end && (*c == ' ' || *c == '\t'); c++)
            ;
        const char *name = c;
        while (c < end && *c != '=' && *c != ';')
            c++;
        bool match = (size_t)(c - name) == key_length && strncasecmp(name, key, key_length) == 0;
        if (c < end && *c == '=')
            c++;
        bool quoted = c < end && *c == '"';
        const char *start = c += quoted;
        while (c < end && (quoted ? *c != '"' : *c != ';'))
            c += quoted && *c == '\\' && c + 1 < end ? 2 : 1;
        if (match) {
            *value = (struct slice){start, (size_t)(c - start)};
            while (!quoted && value->length > 0 && start[value->length - 1] == ' ')
                value->length--;
            return true;
        }
        c = c < end ? memchr(c, ';', (size_t)(end - c)) : NULL;
    }
    return false;
}

// The value of one header among the lines of a part's head.
static bool find_header(struct slice head, const char *name, struct slice *value)
{
    size_t name_length = strlen(name);
    for (const char *line = head.at, *end = head.at + head.length; line < end;) {
        const char *next = memmem(line, (size_t)(end - line), "\r\n", 2);
        size_t length = (size_t)((next ? next : end) - line);
        if (length > name_length && line[name_length] == ':' &&
            strncasecmp(line, name, name_length) == 0) {
            *value = (struct slice){line + name_length + 1, length - name_length - 1};
            return true;
        }
        line = next ? next + 2 : end;
    }
    return false;
}

static enum status read_part(struct slice bytes, struct part *part)
{
    const char *blank = memmem(bytes.at, bytes.length, "\r\n\r\n", 4);
    struct slice head, disposition;
    if (bytes.length >= 2 && memcmp(bytes.at, "\r\n", 2) == 0)
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no headers");
    if (!blank)
        return status_fail(STATUS_BAD_REQUEST, "multipart: the head of a part does not end");
    head = (struct slice){bytes.at, (size_t)(blank - bytes.at)};
    *part = (struct part){.data = {blank + 4, bytes.length - head.length - 4}};
    if (!find_header(head, "Content-Disposition", &disposition))
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no Content-Disposition");
    part->is_file = header_parameter(disposition, "filename", &part->name);
    if (!part->is_file && !header_parameter(disposition, "name", &part->name))
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no name");
    return STATUS_OK;
}

enum status multipart_begin(struct multipart *form, const char *content_type, const uint8_t *bytes,
                            size_t length)
{
    struct slice boundary;
    if (!header_parameter((struct slice){content_type, strlen(content_type)}, "boundary",
                          &boundary) ||
        boundary.length == 0 || boundary.length > MULTIPART_MAX_BOUNDARY)
        return status_fail(STATUS_BAD_REQUEST, "multipart: no boundary of 1 to %d characters",
                           MULTIPART_MAX_BOUNDARY);
    *form = (struct multipart){.at = (const char *)bytes, .end = (const char *)bytes + length};
    form->mark_length = (size_t)snprintf(form->mark, sizeof form->mark, "\r\n--%.*s",
                                         (int)boundary.length, boundary.at);
    // The first boundary may stand at the very start, without the line break.
    if (length >= form->mark_length - 2 &&
        memcmp(form->at, form->mark + 2, form->mark_length - 2) == 0)
        form->at += form->mark_length - 2;
    else if ((form->at = memmem(form->at, length, form->mark, form->mark_length)))
        form->at += form->mark_length;
    else
        return status_fail(STATUS_BAD_REQUEST, "multipart: the boundary is not in the body");
    return STATUS_OK;
}

enum status multipart_next(struct multipart *form, struct part *part, bool *found)
{
    const char *c = form->at, *end = form->end;
    *found = !(end - c >= 2 && memcmp(c, "--", 2) == 0);
    if (!*found)
        return STATUS_OK;
    while (c < end && (*c == ' ' || *c == '\t'))
        c++;
    if (end - c < 2 || memcmp(c, "\r\n", 2) != 0)
        return status_fail(STATUS_BAD_REQUEST, "multipart: a boundary line does not end");
    c += 2;
    const char *next = memmem(c, (size_t)(end - c), form->mark, form->mark_length);
    if (!next)
        return status_fail(STATUS_BAD_REQUEST, "multipart: the closing boundary is missing");
    form->at = next + form->mark_length;
    return read_part((struct slice){c, (size_t)(next - c)}, part);
}
