// See include/safetensors.h. Whatever safetensors_parse() accepts can be read without another look:
// every number of the header is checked before it is used.

#include "safetensors.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LENGTH_BYTES = 8,
    MAX_HEADER_BYTES = 100 * 1000 * 1000, // the limit of the reference implementation
};

struct safetensors {
    json_t *header;             // owns the names
    struct safetensor *tensors; // sorted by name
    size_t count;
    void *mapping; // NULL where the caller keeps the bytes
    size_t mapping_bytes;
};

// What is being parsed. Names from the header are cut in errors ("%.100s"): they have no limit.
struct source {
    const char *name;
    const uint8_t *header, *data;
    size_t header_bytes, data_bytes;
};

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [TENSOR_F32] = {"F32", 4},
    [TENSOR_F16] = {"F16", 2},
    [TENSOR_BF16] = {"BF16", 2},
};

enum { TYPE_COUNT = sizeof types / sizeof types[0] };

static enum status split(const char *name, const uint8_t *bytes, size_t length,
                         struct source *source)
{
    if (length < LENGTH_BYTES)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: %zu bytes, expected at least %d", name, length,
                           LENGTH_BYTES);
    uint64_t header_bytes = 0;
    for (int i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)bytes[i] << (8 * i);
    if (header_bytes > MAX_HEADER_BYTES)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte 0: header of %llu bytes, expected <= %d",
                           name, (unsigned long long)header_bytes, MAX_HEADER_BYTES);
    if (header_bytes > length - LENGTH_BYTES)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: byte 0: header of %llu bytes, but the file ends after %zu", name,
                           (unsigned long long)header_bytes, length - LENGTH_BYTES);
    *source = (struct source){
        .name = name,
        .header = bytes + LENGTH_BYTES,
        .header_bytes = (size_t)header_bytes,
        .data = bytes + LENGTH_BYTES + header_bytes,
        .data_bytes = length - LENGTH_BYTES - (size_t)header_bytes,
    };
    return STATUS_OK;
}

static enum status read_json(const struct source *source, json_t **header)
{
    json_error_t error;
    *header = json_loadb((const char *)source->header, source->header_bytes, JSON_REJECT_DUPLICATES,
                         &error);
    if (!*header && !error.text[0]) // jansson's way to say that there is no memory
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: header of %zu bytes", source->name,
                           source->header_bytes);
    if (!*header)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %d: %s", source->name,
                           LENGTH_BYTES + error.position, error.text);
    if (!json_is_object(*header))
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %d: expected a JSON object", source->name,
                           LENGTH_BYTES);
    return STATUS_OK;
}

static enum status read_type(const struct source *source, const json_t *entry,
                             struct safetensor *tensor)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: tensor \"%.100s\": expected a dtype",
                           source->name, tensor->name);
    for (int type = 0; type < TYPE_COUNT; type++) {
        if (strcmp(dtype, types[type].name) == 0) {
            tensor->type = (enum tensor_type)type;
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_BAD_WEIGHTS,
                       "%s: tensor \"%.100s\": dtype %.20s, expected F32, F16 or BF16",
                       source->name, tensor->name, dtype);
}

// *elements: the product of the shape.
static enum status read_shape(const struct source *source, const json_t *entry,
                              struct safetensor *tensor, int64_t *elements)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_RANK)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": expected a shape of at most %d numbers",
                           source->name, tensor->name, SAFETENSORS_MAX_RANK);
    tensor->rank = (int)json_array_size(shape);
    *elements = 1;
    for (int i = 0; i < tensor->rank; i++) {
        const json_t *side = json_array_get(shape, (size_t)i);
        if (!json_is_integer(side) || json_integer_value(side) < 0)
            return status_fail(STATUS_BAD_WEIGHTS,
                               "%s: tensor \"%.100s\": shape[%d]: expected an integer >= 0",
                               source->name, tensor->name, i);
        tensor->shape[i] = json_integer_value(side);
        if (__builtin_mul_overflow(*elements, tensor->shape[i], elements))
            return status_fail(STATUS_BAD_WEIGHTS,
                               "%s: tensor \"%.100s\": the product of its shape overflows",
                               source->name, tensor->name);
    }
    return STATUS_OK;
}

