#include "checkpoint.h"
#include "pth.h"
#include "safetensors.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t tensor_type_bytes(enum tensor_type type)
{
    static const size_t bytes[] = {
        [TENSOR_F32] = 4, [TENSOR_F16] = 2, [TENSOR_BF16] = 2, [TENSOR_F64] = 8};
    return bytes[type];
}

enum status checkpoint_reserve(struct checkpoint *checkpoint, size_t count, size_t names_bytes)
{
    // One to spare, so that an empty file needs no case of its own.
    checkpoint->tensors = calloc(count + 1, sizeof *checkpoint->tensors);
    checkpoint->names = malloc(names_bytes + 1);
    if (!checkpoint->tensors || !checkpoint->names)
        return status_fail(STATUS_OUT_OF_MEMORY,
                           "no memory for %zu tensors with names of %zu bytes", count, names_bytes);
    return STATUS_OK;
}

struct checkpoint_tensor *checkpoint_add(struct checkpoint *checkpoint, const char *name,
                                         size_t name_bytes)
{
    struct checkpoint_tensor *tensor = &checkpoint->tensors[checkpoint->count++];
    char *copy = checkpoint->names + checkpoint->names_used;
    memcpy(copy, name, name_bytes);
    copy[name_bytes] = 0;
    checkpoint->names_used += name_bytes + 1;
    tensor->name = copy;
    return tensor;
}

static int compare_names(const void *a, const void *b)
{
    const struct checkpoint_tensor *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static enum status sort(const char *name, struct checkpoint *checkpoint)
{
    qsort(checkpoint->tensors, checkpoint->count, sizeof *checkpoint->tensors, compare_names);
    for (size_t i = 1; i < checkpoint->count; i++)
        if (compare_names(&checkpoint->tensors[i - 1], &checkpoint->tensors[i]) == 0)
            return status_fail(STATUS_BAD_WEIGHTS, "%s: two tensors are named \"%.100s\"", name,
                               checkpoint->tensors[i].name);
    return STATUS_OK;
}

enum status checkpoint_parse(const char *name, const uint8_t *bytes, size_t length,
                             struct checkpoint **checkpoint)
{
    *checkpoint = NULL;
    struct checkpoint *parsed = calloc(1, sizeof *parsed);
    if (!parsed)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: no memory for %zu bytes", name,
                           sizeof *parsed);
    enum status status = pth_recognise(bytes, length)
                             ? pth_read(name, bytes, length, parsed)
                             : safetensors_read(name, bytes, length, parsed);
    if (status == STATUS_OK)
        status = sort(name, parsed);
    if (status != STATUS_OK) {
        checkpoint_close(parsed);
        return status;
    }
    *checkpoint = parsed;
    return STATUS_OK;
}

static enum status parse_mapping(const char *path, struct mapping *mapping,
                                 struct checkpoint **checkpoint)
{
    // Errors in the content name the file without its directory, which could fill the message.
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (mapping->length == 0)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: the file is empty", name);
    TRY(checkpoint_parse(name, mapping->bytes, mapping->length, checkpoint));
    (*checkpoint)->mapping = *mapping;
    return STATUS_OK;
}

enum status checkpoint_open(const char *path, struct checkpoint **checkpoint)
{
    struct mapping mapping;
    char reason[256];
    *checkpoint = NULL;
    enum status status = mapping_open(path, &mapping);
    if (status != STATUS_OK) {
        snprintf(reason, sizeof reason, "%s", status_detail(status));
        return status_fail(status, "%s: %s", path, reason);
    }
    status = parse_mapping(path, &mapping, checkpoint);
    if (status != STATUS_OK)
        mapping_close(&mapping);
    return status;
}

const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *checkpoint,
                                                const char *name)
{
    const struct checkpoint_tensor key = {.name = name};
    return bsearch(&key, checkpoint->tensors, checkpoint->count, sizeof key, compare_names);
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    free(checkpoint->tensors);
    free(checkpoint->names);
    mapping_close(&checkpoint->mapping);
    free(checkpoint);
}
