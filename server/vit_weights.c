#include "vit_weights.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum dim { END, ONE, RGB, P, T, C, C3, M, K };

enum role {
    VECTOR,
    MATRIX,
    HEAD,
    PATCH_WEIGHT,
    PATCH_BIAS,
};

// The table of weights: it drives the check of a checkpoint, the allocation, the upload and the
// report. Shapes are those of the checkpoint; %d is the layer.
struct weight_row {
    const char *name;
    enum role role;
    size_t field; // in struct vit_weights, or in struct layer
    enum dim shape[TENSOR_MAX_RANK];
};

#define LAYER "encoder.layers.encoder_layer_%d."

static const struct weight_row first_rows[] = {
    {"class_token", VECTOR, offsetof(struct vit_weights, class_token), {ONE, ONE, C}},
    {"conv_proj.weight", PATCH_WEIGHT, offsetof(struct vit_weights, patch_weight), {C, RGB, P, P}},
    {"conv_proj.bias", PATCH_BIAS, offsetof(struct vit_weights, patch_bias), {C}},
    {"encoder.pos_embedding", VECTOR, offsetof(struct vit_weights, position), {ONE, T, C}},
};

static const struct weight_row layer_rows[] = {
    {LAYER "ln_1.weight", VECTOR, offsetof(struct vit_layer, ln_1_weight), {C}},
    {LAYER "ln_1.bias", VECTOR, offsetof(struct vit_layer, ln_1_bias), {C}},
    {LAYER "self_attention.in_proj_weight",
     MATRIX,
     offsetof(struct vit_layer, in_proj_weight),
     {C3, C}},
    {LAYER "self_attention.in_proj_bias", VECTOR, offsetof(struct vit_layer, in_proj_bias), {C3}},
    {LAYER "self_attention.out_proj.weight",
     MATRIX,
     offsetof(struct vit_layer, out_proj_weight),
     {C, C}},
    {LAYER "self_attention.out_proj.bias", VECTOR, offsetof(struct vit_layer, out_proj_bias), {C}},
    {LAYER "ln_2.weight", VECTOR, offsetof(struct vit_layer, ln_2_weight), {C}},
    {LAYER "ln_2.bias", VECTOR, offsetof(struct vit_layer, ln_2_bias), {C}},
    {LAYER "mlp.0.weight", MATRIX, offsetof(struct vit_layer, mlp_in_weight), {M, C}},
    {LAYER "mlp.0.bias", VECTOR, offsetof(struct vit_layer, mlp_in_bias), {M}},
    {LAYER "mlp.3.weight", MATRIX, offsetof(struct vit_layer, mlp_out_weight), {C, M}},
    {LAYER "mlp.3.bias", VECTOR, offsetof(struct vit_layer, mlp_out_bias), {C}},
};

