// out[r] = (x[r] - mean) / sqrt(variance + epsilon) * weight + bias
//
// x (rows, C) fp32, rows x_stride apart; out (rows, C) activations, dense; C a multiple of 4.
// A warp takes a row and reads it three times (mean, variance around it, result): the second and
// third time it comes from the L1 cache, so the kernel is bound by one read and one write of
// device memory, and needs no shared memory and no barrier.

#include "cuda_backend.cuh"

enum { LAYERNORM_WARPS = 4 }; // rows of a block: small, so that few rows still reach many SMs

template <class T>
static __global__ void __launch_bounds__(LAYERNORM_WARPS * 32)
    layernorm_kernel(T *__restrict__ out, const float *__restrict__ x,
                     const float *__restrict__ weight, const float *__restrict__ bias,
                     int64_t x_stride, int rows, int C, float epsilon)
{
    int row = blockIdx.x * LAYERNORM_WARPS + threadIdx.x / 32;
    if (row >= rows)
        return;
    const float4 *in = reinterpret_cast<const float4 *>(x + row * x_stride);
    int lane = threadIdx.x % 32, quads = C / 4;
    float sum = 0.0f, squares = 0.0f;
    for (int i = lane; i < quads; i += 32) {
        float4 v = in[i];
        sum += (v.x + v.y) + (v.z + v.w);
    }
    float mean = warp_sum(sum) / C;
    for (int i = lane; i < quads; i += 32) {
        float4 v = in[i];
        float a = v.x - mean, b = v.y - mean, c = v.z - mean, d = v.w - mean;
        squares += (a * a + b * b) + (c * c + d * d);
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / C + epsilon);
    for (int i = lane; i < quads; i += 32) {
        float4 v = in[i];
        float4 w = reinterpret_cast<const float4 *>(weight)[i];
        float4 b = reinterpret_cast<const float4 *>(bias)[i];
        float4 y = {(v.x - mean) * scale * w.x + b.x, (v.y - mean) * scale * w.y + b.y,
                    (v.z - mean) * scale * w.z + b.z, (v.w - mean) * scale * w.w + b.w};
        store4(out + int64_t(row) * C + 4 * i, y);
    }
}

template <class T>
static enum status launch(struct stream *stream, const struct layernorm_args *args)
{
    int blocks = (args->rows + LAYERNORM_WARPS - 1) / LAYERNORM_WARPS;
    return cuda_launch(stream, dim3(blocks), dim3(LAYERNORM_WARPS * 32), 0, layernorm_kernel<T>,
                       static_cast<T *>(args->out), args->x, args->weight, args->bias,
                       args->x_stride, args->rows, args->C, args->epsilon);
}

enum status layernorm_cuda(struct stream *stream, const struct layernorm_args *args)
{
    return with_activation_type(stream,
                                [=](auto value) { return launch<decltype(value)>(stream, args); });
}
