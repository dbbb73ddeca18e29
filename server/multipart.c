#include "multipart.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n'; // with those of a folded line
}

static struct slice trim(const char *at, const char *end)
{
    while (at < end && is_blank(*at))
        at++;
    while (end > at && is_blank(end[-1]))
        end--;
    return (struct slice){at, (size_t)(end - at)};
}

static bool equals(struct slice text, const char *word)
{
    return text.length == strlen(word) &&
           (text.length == 0 || strncasecmp(text.at, word, text.length) == 0);
}

// The value of `key` in a header like `form-data; name="file"; filename="a \"b\".jpg"`, without its
// quotes. Browsers and curl escape a quote with a backslash or as %22; both are left as they are.
static bool header_parameter(struct slice header, const char *key, struct slice *value)
{
    const char *end = header.at + header.length, *c = memchr(header.at, ';', header.length);
    while (c && c < end) {
        const char *name = ++c;
        while (c < end && *c != '=' && *c != ';')
            c++;
        bool match = equals(trim(name, c), key);
        for (c += c < end && *c == '='; c < end && is_blank(*c); c++)
            ;
        bool quoted = c < end && *c == '"';
        const char *start = c += quoted;
        while (c < end && (quoted ? *c != '"' : *c != ';'))
            c += quoted && *c == '\\' && c + 1 < end ? 2 : 1;
        if (match) {
            *value = quoted ? (struct slice){start, (size_t)(c - start)} : trim(start, c);
            return true;
        }
        c = c < end ? memchr(c, ';', (size_t)(end - c)) : NULL;
    }
    return false;
}

// After the line at c, and after those that are folded onto it.
static const char *skip_line(const char *c, const char *end)
{
    do {
        const char *next = memchr(c, '\n', (size_t)(end - c));
        c = next ? next + 1 : end;
    } while (c < end && (*c == ' ' || *c == '\t'));
    return c;
}

// The value of one header among the lines of a part's head; at is NULL if there is none.
static struct slice find_header(struct slice head, const char *name)
{
    const char *end = head.at + head.length;
    for (const char *line = head.at, *next; line < end; line = next) {
        next = skip_line(line, end);
        const char *colon = memchr(line, ':', (size_t)(next - line));
        if (colon && equals(trim(line, colon), name))
            return trim(colon + 1, next);
    }
    return (struct slice){NULL, 0};
}

// The length of the line break at c; 0 where there is none.
static size_t line_break(const char *c, const char *end)
{
    if (c < end && *c == '\n')
        return 1;
    return end - c >= 2 && memcmp(c, "\r\n", 2) == 0 ? 2 : 0;
}

// The lines before the first empty one.
static enum status read_head(struct slice bytes, struct slice *head, struct slice *data)
{
    const char *c = bytes.at, *end = bytes.at + bytes.length;
    if (line_break(c, end) > 0)
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no headers");
    while (c < end && line_break(c, end) == 0) {
        const char *next = memchr(c, '\n', (size_t)(end - c));
        c = next ? next + 1 : end;
    }
    if (c == end)
        return status_fail(STATUS_BAD_REQUEST, "multipart: the head of a part does not end");
    *head = (struct slice){bytes.at, (size_t)(c - bytes.at)};
    c += line_break(c, end);
    *data = (struct slice){c, (size_t)(end - c)};
    return STATUS_OK;
}

static enum status read_encoding(struct slice encoding, struct part *part)
{
    static const char *const none[] = {"", "binary", "8bit", "7bit"};
    part->base64 = equals(encoding, "base64");
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (equals(encoding, none[i]))
            return STATUS_OK;
    if (part->base64)
        return STATUS_OK;
    return status_fail(STATUS_BAD_REQUEST,
                       "multipart: Content-Transfer-Encoding \"%.*s\": only base64 is known",
                       (int)(encoding.length < 64 ? encoding.length : 64), encoding.at);
}

