// libFuzzer entry: whatever bytes come, safetensors_parse() refuses them or gives
// tensors that can be read from end to end.
//   clang -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_safetensors.c
//         server/safetensors.c server/status.c -ljansson

#include "safetensors.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct safetensors *file;
    if (safetensors_parse("safetensors", bytes, length, &file) != STATUS_OK)
        return 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensor *tensor = safetensors_at(file, i);
        if (safetensors_find(file, tensor->name) != tensor)
            abort();
        volatile uint8_t byte;
        for (size_t at = 0; at < tensor->bytes; at++)
            byte = tensor->data[at];
        (void)byte;
    }
    safetensors_close(file);
    return 0;
}
