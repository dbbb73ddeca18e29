// libFuzzer entry for body_parse(): whatever comes, the images are slices of the body and their
// names are text. The first line of the input is the Content-Type, the rest is the body.
//   clang -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_body.c server/body.c
//         server/status.c

#include "body.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check(const struct body *body, const uint8_t *bytes, size_t length)
{
    for (int i = 0; i < body->count; i++) {
        const struct upload *image = &body->images[i];
        size_t start = (size_t)(image->bytes - bytes);
        if (start > length || image->length > length - start)
            abort();
        if (!image->name[0] || !memchr(image->name, '\0', sizeof image->name))
            abort();
    }
    if (!memchr(body->top_k, '\0', sizeof body->top_k) ||
        !memchr(body->logits, '\0', sizeof body->logits))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const uint8_t *line_end = length > 0 ? memchr(bytes, '\n', length) : NULL;
    size_t type_length = line_end ? (size_t)(line_end - bytes) : 0;
    char *type = malloc(type_length + 1);
    if (!type)
        return 0;
    for (size_t i = 0; i < type_length; i++)
        type[i] = (char)bytes[i];
    type[type_length] = '\0';
    if (line_end) {
        bytes += type_length + 1;
        length -= type_length + 1;
    }
    struct body body;
    enum status status = body_parse(type_length > 0 ? type : NULL, bytes, length, 16, &body);
    if (status == STATUS_OK ? body.count < 1 : body.count != 0 || body.images)
        abort();
    check(&body, bytes, length);
    body_release(&body);
    free(type);
    return 0;
}
