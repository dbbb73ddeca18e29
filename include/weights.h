#pragma once
// Tensors by their canonical (torchvision) name, as fp32, wherever they come from: a checkpoint
// file under torchvision's, timm's or Hugging Face's names, or a seed. One thread at a time.

#include "status.h"
#include <stddef.h>
#include <stdint.h>

enum { TENSOR_MAX_RANK = 4 };

// One row of a network's weight table (vit_list_weights).
struct tensor_info {
    char name[96]; // canonical: "encoder.layers.encoder_layer_0.ln_1.weight"
    int rank;
    int64_t shape[TENSOR_MAX_RANK];
};

int64_t tensor_count(const struct tensor_info *tensor); // product of the shape

struct weights;

// Maps a safetensors file or one of torch.save into memory and checks it. The file must not shrink
// while open. STATUS_IO (cannot be opened), STATUS_BAD_WEIGHTS (not a well-formed file; says
// where).
enum status weights_open(const char *path, struct weights **weights) CHECKED;

// The same over a file's bytes that the caller keeps alive. `name` says in errors what they are.
enum status weights_open_memory(const char *name, const void *bytes, size_t length,
                                struct weights **weights) CHECKED;

// No file: every tensor is filled from the seed and its own name, the head included, with a spread
// that keeps the activations of a deep network in range. The same on every machine.
enum status weights_open_random(uint64_t seed, struct weights **weights) CHECKED;

// Every row present with its shape, and nothing in the file that is not in the table: else
// STATUS_BAD_WEIGHTS, naming the first missing, surplus or wrongly shaped tensor and what was
// expected.
enum status weights_check(struct weights *weights, const struct tensor_info *rows,
                          size_t count) CHECKED;

// values: tensor_count(tensor) floats, row-major. The tensor must have passed weights_check().
enum status weights_read(struct weights *weights, const struct tensor_info *tensor,
                         float *values) CHECKED;

const char *weights_source(const struct weights *weights); // "file", "built-in" or "random"
void weights_close(struct weights *weights);
