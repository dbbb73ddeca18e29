#include "vit.h"
#include "clock.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { BUFFERS = 8 };

struct vit_run {
    struct backend *backend;
    struct vit_dims dims;
    const struct vit_weights *weights;
    struct stream *stream;
    int max_batch;
    atomic_int_fast64_t beat_ns; // clock_ns() when the device took or finished an op
    float *logits;               // (max_batch, K) on the host

    // On the device, each an allocation of its own: there a read past one is seen.
    void *pixels;        // (B, S, S, 3) uint8
    void *patches;       // (B, T, EMBED_COLUMNS(P)) activations
    void *x;             // (B, T, C) fp32, the residual stream
    void *normed;        // (B, T, C) activations
    void *qkv;           // (B, T, 3, NH, HS) activations
    void *attended;      // (B, T, C) activations
    void *hidden;        // (B, T, M) activations
    void *device_logits; // (B, K) fp32
};

int64_t vit_flops(const struct vit_dims *d)
{
    int64_t tokens = vit_tokens(d), channels = d->C;
    int64_t patches = (tokens - 1) * 3 * d->P * d->P * channels;
    int64_t linear = tokens * channels * (4 * channels + 2 * (int64_t)d->M);
    int64_t attention = 2 * tokens * tokens * channels;
    return 2 * (patches + d->L * (linear + attention) + channels * d->K);
}

// The buffers on the device, and what each takes for one image of the batch.
static void list_buffers(struct vit_run *run, void ***buffers, size_t *bytes)
{
    const struct vit_dims *d = &run->dims;
    size_t tokens = (size_t)vit_tokens(d), channels = tokens * (size_t)d->C;
    size_t activation = run->backend->activation_bytes;
    const struct {
        void **buffer;
        size_t bytes;
    } rows[BUFFERS] = {
        {&run->pixels, (size_t)d->S * (size_t)d->S * 3},
        {&run->patches, tokens * EMBED_COLUMNS((size_t)d->P) * activation},
        {&run->x, channels * sizeof(float)},
        {&run->normed, channels * activation},
        {&run->qkv, 3 * channels * activation},
        {&run->attended, channels * activation},
        {&run->hidden, tokens * (size_t)d->M * activation},
        {&run->device_logits, (size_t)d->K * sizeof(float)},
    };
    for (int i = 0; i < BUFFERS; i++) {
        buffers[i] = rows[i].buffer;
        bytes[i] = rows[i].bytes;
    }
}

int64_t vit_image_bytes(const struct vit_dims *dims, struct backend *backend)
{
    struct vit_run run = {.backend = backend, .dims = *dims};
    void **buffers[BUFFERS];
    size_t bytes[BUFFERS], sum = 0;
    list_buffers(&run, buffers, bytes);
    for (int i = 0; i < BUFFERS; i++)
        sum += bytes[i];
    return (int64_t)sum;
}

static enum status allocate_activations(struct vit_run *run)
{
    const struct vit_dims *d = &run->dims;
    void **buffers[BUFFERS];
    size_t each[BUFFERS];
    list_buffers(run, buffers, each);
    for (int i = 0; i < BUFFERS; i++)
        TRY(run->backend->ops->alloc(run->backend, each[i] * (size_t)run->max_batch, buffers[i]));
    void *logits;
    size_t bytes = sizeof(float) * (size_t)d->K * (size_t)run->max_batch;
    TRY(run->backend->ops->alloc_host(run->backend, bytes, &logits));
    run->logits = logits;
    return STATUS_OK;
}

enum status vit_run_create(const struct vit_dims *dims, const struct vit_weights *weights,
                           int max_batch, struct vit_run **out)
{
    struct vit_run *run = calloc(1, sizeof *run);
    if (!run)
        return status_fail(STATUS_OUT_OF_MEMORY, "network: out of memory");
    run->backend = weights->backend;
    run->dims = *dims;
    run->weights = weights;
    run->max_batch = max_batch;
    enum status status = run->backend->ops->stream_create(run->backend, &run->stream);
    if (status == STATUS_OK)
        status = allocate_activations(run);
    if (status != STATUS_OK) {
        vit_run_free(run);
        return status;
    }
    *out = run;
    return STATUS_OK;
}

void vit_run_free(struct vit_run *run)
{
    if (!run)
        return;
    struct backend *backend = run->backend;
    void **buffers[BUFFERS];
    size_t bytes[BUFFERS];
    list_buffers(run, buffers, bytes);
    backend->ops->stream_free(run->stream);
    for (int i = 0; i < BUFFERS; i++)
        backend->ops->free(backend, *buffers[i]);
    backend->ops->free_host(backend, run->logits);
    free(run);
}

enum status vit_set_image(struct vit_run *run, int index, const uint8_t *pixels)
{
    size_t bytes = (size_t)run->dims.S * (size_t)run->dims.S * 3;
    void *slot = (uint8_t *)run->pixels + bytes * (size_t)index;
    return run->backend->ops->upload(run->stream, slot, pixels, bytes);
}

static enum status beat(struct vit_run *run, enum status status)
{
    atomic_store_explicit(&run->beat_ns, clock_ns(), memory_order_relaxed);
    return status;
}

int64_t vit_run_beat_ns(const struct vit_run *run)
{
    return atomic_load_explicit(&run->beat_ns, memory_order_relaxed);
}

