// See include/safetensors.h. Whatever safetensors_read() accepts can be read without another look:
// every number of the header is checked before it is used.

#include "safetensors.h"
#include "json.h"
#include "memory.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LENGTH_BYTES = 8,
    MAX_HEADER_BYTES = 100 * 1000 * 1000, // the limit of the reference implementation
};

// What is being parsed. Names from the header are cut in errors ("%.100s"): they have no limit.
struct source {
    const char *name;
    const uint8_t *header, *data;
    size_t header_bytes, data_bytes;
};

static const char *const type_names[TENSOR_TYPE_COUNT] = {
    [TENSOR_F32] = "F32", [TENSOR_F16] = "F16", [TENSOR_BF16] = "BF16", [TENSOR_F64] = "F64"};

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
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: byte 0: header of %llu bytes, expected <= %d: is this "
                           "a checkpoint?",
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
    const char *text = (const char *)source->header;
    json_error_t error;
    char problem[128];
    size_t memory_bytes; // small enough by the bounds on values and on the header
    enum status status = json_measure(text, source->header_bytes, &memory_bytes);
    if (status != STATUS_OK) {
        snprintf(problem, sizeof problem, "%s", status_detail(status));
        return status_fail(STATUS_BAD_WEIGHTS, "%s: header: %s", source->name, problem);
    }
    *header = json_loadb(text, source->header_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!*header)
        status = status_fail(STATUS_BAD_WEIGHTS, "%s: byte %d: %s", source->name,
                             LENGTH_BYTES + error.position, error.text);
    TRY(memory_check(source->name, status)); // a name may have lost a letter for lack of it
    if (!json_is_object(*header))
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byte %d: expected a JSON object", source->name,
                           LENGTH_BYTES);
    return STATUS_OK;
}

static enum status read_type(const struct source *source, const json_t *entry,
                             struct checkpoint_tensor *tensor)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: tensor \"%.100s\": expected a dtype",
                           source->name, tensor->name);
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
        if (strcmp(dtype, type_names[type]) == 0) {
            tensor->type = (enum tensor_type)type;
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_BAD_WEIGHTS,
                       "%s: tensor \"%.100s\": dtype %.20s, expected F32, F16, BF16 or F64",
                       source->name, tensor->name, dtype);
}

// *elements: the product of the shape.
static enum status read_shape(const struct source *source, const json_t *entry,
                              struct checkpoint_tensor *tensor, int64_t *elements)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > CHECKPOINT_MAX_RANK)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": expected a shape of at most %d numbers",
                           source->name, tensor->name, CHECKPOINT_MAX_RANK);
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
                              struct checkpoint_tensor *tensor, int64_t elements)
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
    if (__builtin_mul_overflow(elements, (int64_t)tensor_type_bytes(tensor->type), &bytes) ||
        bytes != end - begin)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": data_offsets [%lld, %lld] hold %lld bytes, "
                           "expected %lld elements of %s",
                           source->name, tensor->name, begin, end, end - begin, (long long)elements,
                           type_names[tensor->type]);
    tensor->data = source->data + begin;
    tensor->bytes = (size_t)bytes;
    return STATUS_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct checkpoint_tensor *left = a, *right = b;
    return (left->data > right->data) - (left->data < right->data);
}

static enum status check_overlap(const struct source *source, struct checkpoint *checkpoint)
{
    qsort(checkpoint->tensors, checkpoint->count, sizeof *checkpoint->tensors, compare_places);
    const struct checkpoint_tensor *previous = NULL;
    for (size_t i = 0; i < checkpoint->count; i++) {
        const struct checkpoint_tensor *tensor = &checkpoint->tensors[i];
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

static enum status read_tensors(const struct source *source, json_t *header,
                                struct checkpoint *checkpoint)
{
    const char *name;
    json_t *entry;
    size_t names_bytes = 0;
    json_object_foreach(header, name, entry)
    {
        names_bytes += strlen(name) + 1;
    }
    TRY(checkpoint_reserve(checkpoint, json_object_size(header), names_bytes));
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct checkpoint_tensor *tensor = checkpoint_add(checkpoint, name, strlen(name));
        int64_t elements = 0;
        TRY(read_type(source, entry, tensor));
        TRY(read_shape(source, entry, tensor, &elements));
        TRY(read_place(source, entry, tensor, elements));
    }
    return check_overlap(source, checkpoint);
}

enum status safetensors_read(const char *name, const uint8_t *bytes, size_t length,
                             struct checkpoint *checkpoint)
{
    struct source source = {0};
    json_t *header = NULL;
    TRY(split(name, bytes, length, &source));
    enum status status = read_json(&source, &header);
    if (status == STATUS_OK)
        status = read_tensors(&source, header, checkpoint);
    json_decref(header);
    return status;
}
