// The patch embedding, in two steps: a kernel that gathers
//   patches (B, N, columns) = the P*P*3 bytes of each patch as activations, then zeros
//   x (B, T, C)             = position, plus the class token in row 0
// and one matrix product per image, x += patches . weight^T + bias, over the rows of the patches.
//
// Bytes are exact in every activation type. A block takes one token of one image; consecutive
// threads take consecutive groups of eight columns, so that every store is one of 16 or 32 bytes.
// Bound by device memory: 3 bytes read and 2 to 4 written per pixel and channel.

#include "cuda_backend.cuh"

enum { EMBED_THREADS = 128 };

template <class T>
static __device__ void gather_patch(T *out, const uint8_t *image, int n, int S, int P)
{
    int side = S / P, row_bytes = P * 3, count = P * row_bytes, columns = EMBED_COLUMNS(P);
    const uint8_t *corner = image + (int64_t(n / side) * P * S + n % side * P) * 3;
    for (int first = threadIdx.x * 8; first < columns; first += EMBED_THREADS * 8) {
        int y = first / row_bytes, byte = first % row_bytes;
        float values[8];
        for (int i = 0; i < 8; i++) {
            values[i] = first + i < count ? float(corner[int64_t(y) * S * 3 + byte]) : 0.0f;
            if (++byte == row_bytes)
                byte = 0, y++;
        }
        store4(out + first, float4{values[0], values[1], values[2], values[3]});
        store4(out + first + 4, float4{values[4], values[5], values[6], values[7]});
    }
}

template <class T>
static __global__ void __launch_bounds__(EMBED_THREADS)
    embed_kernel(float *x, T *patches, const uint8_t *pixels, const float *class_token,
                 const float *position, int S, int P, int C)
{
    int t = blockIdx.x, b = blockIdx.y, T_ = gridDim.x;
    float *row = x + (int64_t(b) * T_ + t) * C;
    for (int c = threadIdx.x; c < C; c += EMBED_THREADS)
        row[c] = position[int64_t(t) * C + c] + (t == 0 ? class_token[c] : 0.0f);
    if (t > 0)
        gather_patch(patches + (int64_t(b) * (T_ - 1) + t - 1) * EMBED_COLUMNS(P),
                     pixels + int64_t(b) * S * S * 3, t - 1, S, P);
}

template <class T> static enum status launch(struct stream *stream, const struct embed_args *args)
{
    int side = args->S / args->P, tokens = side * side + 1;
    return cuda_launch(reinterpret_cast<struct cuda_stream *>(stream), dim3(tokens, args->B),
                       dim3(EMBED_THREADS), 0, embed_kernel<T>, args->x,
                       static_cast<T *>(args->patches), args->pixels, args->class_token,
                       args->position, args->S, args->P, args->C);
}

static enum status gather(struct stream *stream, const struct embed_args *args)
{
    switch (backend_of(stream)->types.activation) {
    case CUDA_R_16BF:
        return launch<__nv_bfloat16>(stream, args);
    case CUDA_R_16F:
        return launch<__half>(stream, args);
    default:
        return launch<float>(stream, args);
    }
}

enum status embed_cuda(struct stream *stream, const struct embed_args *args)
{
    int side = args->S / args->P, N = side * side, columns = EMBED_COLUMNS(args->P);
    TRY(gather(stream, args));
    struct matmul matmul = {};
    matmul.kind = LINEAR_RESIDUAL;
    matmul.out = args->x + args->C; // past the class token of the first image
    matmul.in = args->patches;
    matmul.weight = args->weight;
    matmul.bias = args->bias;
    matmul.out_stride = args->C;
    matmul.M = N;
    matmul.N = args->C;
    matmul.K = columns;
    matmul.batch = args->B;
    matmul.in_distance = int64_t(N) * columns;
    matmul.out_distance = int64_t(N + 1) * args->C;
    return matmul_cuda(reinterpret_cast<struct cuda_stream *>(stream), &matmul);
}
