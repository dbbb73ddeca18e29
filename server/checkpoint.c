#include "checkpoint.h"
#include "pth.h"
#include "safetensors.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

static enum status map_file(const char *path, void **mapping, size_t *bytes)
{
    enum status status = STATUS_OK;
    struct stat about;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &about) != 0) {
        status = status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(about.st_mode)) {
        status = status_fail(STATUS_IO, "%s: not a regular file", path);
        goto out;
    }
    if (about.st_size == 0) { // which mmap refuses
        status = status_fail(STATUS_BAD_WEIGHTS, "%s: the file is empty", path);
        goto out;
    }
    *bytes = (size_t)about.st_size;
    *mapping = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0); // all is read
    if (*mapping == MAP_FAILED)
        status = status_fail(STATUS_IO, "%s: cannot be mapped: %s", path, strerror(errno));
out:
    close(fd);
    return status;
}

enum status checkpoint_open(const char *path, struct checkpoint **checkpoint)
{
    void *mapping = NULL;
    size_t bytes = 0;
    *checkpoint = NULL;
    TRY(map_file(path, &mapping, &bytes));
    // Errors in the content name the file without its directory, which could fill the message.
    const char *slash = strrchr(path, '/');
    const enum status status =
        checkpoint_parse(slash ? slash + 1 : path, mapping, bytes, checkpoint);
    if (status != STATUS_OK) {
        munmap(mapping, bytes);
        return status;
    }
    (*checkpoint)->mapping = mapping;
    (*checkpoint)->mapping_bytes = bytes;
    return STATUS_OK;
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
    if (checkpoint->mapping)
        munmap(checkpoint->mapping, checkpoint->mapping_bytes);
    free(checkpoint);
}
