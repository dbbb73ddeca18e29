// See include/pth.h. A tensor is in the pickle the call of _rebuild_tensor_v2(storage, offset,
// sizes, strides, ...), offset and strides in elements; its storage is a persistent id, the tuple
// ("storage", class, key, device, elements).

#include "pth.h"
#include "pickle.h"
#include "zip.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// What may occur in the pickle: two functions and the classes of storages, of which the first can
// be read.
enum {
    REBUILD_TENSOR,
    REBUILD_PARAMETER,
    FLOAT_STORAGE,
    HALF_STORAGE,
    BFLOAT16_STORAGE,
    DOUBLE_STORAGE,
};

static const char *const globals[] = {
    [REBUILD_TENSOR] = "torch._utils._rebuild_tensor_v2",
    [REBUILD_PARAMETER] = "torch._utils._rebuild_parameter",
    [FLOAT_STORAGE] = "torch.FloatStorage",
    [HALF_STORAGE] = "torch.HalfStorage",
    [BFLOAT16_STORAGE] = "torch.BFloat16Storage",
    [DOUBLE_STORAGE] = "torch.DoubleStorage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
    "torch.ComplexFloatStorage",
    "torch.ComplexDoubleStorage",
    NULL,
};

static const char zip_mark[] = "PK\3\4";
// What torch.save began with before: protocol 2, and a magic number of ten bytes.
static const char old_mark[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9";

struct source {
    const char *name;
    struct zip zip;
    const char *prefix; // of the names of all entries, with no zero behind it
    size_t prefix_bytes;
    struct pickle *pickle;
    size_t pickle_bytes;
};

static bool begins_with(const uint8_t *bytes, size_t length, const char *mark)
{
    return length >= strlen(mark) && memcmp(bytes, mark, strlen(mark)) == 0;
}

bool pth_recognise(const uint8_t *bytes, size_t length)
{
    return begins_with(bytes, length, zip_mark) || begins_with(bytes, length, old_mark);
}

// PREFIX/data.pkl, where PREFIX may be anything but a path.
static enum status find_pickle(struct source *source, const struct zip_entry **found)
{
    static const char tail[] = "/data.pkl";
    *found = NULL;
    for (size_t i = 0; i < source->zip.count; i++) {
        const struct zip_entry *entry = &source->zip.entries[i];
        const char *slash = memchr(entry->name, '/', entry->name_bytes);
        const size_t prefix_bytes = slash ? (size_t)(slash - entry->name) : entry->name_bytes;
        if (entry->name_bytes - prefix_bytes != strlen(tail) ||
            memcmp(slash, tail, strlen(tail)) != 0)
            continue;
        if (*found)
            return status_fail(STATUS_BAD_WEIGHTS, "%s: two pickles, expected one", source->name);
        *found = entry;
        source->prefix = entry->name;
        source->prefix_bytes = prefix_bytes;
    }
    if (!*found)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: no data.pkl: not a file of torch.save",
                           source->name);
    return STATUS_OK;
}

// PREFIX/NAME, NULL if there is none.
static const struct zip_entry *find_entry(const struct source *source, const char *name,
                                          size_t name_bytes)
{
    char full[256];
    const size_t bytes = source->prefix_bytes + 1 + name_bytes;
    if (bytes > sizeof full) // torch.save's own names are far shorter
        return NULL;
    memcpy(full, source->prefix, source->prefix_bytes);
    full[source->prefix_bytes] = '/';
    memcpy(full + source->prefix_bytes + 1, name, name_bytes);
    return zip_find(&source->zip, full, bytes);
}

static enum status check_byte_order(const struct source *source)
{
    const struct zip_entry *order = find_entry(source, "byteorder", strlen("byteorder"));
    if (order && !(order->bytes == strlen("little") && memcmp(order->data, "little", 6) == 0))
        return status_fail(STATUS_BAD_WEIGHTS, "%s: byteorder %.*s, expected little", source->name,
                           order->bytes < 20 ? (int)order->bytes : 20, (const char *)order->data);
    return STATUS_OK;
}

static bool find_dict(const struct pickle *pickle, struct pickle_value dict, const char *name,
                      struct pickle_value *found)
{
    struct pickle_value key;
    for (size_t at = 0; pickle_next(pickle, dict, &at, &key, found);)
        if (pickle_equals(pickle, key, name) && found->kind == PICKLE_DICT)
            return true;
    return false;
}

