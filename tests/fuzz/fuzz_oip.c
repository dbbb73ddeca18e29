// libFuzzer entry for oip_request_parse(): whatever comes, the images are slices of the body or of
// what was charged for them, the outputs are known ones, and the budget is whole afterwards. The
// first line of the input is Inference-Header-Content-Length (none where it is empty), the rest is
// the body.
//   clang -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_oip.c server/oip_request.c
//         server/oip_data.c server/oip_numbers.c server/base64.c server/json.c server/utf8.c
//         server/memory.c server/budget.c server/status.c -ljansson

#include "oip_request.h"
#include <stdlib.h>
#include <string.h>

enum { S = 2, K = 10, MAX_IMAGES = 4, BUDGET = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static bool holds(const uint8_t *bytes, size_t length, const struct upload *image)
{
    return image->bytes >= bytes && image->bytes <= bytes + length &&
           image->length <= length - (size_t)(image->bytes - bytes);
}

static void check(const struct oip_request *request, const uint8_t *bytes, size_t length)
{
    if (request->count < 1 || request->count > MAX_IMAGES)
        abort();
    for (int i = 0; i < request->count; i++) {
        const struct upload *image = &request->images[i];
        if (!holds(bytes, length, image) &&
            !(request->memory && holds(request->memory, (size_t)request->charged, image)))
            abort();
        if (image->cropped && image->length != S * S * 3)
            abort();
    }
    if (request->n_outputs < 1 || request->n_outputs > OIP_TENSORS)
        abort();
    for (int i = 0; i < request->n_outputs; i++) {
        const struct oip_output *output = &request->outputs[i];
        if (!oip_tensor_name(output->tensor) || output->classification < 0 ||
            output->classification > K)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char json_length[64] = "";
    const uint8_t *line_end = length > 0 ? memchr(bytes, '\n', length) : NULL;
    size_t line_length = line_end ? (size_t)(line_end - bytes) : 0;
    if (!line_end || line_length >= sizeof json_length)
        return 0;
    memcpy(json_length, bytes, line_length);
    struct budget budget = {.limit = BUDGET};
    struct oip_source source = {.json_length = line_length > 0 ? json_length : NULL,
                                .bytes = line_end + 1,
                                .length = length - line_length - 1,
                                .S = S,
                                .K = K,
                                .max_images = MAX_IMAGES,
                                .budget = &budget};
    struct oip_request request;
    if (oip_request_parse(&source, &request) == STATUS_OK)
        check(&request, source.bytes, source.length);
    else if (request.images || request.memory || request.id || budget.used != 0)
        abort();
    oip_request_release(&request);
    if (budget.used != 0)
        abort();
    return 0;
}
