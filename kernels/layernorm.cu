// out[r] = (x[r] - mean) / sqrt(variance + epsilon) * weight + bias
//
// x (rows, C) fp32, rows x_stride apart; out (rows, C) activations, dense; C a multiple of 4.
// A warp takes a row and keeps it in registers, QUADS groups of four values a lane: the row, weight
// and bias are read once, all loads under way together, and then mean, variance around it and
// result need no memory, no shared memory and no barrier. Bound by the latency of that one read in
// a small batch, by one read and one write of memory in a large one.

#include "cuda_backend.cuh"

enum {
    LAYERNORM_WARPS = 4, // rows of a block: small, so that few rows still reach many SMs
    LARGEST_QUADS = 16,  // of a lane
};

template <class T, int QUADS>
static __global__ void __launch_bounds__(LAYERNORM_WARPS * 32)
    layernorm_kernel(T *__restrict__ out, const float *__restrict__ x,
                     const float *__restrict__ weight, const float *__restrict__ bias,
                     int64_t x_stride, int rows, int C, float epsilon)
{
    int row = blockIdx.x * LAYERNORM_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows)
        return;
    const float *in = x + row * x_stride;
    float4 v[QUADS], w[QUADS], b[QUADS];
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        int c = 4 * (lane + 32 * i);
        v[i] = w[i] = b[i] = float4{0.0f, 0.0f, 0.0f, 0.0f};
        if (c < C)
            v[i] = load4(in + c), w[i] = load4(weight + c), b[i] = load4(bias + c);
    }
#pragma unroll
    for (int i = 0; i < QUADS; i++)
        sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
    float mean = warp_sum(sum) / C;
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        v[i] = {v[i].x - mean, v[i].y - mean, v[i].z - mean, v[i].w - mean};
        if (4 * (lane + 32 * i) < C)
            squares += (v[i].x * v[i].x + v[i].y * v[i].y) + (v[i].z * v[i].z + v[i].w * v[i].w);
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / C + epsilon);
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        int c = 4 * (lane + 32 * i);
        if (c < C)
            store4(out + int64_t(row) * C + c,
                   float4{v[i].x * scale * w[i].x + b[i].x, v[i].y * scale * w[i].y + b[i].y,
                          v[i].z * scale * w[i].z + b[i].z, v[i].w * scale * w[i].w + b[i].w});
    }
}

template <class T, int QUADS>
static enum status launch(struct stream *stream, const struct layernorm_args *args)
{
    int blocks = (args->rows + LAYERNORM_WARPS - 1) / LAYERNORM_WARPS;
    return cuda_launch(stream, dim3(blocks), dim3(LAYERNORM_WARPS * 32), 0,
                       layernorm_kernel<T, QUADS>, static_cast<T *>(args->out), args->x,
                       args->weight, args->bias, args->x_stride, args->rows, args->C,
                       args->epsilon);
}

// The instance with the fewest registers that hold a row.
template <class T>
static enum status launch_fitting(struct stream *stream, const struct layernorm_args *args)
{
    int quads = (args->C / 4 + 31) / 32;
    return quads <= 2               ? launch<T, 2>(stream, args)
           : quads <= 6             ? launch<T, 6>(stream, args)
           : quads <= 8             ? launch<T, 8>(stream, args)
           : quads <= 10            ? launch<T, 10>(stream, args)
           : quads <= LARGEST_QUADS ? launch<T, LARGEST_QUADS>(stream, args)
                                    : status_fail(STATUS_UNSUPPORTED_DEVICE,
                                                  "cuda: layernorm of %d channels, %d at most",
                                                  args->C, LARGEST_QUADS * 32 * 4);
}

enum status layernorm_cuda(struct stream *stream, const struct layernorm_args *args)
{
    return with_activation_type(
        stream, [=](auto value) { return launch_fitting<decltype(value)>(stream, args); });
}