// The dict of the tensors: what was saved, or what that holds under one of the usual names.
static enum status choose_dict(const struct source *source, struct pickle_value *dict)
{
    const struct pickle_value top = pickle_top(source->pickle);
    if (top.kind != PICKLE_DICT)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: data.pkl is no dict of tensors", source->name);
    if (!find_dict(source->pickle, top, "state_dict", dict) &&
        !find_dict(source->pickle, top, "model", dict))
        *dict = top;
    return STATUS_OK;
}

static bool is_call(const struct pickle *pickle, struct pickle_value value, int global)
{
    return value.kind == PICKLE_CALL && pickle_item(pickle, value, 0).number == global;
}

static enum status read_type(const struct source *source, struct pickle_value storage,
                             struct checkpoint_tensor *tensor)
{
    const struct pickle_value class = pickle_item(source->pickle, storage, 1);
    if (!pickle_equals(source->pickle, pickle_item(source->pickle, storage, 0), "storage") ||
        class.kind != PICKLE_GLOBAL || class.number < FLOAT_STORAGE)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: tensor \"%.100s\": it has no storage",
                           source->name, tensor->name);
    switch (class.number) {
    case FLOAT_STORAGE:
        tensor->type = TENSOR_F32;
        return STATUS_OK;
    case HALF_STORAGE:
        tensor->type = TENSOR_F16;
        return STATUS_OK;
    case BFLOAT16_STORAGE:
        tensor->type = TENSOR_BF16;
        return STATUS_OK;
    case DOUBLE_STORAGE:
        tensor->type = TENSOR_F64;
        return STATUS_OK;
    default:
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": %s, expected one of Float, Half, BFloat16, "
                           "Double",
                           source->name, tensor->name, globals[class.number]);
    }
}

// *elements: the product of the shape.
static enum status read_shape(const struct source *source, struct pickle_value sizes,
                              struct checkpoint_tensor *tensor, int64_t *elements)
{
    if (sizes.kind != PICKLE_TUPLE || sizes.length > CHECKPOINT_MAX_RANK)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": expected a shape of at most %d numbers",
                           source->name, tensor->name, CHECKPOINT_MAX_RANK);
    tensor->rank = (int)sizes.length;
    *elements = 1;
    for (uint32_t i = 0; i < sizes.length; i++) {
        const struct pickle_value side = pickle_item(source->pickle, sizes, i);
        if (side.kind != PICKLE_INTEGER || side.number < 0)
            return status_fail(STATUS_BAD_WEIGHTS,
                               "%s: tensor \"%.100s\": shape[%d]: expected an integer >= 0",
                               source->name, tensor->name, (int)i);
        tensor->shape[i] = side.number;
        if (__builtin_mul_overflow(*elements, side.number, elements))
            return status_fail(STATUS_BAD_WEIGHTS,
                               "%s: tensor \"%.100s\": the product of its shape overflows",
                               source->name, tensor->name);
    }
    return STATUS_OK;
}

// Row-major without gaps. The stride of a side of 1 is never used, nor is any where nothing is.
static enum status check_strides(const struct source *source, struct pickle_value strides,
                                 const struct checkpoint_tensor *tensor, int64_t elements)
{
    bool contiguous = strides.kind == PICKLE_TUPLE && strides.length == (uint32_t)tensor->rank;
    int64_t expected = 1;
    for (int i = tensor->rank - 1; i >= 0 && elements > 0; i--) {
        const struct pickle_value stride = pickle_item(source->pickle, strides, (uint32_t)i);
        if (tensor->shape[i] != 1)
            contiguous &= stride.kind == PICKLE_INTEGER && stride.number == expected;
        expected *= tensor->shape[i];
    }
    if (!contiguous)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\" is not contiguous: save its .contiguous()",
                           source->name, tensor->name);
    return STATUS_OK;
}

