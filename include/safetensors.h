#pragma once
// The safetensors file format, read only: 8 bytes little-endian header length, a JSON header that
// maps names to {dtype, shape, data_offsets}, then the data. The file is memory-mapped.
// Format: https://github.com/huggingface/safetensors

#include "status.h"
#include <stddef.h>
#include <stdint.h>

enum tensor_type { TENSOR_F32, TENSOR_F16, TENSOR_BF16 };

enum { SAFETENSORS_MAX_RANK = 8 };

struct safetensor {
    const char *name; // owned by the file
    enum tensor_type type;
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
    const uint8_t *data; // in the mapping, with no alignment promised
    size_t bytes;
};

struct safetensors;

// STATUS_IO or STATUS_BAD_WEIGHTS: the header is no JSON object of the right form, a tensor's
// dtype is none of F32, F16, BF16, its shape does not match its bytes, its bytes lie outside the
// file or overlap another's.
enum status safetensors_open(const char *path, struct safetensors **file) CHECKED;

// The same over bytes that the caller keeps alive. `name` says in errors what they are.
enum status safetensors_parse(const char *name, const uint8_t *bytes, size_t length,
                              struct safetensors **file) CHECKED;

size_t safetensors_count(const struct safetensors *file);
const struct safetensor *safetensors_at(const struct safetensors *file, size_t index);
const struct safetensor *safetensors_find(const struct safetensors *file, const char *name);
void safetensors_close(struct safetensors *file);
