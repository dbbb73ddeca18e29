// libFuzzer entry: an archive as it comes, or a pickle that is put into one; checkpoint_parse()
// refuses it or gives tensors that can be read from end to end.
//   clang -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_pth.c tests/zip_files.c
//         server/{checkpoint,pickle,pickle_machine,pth,safetensors,status,zip}.c -ljansson

#include "../zip_files.h"
#include "checkpoint.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void parse(const uint8_t *bytes, size_t length)
{
    struct checkpoint *file;
    if (checkpoint_parse("pth", bytes, length, &file) != STATUS_OK)
        return;
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
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const uint8_t storage[64];
    if (length >= 2 && memcmp(bytes, "PK", 2) == 0) {
        parse(bytes, length);
        return 0;
    }
    struct zip_part parts[8] = {{"a/data.pkl", bytes, length}};
    static const char *const names[] = {"a/data/0", "a/data/1", "a/data/2", "a/data/3",
                                        "a/data/4", "a/data/5", "a/data/6"};
    for (size_t i = 0; i < 7; i++)
        parts[i + 1] = (struct zip_part){names[i], storage, sizeof storage};
    struct zip_file file = zip_make(parts, 8, 0);
    parse(file.bytes, file.length);
    free(file.bytes);
    return 0;
}