static enum status read_place(const struct source *source, struct pickle_value storage,
                              struct pickle_value offset, struct checkpoint_tensor *tensor,
                              int64_t elements)
{
    const struct pickle_value key = pickle_item(source->pickle, storage, 2);
    char name[128] = "data/";
    const size_t used = strlen(name);
    if (key.kind != PICKLE_STRING || key.length > sizeof name - used)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": the key of its storage is not a short string",
                           source->name, tensor->name);
    memcpy(name + used, pickle_text(source->pickle, key), key.length);
    const struct zip_entry *entry = find_entry(source, name, used + key.length);
    if (!entry)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": its storage %.*s is not in the file",
                           source->name, tensor->name, (int)(used + key.length), name);
    const int64_t size = (int64_t)tensor_type_bytes(tensor->type);
    int64_t begin, bytes;
    if (offset.kind != PICKLE_INTEGER || offset.number < 0 ||
        __builtin_mul_overflow(offset.number, size, &begin) ||
        __builtin_mul_overflow(elements, size, &bytes) || (uint64_t)begin > entry->bytes ||
        (uint64_t)bytes > entry->bytes - (uint64_t)begin)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%.100s\": %" PRId64 " elements of %" PRId64
                           " bytes from element %" PRId64
                           ", expected them within the %zu bytes of its storage",
                           source->name, tensor->name, elements, size, offset.number, entry->bytes);
    tensor->data = entry->data + begin;
    tensor->bytes = (size_t)bytes;
    return STATUS_OK;
}

static enum status read_tensor(const struct source *source, struct pickle_value value,
                               struct checkpoint_tensor *tensor)
{
    const struct pickle *pickle = source->pickle;
    if (is_call(pickle, value, REBUILD_PARAMETER)) // (tensor, requires_grad, hooks)
        value = pickle_item(pickle, pickle_item(pickle, value, 1), 0);
    const struct pickle_value arguments = pickle_item(pickle, value, 1);
    const struct pickle_value storage = pickle_item(pickle, arguments, 0);
    if (!is_call(pickle, value, REBUILD_TENSOR) || storage.kind != PICKLE_PERSISTENT)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: \"%.100s\" is no tensor that can be read",
                           source->name, tensor->name);
    int64_t elements = 0;
    TRY(read_type(source, storage, tensor));
    TRY(read_shape(source, pickle_item(pickle, arguments, 2), tensor, &elements));
    TRY(check_strides(source, pickle_item(pickle, arguments, 3), tensor, elements));
    return read_place(source, storage, pickle_item(pickle, arguments, 1), tensor, elements);
}

// Of what is in the dict, tensors are the values that something has to be called for.
static enum status read_tensors(const struct source *source, struct pickle_value dict,
                                struct checkpoint *checkpoint)
{
    struct pickle_value key, value;
    size_t count = 0, names_bytes = 0;
    for (size_t at = 0; pickle_next(source->pickle, dict, &at, &key, &value);) {
        if (value.kind != PICKLE_CALL)
            continue;
        count++;
        names_bytes += key.length + 1;
    }
    // A string takes more than a byte beside its text, so more names than that repeat themselves.
    // They could be as many as the pickle has bytes, and each as long as it.
    if (names_bytes > source->pickle_bytes)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: the names of tensors repeat themselves",
                           source->name);
    TRY(checkpoint_reserve(checkpoint, count, names_bytes));
    for (size_t at = 0; pickle_next(source->pickle, dict, &at, &key, &value);) {
        if (value.kind != PICKLE_CALL)
            continue;
        const char *name = pickle_text(source->pickle, key);
        struct checkpoint_tensor *tensor = checkpoint_add(checkpoint, name, key.length);
        if (strlen(tensor->name) != key.length)
            return status_fail(STATUS_BAD_WEIGHTS, "%s: tensor \"%.100s\" has a zero in its name",
                               source->name, tensor->name);
        TRY(read_tensor(source, value, tensor));
    }
    return STATUS_OK;
}

static enum status read_archive(struct source *source, struct checkpoint *checkpoint)
{
    const struct zip_entry *entry = NULL;
    char name[256];
    struct pickle_value dict = {0};
    TRY(find_pickle(source, &entry));
    TRY(check_byte_order(source));
    snprintf(name, sizeof name, "%.200s: data.pkl", source->name);
    source->pickle_bytes = entry->bytes;
    TRY(pickle_open(name, entry->data, entry->bytes, globals, &source->pickle));
    TRY(choose_dict(source, &dict));
    return read_tensors(source, dict, checkpoint);
}

enum status pth_read(const char *name, const uint8_t *bytes, size_t length,
                     struct checkpoint *checkpoint)
{
    struct source source = {.name = name};
    if (begins_with(bytes, length, old_mark))
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: written by PyTorch before 1.6: load it and save it again with "
                           "torch.save(..., _use_new_zipfile_serialization=True)",
                           name);
    TRY(zip_init(name, bytes, length, &source.zip));
    const enum status status = read_archive(&source, checkpoint);
    pickle_close(source.pickle);
    zip_release(&source.zip);
    return status;
}
