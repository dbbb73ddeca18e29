#include "body.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// A stretch of the body or of a header.
struct slice {
    const char *at;
    size_t length;
};

static bool is_utf8(struct slice text)
{
    const unsigned char *c = (const unsigned char *)text.at, *end = c + text.length;
    while (c < end) {
        int more = *c < 0x80                 ? 0
                   : *c >= 0xc2 && *c < 0xe0 ? 1
                   : (*c & 0xf0) == 0xe0     ? 2
                   : *c >= 0xf0 && *c < 0xf5 ? 3
                                             : -1;
        if (more < 0 || end - c <= more)
            return false;
        bool overlong = (*c == 0xe0 && c[1] < 0xa0) || (*c == 0xf0 && c[1] < 0x90);
        bool outside = (*c == 0xed && c[1] > 0x9f) || (*c == 0xf4 && c[1] > 0x8f);
        if (overlong || outside)
            return false;
        for (c++; more > 0; more--, c++)
            if ((*c & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static enum status add_image(struct body *body, struct slice name, struct slice data,
                             int max_images)
{
    if (body->count == max_images)
        return status_fail(STATUS_TOO_MANY_IMAGES,
                           "more than %d images in one request (--max-images)", max_images);
    struct upload *image = &body->images[body->count++];
    image->bytes = (const uint8_t *)data.at;
    image->length = data.length;
    if (name.length > 0 && name.length < sizeof image->name && is_utf8(name) &&
        !memchr(name.at, '\0', name.length))
        snprintf(image->name, sizeof image->name, "%.*s", (int)name.length, name.at);
    else
        snprintf(image->name, sizeof image->name, "image-%d", body->count);
    return STATUS_OK;
}

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

static enum status add_field(struct body *body, struct slice name, struct slice data)
{
    char *field = name.length == 5 && memcmp(name.at, "top_k", 5) == 0    ? body->top_k
                  : name.length == 6 && memcmp(name.at, "logits", 6) == 0 ? body->logits
                                                                          : NULL;
    if (!field)
        return status_fail(STATUS_BAD_REQUEST,
                           "multipart: the form field \"%.*s\" is neither a file nor top_k nor "
                           "logits",
                           (int)(name.length < 64 ? name.length : 64), name.at);
    if (data.length >= sizeof body->top_k)
        return status_fail(STATUS_BAD_REQUEST, "multipart: the form field \"%.*s\" is too long",
                           (int)name.length, name.at);
    memcpy(field, data.at, data.length);
    field[data.length] = '\0';
    return STATUS_OK;
}

static enum status add_part(struct body *body, struct slice part, int max_images)
{
    const char *blank = memmem(part.at, part.length, "\r\n\r\n", 4);
    struct slice head, data, disposition, name, file_name;
    if (part.length >= 2 && memcmp(part.at, "\r\n", 2) == 0)
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no headers");
    if (!blank)
        return status_fail(STATUS_BAD_REQUEST, "multipart: the head of a part does not end");
    head = (struct slice){part.at, (size_t)(blank - part.at)};
    data = (struct slice){blank + 4, part.length - head.length - 4};
    if (!find_header(head, "Content-Disposition", &disposition))
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no Content-Disposition");
    if (header_parameter(disposition, "filename", &file_name))
        return add_image(body, file_name, data, max_images);
    if (!header_parameter(disposition, "name", &name))
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no name");
    return add_field(body, name, data);
}

// RFC 2046: "--boundary CRLF part CRLF --boundary CRLF part ... CRLF --boundary--".
static enum status parse_multipart(struct body *body, const char *content_type, struct slice bytes,
                                   int max_images)
{
    struct slice boundary;
    char mark[80];
    if (!header_parameter((struct slice){content_type, strlen(content_type)}, "boundary",
                          &boundary) ||
        boundary.length == 0 || boundary.length > 70)
        return status_fail(STATUS_BAD_REQUEST, "multipart: no boundary of 1 to 70 characters");
    size_t mark_length =
        (size_t)snprintf(mark, sizeof mark, "\r\n--%.*s", (int)boundary.length, boundary.at);
    // The first boundary may stand at the very start, without the line break.
    const char *end = bytes.at + bytes.length, *c;
    if (bytes.length >= mark_length - 2 && memcmp(bytes.at, mark + 2, mark_length - 2) == 0)
        c = bytes.at + mark_length - 2;
    else if ((c = memmem(bytes.at, bytes.length, mark, mark_length)))
        c += mark_length;
    else
        return status_fail(STATUS_BAD_REQUEST, "multipart: the boundary is not in the body");
    for (;;) {
        if (end - c >= 2 && memcmp(c, "--", 2) == 0)
            return STATUS_OK;
        while (c < end && (*c == ' ' || *c == '\t'))
            c++;
        if (end - c < 2 || memcmp(c, "\r\n", 2) != 0)
            return status_fail(STATUS_BAD_REQUEST, "multipart: a boundary line does not end");
        c += 2;
        const char *next = memmem(c, (size_t)(end - c), mark, mark_length);
        if (!next)
            return status_fail(STATUS_BAD_REQUEST, "multipart: the closing boundary is missing");
        TRY(add_part(body, (struct slice){c, (size_t)(next - c)}, max_images));
        c = next + mark_length;
    }
}

static bool has_type(const char *content_type, const char *type)
{
    size_t length = strlen(type);
    return content_type && strncasecmp(content_type, type, length) == 0 &&
           (content_type[length] == '\0' || strchr("; \t", content_type[length]));
}

static enum status parse(const char *content_type, struct slice bytes, int max_images,
                         struct body *body)
{
    if (bytes.length == 0)
        return status_fail(STATUS_NO_IMAGE, "the body is empty: send the image in it");
    if (has_type(content_type, "multipart/form-data"))
        TRY(parse_multipart(body, content_type, bytes, max_images));
    else if (has_type(content_type, "application/json"))
        return status_fail(STATUS_UNSUPPORTED_MEDIA,
                           "send the image itself or multipart/form-data, not JSON");
    else
        TRY(add_image(body, (struct slice){"", 0}, bytes, max_images));
    if (body->count == 0)
        return status_fail(STATUS_NO_IMAGE, "the form holds no file");
    return STATUS_OK;
}

enum status body_parse(const char *content_type, const uint8_t *bytes, size_t length,
                       int max_images, struct body *body)
{
    *body = (struct body){0};
    body->images = calloc((size_t)max_images, sizeof *body->images);
    if (!body->images)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    enum status status =
        parse(content_type, (struct slice){(const char *)bytes, length}, max_images, body);
    if (status != STATUS_OK)
        body_release(body);
    return status;
}

void body_release(struct body *body)
{
    free(body->images);
    *body = (struct body){0};
}