static enum status embed(struct vit_run *run, int B)
{
    const struct vit_weights *w = run->weights;
    return beat(run, run->backend->ops->embed(run->stream, &(struct embed_args){
                                                               .x = run->x,
                                                               .patches = run->patches,
                                                               .pixels = run->pixels,
                                                               .weight = w->patch_weight,
                                                               .bias = w->patch_bias,
                                                               .class_token = w->class_token,
                                                               .position = w->position,
                                                               .B = B,
                                                               .S = run->dims.S,
                                                               .P = run->dims.P,
                                                               .C = run->dims.C,
                                                           }));
}

// Normalises the first `tokens` tokens of each image (all, or the class token) into run->normed.
static enum status layernorm(struct vit_run *run, const void *weight, const void *bias, int B,
                             int tokens)
{
    const struct vit_dims *d = &run->dims;
    int all = vit_tokens(d);
    return beat(run, run->backend->ops->layernorm(
                         run->stream, &(struct layernorm_args){
                                          .out = run->normed,
                                          .x = run->x,
                                          .weight = weight,
                                          .bias = bias,
                                          .x_stride = tokens == all ? d->C : (int64_t)all * d->C,
                                          .rows = B * tokens,
                                          .C = d->C,
                                          .epsilon = d->epsilon,
                                      }));
}

// A matrix product over the first `tokens` tokens of each image. Only the residual stream has rows
// that are not dense: with one token, it takes the class token of each image.
static enum status linear(struct vit_run *run, enum linear_kind kind, void *out, const void *in,
                          const void *weight, const void *bias, int B, int tokens, int rows,
                          int columns)
{
    int all = vit_tokens(&run->dims);
    bool sparse = kind == LINEAR_RESIDUAL && tokens != all;
    return beat(run, run->backend->ops->linear(
                         run->stream, &(struct linear_args){
                                          .kind = kind,
                                          .out = out,
                                          .in = in,
                                          .weight = weight,
                                          .bias = bias,
                                          .out_stride = sparse ? (int64_t)all * rows : rows,
                                          .B = B,
                                          .rows = tokens,
                                          .N = rows,
                                          .K = columns,
                                      }));
}

static enum status attention(struct vit_run *run, int B, int queries)
{
    const struct vit_dims *d = &run->dims;
    return beat(run, run->backend->ops->attention(run->stream, &(struct attention_args){
                                                                   .out = run->attended,
                                                                   .qkv = run->qkv,
                                                                   .B = B,
                                                                   .T = vit_tokens(d),
                                                                   .NH = d->NH,
                                                                   .HS = d->C / d->NH,
                                                                   .queries = queries,
                                                               }));
}

// One encoder block. `tokens` is how many tokens of each image go on past the attention.
static enum status encoder(struct vit_run *run, const struct vit_layer *layer, int B, int tokens)
{
    const struct vit_dims *d = &run->dims;
    int all = vit_tokens(d), channels = d->C;
    TRY(layernorm(run, layer->ln_1_weight, layer->ln_1_bias, B, all));
    TRY(linear(run, LINEAR_BIAS, run->qkv, run->normed, layer->in_proj_weight, layer->in_proj_bias,
               B, all, 3 * channels, channels));
    TRY(attention(run, B, tokens));
    TRY(linear(run, LINEAR_RESIDUAL, run->x, run->attended, layer->out_proj_weight,
               layer->out_proj_bias, B, tokens, channels, channels));
    TRY(layernorm(run, layer->ln_2_weight, layer->ln_2_bias, B, tokens));
    TRY(linear(run, LINEAR_GELU, run->hidden, run->normed, layer->mlp_in_weight, layer->mlp_in_bias,
               B, tokens, d->M, channels));
    return linear(run, LINEAR_RESIDUAL, run->x, run->hidden, layer->mlp_out_weight,
                  layer->mlp_out_bias, B, tokens, channels, d->M);
}

// The whole network as a list of ops. The class token alone is classified, so in the last layer
// nothing else is computed past the attention.
static enum status enqueue_network(void *context, int B)
{
    struct vit_run *run = context;
    const struct vit_weights *w = run->weights;
    const struct vit_dims *d = &run->dims;
    TRY(embed(run, B));
    for (int i = 0; i < d->L; i++)
        TRY(encoder(run, &w->layers[i], B, i < d->L - 1 ? vit_tokens(d) : 1));
    TRY(layernorm(run, w->ln_weight, w->ln_bias, B, 1));
    return linear(run, LINEAR_LOGITS, run->device_logits, run->normed, w->head_weight, w->head_bias,
                  B, 1, d->K, d->C);
}

enum status vit_run_warm_up(struct vit_run *run, const uint8_t *pixels)
{
    const struct backend_ops *ops = run->backend->ops;
    for (int i = 0; i < run->max_batch; i++)
        TRY(vit_set_image(run, i, pixels));
    TRY(ops->warm_up(run->stream, run->max_batch, enqueue_network, run));
    return ops->sync(run->stream);
}

enum status vit_forward(struct vit_run *run, int batch, const float **logits)
{
    const struct backend_ops *ops = run->backend->ops;
    size_t bytes = sizeof(float) * (size_t)batch * (size_t)run->dims.K;
    TRY(ops->run(run->stream, batch, run->max_batch, enqueue_network, run));
    TRY(ops->download(run->stream, run->logits, run->device_logits, bytes));
    TRY(ops->sync(run->stream));
    *logits = run->logits;
    return STATUS_OK;
}

enum status vit_run_peak(struct vit_run *run, double *flops)
{
    return run->backend->ops->peak(run->stream, flops);
}
