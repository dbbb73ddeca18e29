#include "parsed_body.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { BUDGET = 1 << 20 };

struct parsed parse_source(struct body_source source, const char *bytes, size_t length)
{
    struct parsed parsed = {.bytes = malloc(length), .budget = calloc(1, sizeof *parsed.budget)};
    assert_non_null(parsed.budget);
    if (length > 0) // or malloc() may return NULL
        assert_non_null(parsed.bytes);
    for (size_t i = 0; i < length; i++)
        parsed.bytes[i] = bytes[i];
    parsed.budget->limit = BUDGET;
    source.bytes = (const uint8_t *)parsed.bytes;
    source.length = length;
    source.budget = parsed.budget;
    parsed.status = body_parse(&source, &parsed.body);
    if (parsed.status != STATUS_OK) { // a failure leaves nothing behind
        assert_null(parsed.body.images);
        assert_int_equal(parsed.body.count, 0);
        assert_int_equal(parsed.budget->used, 0);
    }
    return parsed;
}

struct parsed parse_bytes(const char *type, const char *bytes, size_t length, int max_images)
{
    struct body_source source = {
        .content_type = type, .max_images = max_images, .max_bytes = 100000};
    return parse_source(source, bytes, length);
}

struct parsed parse(const char *type, const char *text)
{
    return parse_bytes(type, text, strlen(text), 8);
}

void release(struct parsed *parsed)
{
    body_release(&parsed->body);
    assert_int_equal(parsed->budget->used, 0);
    free(parsed->bytes);
    free(parsed->budget);
}

void expect_refused(const char *type, const char *text, enum status status, const char *words)
{
    struct parsed parsed = parse(type, text);
    if (parsed.status != status || !strstr(status_detail(status), words))
        fail_msg("\"%s\": %s: %s", text, status_code(parsed.status), status_detail(parsed.status));
    release(&parsed);
}

void expect_image(const struct parsed *parsed, int index, const char *name, const char *bytes)
{
    if (parsed->status != STATUS_OK)
        fail_msg("%s: %s", name, status_detail(parsed->status));
    assert_in_range(index, 0, parsed->body.count - 1);
    const struct upload *image = &parsed->body.images[index];
    assert_string_equal(image->name, name);
    assert_int_equal(image->length, strlen(bytes));
    assert_memory_equal(image->bytes, bytes, image->length);
}
