#pragma once
// The safetensors file format, read only: 8 bytes little-endian header length, a JSON header that
// maps names to {dtype, shape, data_offsets}, then the data.
// Format: https://github.com/huggingface/safetensors

#include "checkpoint.h"

// Adds the file's tensors to an empty checkpoint, in any order; checkpoint_parse() does the rest.
// STATUS_BAD_WEIGHTS: the header is no JSON object of the right form or over the bounds of json.h,
// a tensor's dtype is none of F32, F16, BF16, F64, its shape does not match its bytes, its bytes
// lie outside the file or overlap another's.
enum status safetensors_read(const char *name, const uint8_t *bytes, size_t length,
                             struct checkpoint *checkpoint) CHECKED;
