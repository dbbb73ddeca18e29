// See include/weights.h. What the tensors are called in a file is known by weights_names.c.

#include "weights.h"
#include "checkpoint.h"
#include "weights_names.h"
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are read without swapping bytes");

struct weights {
    struct checkpoint *file; // NULL: random
    enum layout layout;
    char name[256]; // of the file without its directory, for errors
    bool built_in;
    uint64_t seed;
};

int64_t tensor_count(const struct tensor_info *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= tensor->shape[i];
    return count;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

// From `path`, or from memory where that is NULL.
static enum status open_checkpoint(const char *name, const char *path, const void *bytes,
                                   size_t length, struct weights **weights)
{
    *weights = NULL;
    struct weights *opened = calloc(1, sizeof *opened);
    if (!opened)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: no memory for %zu bytes", name,
                           sizeof *opened);
    snprintf(opened->name, sizeof opened->name, "%s", name);
    opened->built_in = !path;
    enum status status = path ? checkpoint_open(path, &opened->file)
                              : checkpoint_parse(name, bytes, length, &opened->file);
    if (status == STATUS_OK)
        status = weights_find_layout(opened->name, opened->file, &opened->layout);
    if (status != STATUS_OK) {
        weights_close(opened);
        return status;
    }
    *weights = opened;
    return STATUS_OK;
}

enum status weights_open(const char *path, struct weights **weights)
{
    const char *slash = strrchr(path, '/');
    return open_checkpoint(slash ? slash + 1 : path, path, NULL, 0, weights);
}

enum status weights_open_memory(const char *name, const void *bytes, size_t length,
                                struct weights **weights)
{
    return open_checkpoint(name, NULL, bytes, length, weights);
}

enum status weights_open_random(uint64_t seed, struct weights **weights)
{
    *weights = calloc(1, sizeof **weights);
    if (!*weights)
        return status_fail(STATUS_OUT_OF_MEMORY, "random weights: no memory for %zu bytes",
                           sizeof **weights);
    (*weights)->seed = seed;
    return STATUS_OK;
}

// A shape for a message: "[1, 197, 192]".
struct shape_text {
    char text[CHECKPOINT_MAX_RANK * 24];
};

static struct shape_text show_shape(int rank, const int64_t *shape)
{
    struct shape_text out = {"["};
    size_t used = 1;
    for (int i = 0; i < rank; i++)
        used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%s%" PRId64,
                                 i ? ", " : "", shape[i]);
    snprintf(out.text + used, sizeof out.text - used, "]");
    return out;
}

// The shape that part of a row has in the file.
static struct tensor_info part_of(const struct tensor_info *row, int parts)
{
    struct tensor_info part = *row;
    part.shape[0] /= parts;
    return part;
}

static enum status check_part(const struct weights *weights, const struct tensor_info *row,
                              int part, int parts)
{
    const struct file_name name = weights_translate(weights->layout, row->name, part);
    const struct checkpoint_tensor *found = checkpoint_find(weights->file, name.text);
    // People may know the tensor under the other name: both, where they differ.
    const bool renamed = strcmp(name.text, row->name) != 0;
    const char *open = renamed ? " (" : "", *close = renamed ? ")" : "";
    const char *canonical = renamed ? row->name : "";
    const struct tensor_info want = part_of(row, parts);
    const struct shape_text expected = show_shape(want.rank, want.shape);
    if (!found)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%s\"%s%s%s is missing: expected shape %s", weights->name,
                           name.text, open, canonical, close, expected.text);
    if (found->rank != want.rank ||
        memcmp(found->shape, want.shape, (size_t)want.rank * sizeof want.shape[0]) != 0)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: tensor \"%s\"%s%s%s: expected shape %s, found %s", weights->name,
                           name.text, open, canonical, close, expected.text,
                           show_shape(found->rank, found->shape).text);
    return STATUS_OK;
}

static enum status check_row(const struct weights *weights, const struct tensor_info *row)
{
    const int parts = weights_parts(weights->layout, row->name);
    for (int part = 0; part < parts; part++)
        TRY(check_part(weights, row, part, parts));
    return STATUS_OK;
}

static bool has_row(const struct weights *weights, const char *name, const struct tensor_info *rows,
                    size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (int part = weights_parts(weights->layout, rows[i].name) - 1; part >= 0; part--)
            if (strcmp(weights_translate(weights->layout, rows[i].name, part).text, name) == 0)
                return true;
    return false;
}