static const struct weight_row last_rows[] = {
    {"encoder.ln.weight", VECTOR, offsetof(struct vit_weights, ln_weight), {C}},
    {"encoder.ln.bias", VECTOR, offsetof(struct vit_weights, ln_bias), {C}},
    {"heads.head.weight", HEAD, offsetof(struct vit_weights, head_weight), {K, C}},
    {"heads.head.bias", VECTOR, offsetof(struct vit_weights, head_bias), {K}},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

int vit_tokens(const struct vit_dims *dims)
{
    int side = dims->S / dims->P;
    return side * side + 1;
}

static int64_t dim_size(const struct vit_dims *dims, enum dim dim)
{
    switch (dim) {
    case ONE:
        return 1;
    case RGB:
        return 3;
    case P:
        return dims->P;
    case T:
        return vit_tokens(dims);
    case C:
        return dims->C;
    case C3:
        return 3 * (int64_t)dims->C;
    case M:
        return dims->M;
    case K:
        return dims->K;
    case END:
        break;
    }
    return 0;
}

// A name of the table with its layer written in.
static void write_name(char *out, size_t size, const char *pattern, int layer)
{
    const char *mark = strstr(pattern, "%d");
    if (mark)
        snprintf(out, size, "%.*s%d%s", (int)(mark - pattern), pattern, layer, mark + 2);
    else
        snprintf(out, size, "%s", pattern);
}

static size_t row_count(const struct vit_dims *dims)
{
    return COUNT(first_rows) + (size_t)dims->L * COUNT(layer_rows) + COUNT(last_rows);
}

// Row `index` of the whole network, and the layer it belongs to (-1 for none).
static const struct weight_row *row_at(const struct vit_dims *dims, size_t index, int *layer)
{
    *layer = -1;
    if (index < COUNT(first_rows))
        return &first_rows[index];
    index -= COUNT(first_rows);
    if (index >= (size_t)dims->L * COUNT(layer_rows))
        return &last_rows[index - (size_t)dims->L * COUNT(layer_rows)];
    *layer = (int)(index / COUNT(layer_rows));
    return &layer_rows[index % COUNT(layer_rows)];
}

enum status vit_list_weights(const struct vit_dims *dims, struct tensor_info **rows, size_t *count)
{
    *count = row_count(dims);
    struct tensor_info *infos = *rows = calloc(*count, sizeof *infos);
    if (!infos)
        return status_fail(STATUS_OUT_OF_MEMORY, "weight table: out of memory");
    for (size_t i = 0; i < *count; i++) {
        int layer;
        const struct weight_row *row = row_at(dims, i, &layer);
        write_name(infos[i].name, sizeof infos[i].name, row->name, layer);
        for (; infos[i].rank < TENSOR_MAX_RANK && row->shape[infos[i].rank]; infos[i].rank++)
            infos[i].shape[infos[i].rank] = dim_size(dims, row->shape[infos[i].rank]);
    }
    return STATUS_OK;
}

// What vit_weights_load() knows while it walks the table.
struct loader {
    struct vit_weights *weights;
    const struct vit_dims *dims;
    const struct preprocess *recipe;
    struct weights *source;
    struct tensor_info *infos;
    size_t count;
    float *values;  // the tensor in work
    float *folded;  // the patch weight in work
    float *shift;   // (C): what the folded patch weight takes off the patch bias
    size_t *offset; // of each packed row in the device memory
};

// Rows and columns of the matrix that the tensor is packed as.
static void packed_shape(const struct tensor_info *info, enum role role, int *rows, int *columns)
{
    bool vector = role == VECTOR || role == PATCH_BIAS;
    *rows = vector ? (int)tensor_count(info) : (int)info->shape[0];
    *columns = (int)(tensor_count(info) / *rows);
}

static enum weight_kind packed_kind(enum role role)
{
    static const enum weight_kind kinds[] = {[VECTOR] = WEIGHT_VECTOR,
                                             [PATCH_BIAS] = WEIGHT_VECTOR,
                                             [MATRIX] = WEIGHT_LINEAR,
                                             [HEAD] = WEIGHT_HEAD,
                                             [PATCH_WEIGHT] = WEIGHT_PATCH};
    return kinds[role];
}

static enum status plan_memory(struct loader *l)
{
    struct backend *backend = l->weights->backend;
    int64_t largest = 0;
    for (size_t i = 0; i < l->count; i++) {
        int layer, rows, columns;
        enum role role = row_at(l->dims, i, &layer)->role;
        packed_shape(&l->infos[i], role, &rows, &columns);
        size_t bytes;
        TRY(backend->ops->packed_bytes(backend, packed_kind(role), rows, columns, &bytes));
        l->offset[i] = l->weights->bytes;
        l->weights->bytes += (bytes + 255) & ~(size_t)255;
        if (tensor_count(&l->infos[i]) > largest)
            largest = tensor_count(&l->infos[i]);
    }
    l->values = malloc(sizeof(float) * (size_t)largest);
    l->folded = malloc(sizeof(float) * 3 * (size_t)l->dims->C * (size_t)(l->dims->P * l->dims->P));
    if (!l->values || !l->folded)
        return status_fail(STATUS_OUT_OF_MEMORY, "loading weights: out of memory");
    return backend->ops->alloc(backend, l->weights->bytes, &l->weights->memory);
}

// Normalisation (pixel / 255 - mean) / std moves into the patch embedding, which then takes bytes:
// weight' = weight / (255 std), bias' = bias - sum(weight' 255 mean), the sum over the weights as
// they are after rounding. (C, 3, P, P) becomes (C, P, P, 3), the order of bytes in a picture.
static void fold_patch_weight(struct loader *l)
{
    const struct vit_dims *d = l->dims;
    int64_t area = (int64_t)d->P * d->P;
    for (int64_t c = 0; c < d->C; c++)
        for (int64_t rgb = 0; rgb < 3; rgb++)
            for (int64_t i = 0; i < area; i++)
                l->folded[(c * area + i) * 3 + rgb] =
                    (float)(l->values[(c * 3 + rgb) * area + i] / (255.0 * l->recipe->std[rgb]));
    struct backend *backend = l->weights->backend;
    backend->ops->round(backend, WEIGHT_PATCH, d->C, (int)area * 3, l->folded);
    for (int64_t c = 0; c < d->C; c++) {
        double shift = 0.0;
        for (int64_t i = 0; i < area * 3; i++)
            shift += l->folded[c * area * 3 + i] * 255.0 * l->recipe->mean[i % 3];
        l->shift[c] = (float)shift;
    }
}

static enum status load_row(struct loader *l, size_t index)
{
    struct vit_weights *weights = l->weights;
    int layer, rows, columns;
    const struct weight_row *row = row_at(l->dims, index, &layer);
    packed_shape(&l->infos[index], row->role, &rows, &columns);
    TRY(weights_read(l->source, &l->infos[index], l->values));
    if (row->role == PATCH_WEIGHT)
        fold_patch_weight(l);
    if (row->role == PATCH_BIAS)
        for (int c = 0; c < l->dims->C; c++)
            l->values[c] -= l->shift[c];

    void *packed = (char *)weights->memory + l->offset[index];
    char *owner = layer < 0 ? (char *)weights : (char *)&weights->layers[layer];
    *(const void **)(void *)(owner + row->field) = packed;
    return weights->backend->ops->pack(weights->backend, packed_kind(row->role), rows, columns,
                                       row->role == PATCH_WEIGHT ? l->folded : l->values, packed);
}

static enum status load_all(struct loader *l)
{
    TRY(vit_list_weights(l->dims, &l->infos, &l->count));
    TRY(weights_check(l->source, l->infos, l->count));
    l->offset = calloc(l->count, sizeof *l->offset);
    l->shift = calloc((size_t)l->dims->C, sizeof *l->shift);
    l->weights->layers = calloc((size_t)l->dims->L, sizeof *l->weights->layers);
    if (!l->offset || !l->shift || !l->weights->layers)
        return status_fail(STATUS_OUT_OF_MEMORY, "loading weights: out of memory");
    TRY(plan_memory(l));
    for (size_t i = 0; i < l->count; i++)
        TRY(load_row(l, i));
    return STATUS_OK;
}

enum status vit_weights_load(struct backend *backend, const struct vit_dims *dims,
                             const struct preprocess *recipe, struct weights *source,
                             struct vit_weights *weights)
{
    *weights = (struct vit_weights){.backend = backend};
    struct loader loader = {.weights = weights, .dims = dims, .recipe = recipe, .source = source};
    enum status status = load_all(&loader);
    free(loader.infos);
    free(loader.offset);
    free(loader.shift);
    free(loader.folded);
    free(loader.values);
    if (status != STATUS_OK)
        vit_weights_release(weights);
    return status;
}

void vit_weights_release(struct vit_weights *weights)
{
    if (weights->backend)
        weights->backend->ops->free(weights->backend, weights->memory);
    free(weights->layers);
    *weights = (struct vit_weights){0};
}
