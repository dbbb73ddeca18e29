#pragma once
// A device that can run a Vision Transformer: memory, a handful of ops, and streams that order
// them. The only header that server/ and kernels/ share. Each op is defined by its CPU version in
// kernels/NAME.c; kernels/NAME.cu is the CUDA twin.
//
// Number formats. The residual stream, the vectors (biases, layernorm) and the logits are fp32 in
// every precision; what lies between two ops of a layer is in the backend's activation type, of
// which a caller knows only the size (activation_bytes).
//
// Threads: backend functions may be called from any thread, one at a time while weights are packed.
// A stream belongs to one thread at a time. Ops on a stream run in order and may be asynchronous:
// sync() waits, and only then are downloads complete and host buffers free again.
//
// In int8 the layers' matrices are whole numbers with a scale for each row, and what is multiplied
// with them is rounded likewise, a scale for each token, for that product alone. The patch
// embedding and the head are as in bf16, and so are activations. Errors: STATUS_OUT_OF_MEMORY,
// STATUS_DEVICE_FAILED (sticky: the device is lost).

#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum precision {
    PRECISION_AUTO,
    PRECISION_FP32,
    PRECISION_TF32,
    PRECISION_BF16,
    PRECISION_FP16,
    PRECISION_INT8,
    PRECISION_FP8,
};

// x (B, T, C) fp32 = class token and patches of the pixels, each plus its position:
//   x[b, 0] = class_token + position[0]
//   x[b, 1 + n] = weight . patch[b, n] + bias + position[1 + n]
// with patch[b, n] the P*P*3 bytes of patch n in (row, column, channel) order.
#define EMBED_COLUMNS(P) (((P) * (P)*3 + 7) / 8 * 8) // rows of patches start on 16 bytes

struct embed_args {
    float *x;                 // (B, T, C)
    void *patches;            // scratch, (B, T, EMBED_COLUMNS(P)) activations
    const uint8_t *pixels;    // (B, S, S, 3)
    const void *weight;       // packed PATCH weight, (C, P*P*3), normalisation folded in
    const float *bias;        // (C)
    const float *class_token; // (C)
    const float *position;    // (T, C)
    int B, S, P, C;           // N = (S / P)^2, T = N + 1
};

// out[r] = (x[r] - mean) / sqrt(variance + epsilon) * weight + bias, mean and (biased) variance
// over the C values of row r.
struct layernorm_args {
    void *out;      // (rows, C) activations, dense
    const float *x; // (rows, C), rows x_stride values apart
    const float *weight;
    const float *bias; // (C)
    int64_t x_stride;
    int rows, C;
    float epsilon;
};

enum linear_kind {
    LINEAR_BIAS,     // out (activations)  = in . weight^T + bias
    LINEAR_GELU,     // out (activations)  = gelu(in . weight^T + bias), the exact (erf) form
    LINEAR_RESIDUAL, // out (fp32)        += in . weight^T + bias
    LINEAR_LOGITS,   // out (fp32)         = in . weight^T + bias
};

struct linear_args {
    enum linear_kind kind;
    void *out;          // (B * rows, N), rows out_stride values apart
    const void *in;     // (B * rows, K) activations, dense
    const void *weight; // packed weight, (N, K); of HEAD kind for LINEAR_LOGITS
    const float *bias;  // (N)
    int64_t out_stride; // in values; N where dense
    int B, rows;        // images, rows of each
    int N, K;
};

// out[b, t, h] = softmax(q . k^T / sqrt(HS)) v over all T keys, for the first `queries` tokens t.
struct attention_args {
    void *out;       // (B, queries, NH * HS) activations
    const void *qkv; // (B, T, 3, NH, HS) activations
    int B, T, NH, HS;
    int queries; // T, or 1 for the class token alone
};

enum weight_kind {
    WEIGHT_VECTOR, // stays fp32, dense
    WEIGHT_PATCH,  // matrix of the patch embedding
    WEIGHT_LINEAR, // matrix of a layer
    WEIGHT_HEAD,   // matrix of LINEAR_LOGITS
};