enum status weights_check(struct weights *weights, const struct tensor_info *rows, size_t count)
{
    size_t expected = 0;
    if (!weights->file)
        return STATUS_OK;
    for (size_t i = 0; i < count; i++) {
        TRY(check_row(weights, &rows[i]));
        expected += (size_t)weights_parts(weights->layout, rows[i].name);
    }
    // All of them are there, so if there are more, one of the first `expected` + 1 is surplus.
    for (size_t i = 0; weights->file->count > expected; i++) {
        const struct checkpoint_tensor *tensor = &weights->file->tensors[i];
        if (!has_row(weights, tensor->name, rows, count))
            return status_fail(
                STATUS_BAD_WEIGHTS,
                "%s: tensor \"%.100s\" of shape %s has no place in this model, which "
                "expects %zu tensors (the file holds %zu)",
                weights->name, tensor->name, show_shape(tensor->rank, tensor->shape).text, expected,
                weights->file->count);
    }
    return STATUS_OK;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
    if (exponent == 0) { // zero or subnormal: a multiple of 2^-24, which every float type holds
        const float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 0x1f)
        return from_bits(sign | 0x7f800000u | fraction << 13);
    return from_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13);
}

// Gives the pages that lie wholly inside the tensor back to the system: what was read will not be
// needed again, and the process should not hold a large file beside its own copy. data lies in a
// file's mapping, from where a page would come back.
static void drop_pages(const uint8_t *data, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t last = ((uintptr_t)data + bytes) / page * page;
    if (first < last)
        (void)madvise((void *)first, last - first, MADV_DONTNEED); // advice: may fail
}

static void read_file(const struct checkpoint_tensor *tensor, float *values)
{
    const size_t count = tensor->bytes / tensor_type_bytes(tensor->type);
    uint16_t bits;
    double wide;
    switch (tensor->type) {
    case TENSOR_F32:
        memcpy(values, tensor->data, tensor->bytes);
        break;
    case TENSOR_F16:
        for (size_t i = 0; i < count; i++) {
            memcpy(&bits, tensor->data + 2 * i, 2);
            values[i] = half_to_float(bits);
        }
        break;
    case TENSOR_BF16:
        for (size_t i = 0; i < count; i++) {
            memcpy(&bits, tensor->data + 2 * i, 2);
            values[i] = from_bits((uint32_t)bits << 16);
        }
        break;
    case TENSOR_F64:
        for (size_t i = 0; i < count; i++) {
            memcpy(&wide, tensor->data + 8 * i, 8);
            values[i] = (float)wide;
        }
        break;
    case TENSOR_TYPE_COUNT:
        break;
    }
    drop_pages(tensor->data, tensor->bytes);
}

// The finaliser of splitmix64 (Steele, Lea and Flood 2014).
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// The stream of a tensor depends on the seed and its name alone, not on the order of reads.
static uint64_t stream_key(uint64_t seed, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return mix(mix(seed) ^ hash);
}

// Spread of the values: matrices keep the variance of what they are applied to (1 / fan-in), so the
// residual stream grows by about 1 a layer in variance; layernorm weights lie around 1, biases
// around 0; class token and positions are as large as half a patch embedding.
static void choose_spread(const struct tensor_info *tensor, double *centre, double *deviation)
{
    *centre = 0;
    if (tensor->rank == 1 && ends_with(tensor->name, "bias")) {
        *deviation = 0.05;
    } else if (tensor->rank == 1) {
        *centre = 1;
        *deviation = 0.1;
    } else if (tensor->rank == 3) {
        *deviation = 0.5;
    } else {
        *deviation = 1 / sqrt((double)(tensor_count(tensor) / tensor->shape[0]));
    }
}

// Near enough normal: the sum of four uniform 16-bit numbers, less its mean. Only operations that
// IEEE 754 rounds correctly; scale is rounded to float so that its product with an 18-bit integer
// is exact in double, and a fused multiply-add gives the same.
static void fill_random(uint64_t seed, const struct tensor_info *tensor, float *values)
{
    const uint64_t key = stream_key(seed, tensor->name);
    double centre, deviation;
    choose_spread(tensor, &centre, &deviation);
    const double sum_deviation = sqrt(4 * (65536.0 * 65536.0 - 1) / 12);
    const double scale = (float)(deviation / sum_deviation);
    const int64_t count = tensor_count(tensor);
    for (int64_t i = 0; i < count; i++) {
        const uint64_t bits = mix(key + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u);
        const int sum =
            (int)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
        values[i] = (float)(centre + scale * (double)(sum - 2 * 65535));
    }
}

enum status weights_read(struct weights *weights, const struct tensor_info *tensor, float *values)
{
    if (!weights->file) {
        fill_random(weights->seed, tensor, values);
        return STATUS_OK;
    }
    TRY(check_row(weights, tensor));
    const int parts = weights_parts(weights->layout, tensor->name);
    for (int part = 0; part < parts; part++) {
        const struct file_name name = weights_translate(weights->layout, tensor->name, part);
        read_file(checkpoint_find(weights->file, name.text), values);
        values += tensor_count(tensor) / parts;
    }
    return STATUS_OK;
}

const char *weights_source(const struct weights *weights)
{
    return !weights->file ? "random" : weights->built_in ? "built-in" : "file";
}

void weights_close(struct weights *weights)
{
    if (!weights)
        return;
    checkpoint_close(weights->file);
    free(weights);
}
