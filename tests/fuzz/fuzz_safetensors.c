// libFuzzer entry: whatever bytes come, checkpoint_parse() refuses them or gives
// tensors that can be read from end to end.
//   clang -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_safetensors.c
//         server/{checkpoint,pickle,pickle_machine,pth,safetensors,status,zip}.c -ljansson

#include "checkpoint.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct checkpoint *file;
    if (checkpoint_parse("safetensors", bytes, length, &file) != STATUS_OK)
        return 0;
    for (size_t i = 0; i < file->count; i++) {
        const struct checkpoint_tensor *tensor = &file->tensors[i];
        if (checkpoint_find(file, tensor->name) != tensor)
            abort();
        volatile uint8_t byte;
        for (size_t at = 0; at < tensor->bytes; at++)
            byte = tensor->data[at];
        (void)byte;
    }
    checkpoint_close(file);
    return 0;
}