struct backend;
struct stream;

// What run() repeats: enqueues a forward pass over the first `batch` images of its buffers.
typedef enum status (*forward_fn)(void *context, int batch);

struct backend_ops {
    // Device memory, aligned to 256 bytes. free(NULL) is allowed.
    enum status (*alloc)(struct backend *backend, size_t bytes, void **memory);
    void (*free)(struct backend *backend, void *memory);
    // Host memory that uploads and downloads reach fastest.
    enum status (*alloc_host)(struct backend *backend, size_t bytes, void **memory);
    void (*free_host)(struct backend *backend, void *memory);

    // A weight (N, K), row-major fp32 on the host -> the layout and type that the ops want; K is 1
    // for a vector. packed_bytes() is what pack() writes to `packed` in device memory; round()
    // rounds values in place as pack() will.
    enum status (*packed_bytes)(struct backend *backend, enum weight_kind kind, int N, int K,
                                size_t *bytes);
    enum status (*pack)(struct backend *backend, enum weight_kind kind, int N, int K,
                        const float *values, void *packed);
    void (*round)(struct backend *backend, enum weight_kind kind, int N, int K, float *values);

    enum status (*stream_create)(struct backend *backend, struct stream **stream);
    void (*stream_free)(struct stream *stream);

    enum status (*upload)(struct stream *stream, void *device, const void *host, size_t bytes);
    enum status (*download)(struct stream *stream, void *host, const void *device, size_t bytes);
    enum status (*embed)(struct stream *stream, const struct embed_args *args);
    enum status (*layernorm)(struct stream *stream, const struct layernorm_args *args);
    enum status (*linear)(struct stream *stream, const struct linear_args *args);
    enum status (*attention)(struct stream *stream, const struct attention_args *args);

    // Runs forward(context, n) for some n >= batch, n <= max_batch: a device that records its work
    // (a CUDA graph) does so once for each n it prefers and replays it from then on. The context
    // must enqueue the same work every time for the same n.
    enum status (*run)(struct stream *stream, int batch, int max_batch, forward_fn forward,
                       void *context);
    // Runs every n that run() may choose, so that nothing is compiled or allocated later.
    enum status (*warm_up)(struct stream *stream, int max_batch, forward_fn forward, void *context);
    enum status (*sync)(struct stream *stream);
    // The device's arithmetic limit in this precision, measured: operations per second.
    enum status (*peak)(struct stream *stream, double *flops);
    void (*destroy)(struct backend *backend);
};

// The first member of each backend's own struct.
struct backend {
    const struct backend_ops *ops;
    const char *name;         // "cpu", "cuda"
    char device_name[128];    // of the processor, for people
    enum precision precision; // in force; never AUTO
    size_t activation_bytes;  // of one value in the activation type
    bool host_memory;         // alloc() takes it of the host's, not of a device's own
    int workers;              // streams that it takes to keep the device busy
};

// The first member of each backend's own stream.
struct stream {
    struct backend *backend;
};

// threads: at least 1, the caller's included. STATUS_UNSUPPORTED_DEVICE where the CPU cannot do the
// precision.
enum status backend_cpu_create(enum precision precision, int threads,
                               struct backend **backend) CHECKED;

// The same with the kernels of one instruction set ("generic", "v3", "v4", "v4_bf16"), for tests.
enum status backend_cpu_create_isa(const char *isa, enum precision precision, int threads,
                                   struct backend **backend) CHECKED;

// The CUDA backend, exported by vitserve_cuda.so as backend_cuda_create. `device` is the GPU's
// number. The module calls status_fail() of the program that loads it.
// STATUS_UNSUPPORTED_DEVICE where there is no such GPU, or it cannot do the precision.
typedef enum status (*backend_cuda_create_fn)(int device, enum precision precision,
                                              struct backend **backend);

// The number of GPUs, exported as backend_cuda_count. STATUS_UNSUPPORTED_DEVICE where there is none
// or no driver.
typedef enum status (*backend_cuda_count_fn)(int *count);
