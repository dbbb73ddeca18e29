// libFuzzer entry for body_parse(): whatever comes, the images and fields can be read, their names
// are text, and the budget gets back what it gave. The first line of the input is the Content-Type,
// the second the Content-Encoding, the rest is the body.

#include "body.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { MAX_IMAGES = 16, MAX_BYTES = 1 << 20 };

// Takes the first line off the input, as a string in a block of its exact size; NULL for an empty
// one.
static char *take_line(const uint8_t **bytes, size_t *length)
{
    const uint8_t *end = *length > 0 ? memchr(*bytes, '\n', *length) : NULL;
    size_t line_length = end ? (size_t)(end - *bytes) : 0;
    char *line = line_length > 0 ? malloc(line_length + 1) : NULL;
    if (line) {
        memcpy(line, *bytes, line_length);
        line[line_length] = '\0';
    }
    if (end) {
        *bytes += line_length + 1;
        *length -= line_length + 1;
    }
    return line;
}

static void check(const struct body *body)
{
    for (int i = 0; i < body->count; i++) {
        const struct upload *image = &body->images[i];
        for (size_t j = 0; j < image->length; j++) {
            volatile uint8_t byte = image->bytes[j]; // for AddressSanitizer to see
            (void)byte;
        }
        if (!image->name[0] || !memchr(image->name, '\0', sizeof image->name))
            abort();
    }
    if (!memchr(body->top_k, '\0', sizeof body->top_k) ||
        !memchr(body->logits, '\0', sizeof body->logits))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *type = take_line(&bytes, &length), *encoding = take_line(&bytes, &length);
    struct budget budget = {.limit = 64 << 20};
    struct body_source source = {.content_type = type,
                                 .content_encoding = encoding,
                                 .bytes = bytes,
                                 .length = length,
                                 .max_images = MAX_IMAGES,
                                 .max_bytes = MAX_BYTES,
                                 .budget = &budget};
    struct body body;
    enum status status = body_parse(&source, &body);
    if (status == STATUS_OK ? body.count < 1 || body.count > MAX_IMAGES
                            : body.count != 0 || body.images || budget.used != 0)
        abort();
    check(&body);
    body_release(&body);
    if (budget.used != 0)
        abort();
    free(type);
    free(encoding);
    return 0;
}