static enum status read_place(const struct source *source, const json_t *entry,
                              struct safetensor *tensor, int64_t elements)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": expected data_offsets [begin, end]",
                           source->name, tensor->name);
    const long long begin = json_integer_value(first), end = json_integer_value(second);
    if (begin < 0 || end < begin || (unsigned long long)end > source->data_bytes)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": data_offsets [%lld, %lld], expected them within "
                           "the %zu bytes of data",
                           source->name, tensor->name, begin, end, source->data_bytes);
    int64_t bytes;
    if (__builtin_mul_overflow(elements, (int64_t)types[tensor->type].bytes, &bytes) ||
        bytes != end - begin)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": data_offsets [%lld, %lld] hold %lld bytes, "
                           "expected %lld elements of %s",
                           source->name, tensor->name, begin, end, end - begin, (long long)elements,
                           types[tensor->type].name);
    tensor->data = source->data + begin;
    tensor->bytes = (size_t)bytes;
    return STATUS_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct safetensor *left = a, *right = b;
    return (left->data > right->data) - (left->data < right->data);
}

static int compare_names(const void *a, const void *b)
{
    const struct safetensor *left = a, *right = b;
    return strcmp(left->name, right->name);
}

// Leaves the tensors in the order of their data.
static enum status check_overlap(const struct source *source, struct safetensors *file)
{
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_places);
    const struct safetensor *previous = NULL;
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensor *tensor = &file->tensors[i];
        if (tensor->bytes == 0)
            continue;
        if (previous && previous->data + previous->bytes > tensor->data)
            return status_fail(
                STATUS_BAD_WEIGHTS, "%s: tensor \"%.100s\" at data offset %td overlaps \"%.100s\"",
                source->name, tensor->name, tensor->data - source->data, previous->name);
        previous = tensor;
    }
    return STATUS_OK;
}

static enum status read_tensors(const struct source *source, struct safetensors *file)
{
    // One to spare, so that an empty file needs no case of its own.
    file->tensors = calloc(json_object_size(file->header) + 1, sizeof *file->tensors);
    if (!file->tensors)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: %zu tensors", source->name,
                           json_object_size(file->header));
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct safetensor *tensor = &file->tensors[file->count];
        tensor->name = name;
        int64_t elements = 0;
        TRY(read_type(source, entry, tensor));
        TRY(read_shape(source, entry, tensor, &elements));
        TRY(read_place(source, entry, tensor, elements));
        file->count++;
    }
    TRY(check_overlap(source, file));
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_names);
    return STATUS_OK;
}

enum status safetensors_parse(const char *name, const uint8_t *bytes, size_t length,
                              struct safetensors **file)
{
    struct source source = {0};
    *file = NULL;
    TRY(split(name, bytes, length, &source));
    struct safetensors *parsed = calloc(1, sizeof *parsed);
    if (!parsed)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: %zu bytes", name, sizeof *parsed);
    enum status status = read_json(&source, &parsed->header);
    if (status == STATUS_OK)
        status = read_tensors(&source, parsed);
    if (status != STATUS_OK) {
        safetensors_close(parsed);
        return status;
    }
    *file = parsed;
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

enum status safetensors_open(const char *path, struct safetensors **file)
{
    void *mapping = NULL;
    size_t bytes = 0;
    *file = NULL;
    TRY(map_file(path, &mapping, &bytes));
    // Errors in the header name the file without its directory, which could fill the message.
    const char *slash = strrchr(path, '/');
    const enum status status = safetensors_parse(slash ? slash + 1 : path, mapping, bytes, file);
    if (status != STATUS_OK) {
        munmap(mapping, bytes);
        return status;
    }
    (*file)->mapping = mapping;
    (*file)->mapping_bytes = bytes;
    return STATUS_OK;
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensor *safetensors_at(const struct safetensors *file, size_t index)
{
    return &file->tensors[index];
}

const struct safetensor *safetensors_find(const struct safetensors *file, const char *name)
{
    const struct safetensor key = {.name = name};
    return bsearch(&key, file->tensors, file->count, sizeof key, compare_names);
}

void safetensors_close(struct safetensors *file)
{
    if (!file)
        return;
    json_decref(file->header);
    free(file->tensors);
    if (file->mapping)
        munmap(file->mapping, file->mapping_bytes);
    free(file);
}