static enum status read_part(struct slice bytes, struct part *part)
{
    struct slice head;
    *part = (struct part){0};
    TRY(read_head(bytes, &head, &part->data));
    struct slice disposition = find_header(head, "Content-Disposition");
    if (!disposition.at)
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no Content-Disposition");
    bool plain = header_parameter(disposition, "filename", &part->name);
    bool extended = header_parameter(disposition, "filename*", &part->extended);
    struct slice pieces; // of a long name (RFC 2231), which are not put together
    part->is_file = plain || extended || header_parameter(disposition, "filename*0", &pieces) ||
                    header_parameter(disposition, "filename*0*", &pieces);
    if (!part->is_file && !header_parameter(disposition, "name", &part->name))
        return status_fail(STATUS_BAD_REQUEST, "multipart: a part has no name");
    part->type = find_header(head, "Content-Type");
    return read_encoding(find_header(head, "Content-Transfer-Encoding"), part);
}

// ---- names --------------------------------------------------------------------------------------

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 'a' - 'A';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// UTF-8''%e2%82%ac.jpg, or ISO-8859-1'en'%A3.jpg; 0 where it is neither.
static size_t decode_extended(struct slice text, char *name, size_t size)
{
    const char *end = text.at + text.length;
    const char *language = memchr(text.at, '\'', text.length);
    const char *c = language ? memchr(language + 1, '\'', (size_t)(end - language - 1)) : NULL;
    size_t length = 0;
    if (!c)
        return 0;
    struct slice charset = {text.at, (size_t)(language - text.at)};
    bool latin1 = equals(charset, "iso-8859-1");
    if (!latin1 && !equals(charset, "utf-8"))
        return 0;
    for (c++; c < end; c++) {
        unsigned char byte = (unsigned char)*c;
        if (*c == '%' && end - c > 2 && hex(c[1]) >= 0 && hex(c[2]) >= 0) {
            byte = (unsigned char)(hex(c[1]) << 4 | hex(c[2]));
            c += 2;
        }
        if (length + 2 > size)
            return 0;
        if (latin1 && byte >= 0x80) {
            name[length++] = (char)(0xc0 | byte >> 6);
            byte = 0x80 | (byte & 0x3f);
        }
        name[length++] = (char)byte;
    }
    return length;
}

size_t multipart_file_name(const struct part *part, char *name, size_t size)
{
    size_t length = part->extended.length > 0 ? decode_extended(part->extended, name, size) : 0;
    if (length > 0 || !part->is_file || part->name.length == 0 || part->name.length > size)
        return length;
    memcpy(name, part->name.at, part->name.length);
    return part->name.length;
}

// ---- the form -----------------------------------------------------------------------------------

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
    const char *start = form->mark + 2;
    size_t start_length = form->mark_length - 2;
    if (length < start_length || memcmp(form->at, start, start_length) != 0) {
        form->at = memmem(form->at, length, form->mark + 1, form->mark_length - 1);
        if (!form->at)
            return status_fail(STATUS_BAD_REQUEST, "multipart: the boundary is not in the body");
        form->at++;
    }
    form->at += start_length;
    return STATUS_OK;
}

// The end of the part at c, and *behind it the next boundary's. Once a mark with CRLF is not found
// none is looked for again, or a form of many parts would be searched to its end for each.
static const char *find_mark(struct multipart *form, const char *c)
{
    size_t left = (size_t)(form->end - c);
    const char *mark =
        form->lines_end_in_lf ? NULL : memmem(c, left, form->mark, form->mark_length);
    form->lines_end_in_lf = !mark;
    return mark ? mark : memmem(c, left, form->mark + 1, form->mark_length - 1);
}

enum status multipart_next(struct multipart *form, struct part *part, bool *found)
{
    const char *c = form->at, *end = form->end;
    *found = !(end - c >= 2 && memcmp(c, "--", 2) == 0);
    if (!*found)
        return STATUS_OK;
    while (c < end && (*c == ' ' || *c == '\t'))
        c++;
    size_t line_end = line_break(c, end);
    if (line_end == 0)
        return status_fail(STATUS_BAD_REQUEST, "multipart: a boundary line does not end");
    form->lines_end_in_lf |= line_end == 1;
    c += line_end;
    const char *next = find_mark(form, c);
    if (!next)
        return status_fail(STATUS_BAD_REQUEST, "multipart: the closing boundary is missing");
    form->at = next + form->mark_length - (form->lines_end_in_lf ? 1 : 0);
    return read_part((struct slice){c, (size_t)(next - c)}, part);
}
