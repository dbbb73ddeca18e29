#pragma once
// The dimensions of a Vision Transformer, the table of its weights, and those weights on a device.
//
// Dimensions, here, in vit.c and in kernels/:
//   B  images in a batch       L  layers             S  image side in pixels
//   T  tokens, N + 1           NH attention heads    P  patch side in pixels
//   N  patches, (S / P)^2      HS head size, C / NH  M  width of the MLP
//   C  channels (hidden size)  K  classes

#include "backend.h"
#include "preprocess.h"
#include "weights.h"

struct vit_dims {
    int S, P, C, L, NH, M, K;
    float epsilon; // of every layernorm
};

int vit_tokens(const struct vit_dims *dims); // T

// The table of weights, in torchvision's order and under its names: the only list of them.
// Writes count rows to a malloc'ed array that the caller frees.
enum status vit_list_weights(const struct vit_dims *dims, struct tensor_info **rows,
                             size_t *count) CHECKED;

struct vit_layer {
    const void *ln_1_weight, *ln_1_bias;         // (C)
    const void *in_proj_weight, *in_proj_bias;   // (3C, C), (3C), rows: query, key, value
    const void *out_proj_weight, *out_proj_bias; // (C, C), (C)
    const void *ln_2_weight, *ln_2_bias;         // (C)
    const void *mlp_in_weight, *mlp_in_bias;     // (M, C), (M)
    const void *mlp_out_weight, *mlp_out_bias;   // (C, M), (C)
};

// Pointers into device memory: vectors fp32, matrices as the backend packs them.
struct vit_weights {
    struct backend *backend;
    void *memory; // every weight, one allocation
    size_t bytes;
    const void *class_token;               // (C)
    const void *patch_weight, *patch_bias; // (C, P*P*3), (C), normalisation folded in
    const void *position;                  // (T, C)
    struct vit_layer *layers;              // (L)
    const void *ln_weight, *ln_bias;       // (C)
    const void *head_weight, *head_bias;   // (K, C), (K)
};

// Checks every tensor of `source` against the table, packs and uploads them. `recipe` gives the
// normalisation that is folded into the patch embedding. The backend outlives the weights.
// STATUS_BAD_WEIGHTS (names the tensor and what was expected), STATUS_OUT_OF_MEMORY, STATUS_IO.
enum status vit_weights_load(struct backend *backend, const struct vit_dims *dims,
                             const struct preprocess *recipe, struct weights *source,
                             struct vit_weights *weights) CHECKED;
void vit_weights_release(struct vit_weights *weights);
