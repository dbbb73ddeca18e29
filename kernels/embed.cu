// The patch embedding, in two steps: a kernel that gathers
//   patches (B, T, columns) = zeros for the class token, then the P*P*3 bytes of each patch as
//                             activations, and zeros up to `columns`
//   x (B, T, C)             = position, and in row 0 class token + position - bias
// and one matrix product over all rows, x += patches . weight^T + bias. The class token's row of
// zeros costs 1 / T of it, but keeps it one plain product, however many images there are.
//
// Bytes are exact in every activation type. A block takes one token of one image; consecutive
// threads take consecutive groups of eight columns, so that every store is one of 16 or 32 bytes.
// Where a row of a patch is a multiple of eight bytes, so is every load of pixels.

#include "cuda_backend.cuh"

enum { EMBED_THREADS = 128 };

// Eight bytes of a patch from column `first` on, zeros past its end. `corner` is its first byte.
static __device__ void load_columns(float (&values)[8], const uint8_t *__restrict__ corner,
                                    int first, int S, int P)
{
    int row_bytes = P * 3, y = first / row_bytes, byte = first % row_bytes;
    if (P % 8 == 0 && S % 8 == 0) {
        uint2 bytes = *reinterpret_cast<const uint2 *>(corner + int64_t(y) * S * 3 + byte);
        for (int i = 0; i < 4; i++) {
            values[i] = float(bytes.x >> 8 * i & 255);
            values[4 + i] = float(bytes.y >> 8 * i & 255);
        }
        return;
    }
    for (int i = 0; i < 8; i++) {
        values[i] = first + i < P * row_bytes ? float(corner[int64_t(y) * S * 3 + byte]) : 0.0f;
        if (++byte == row_bytes)
            byte = 0, y++;
    }
}

template <class T>
static __global__ void __launch_bounds__(EMBED_THREADS)
    embed_kernel(float *__restrict__ x, T *__restrict__ patches, const uint8_t *__restrict__ pixels,
                 const float *__restrict__ class_token, const float *__restrict__ position,
                 const float *__restrict__ bias, int S, int P, int C)
{
    int t = blockIdx.x, b = blockIdx.y, columns = EMBED_COLUMNS(P), side = S / P, n = t - 1;
    int64_t token = int64_t(b) * gridDim.x + t;
    for (int c = threadIdx.x * 4; c < C; c += EMBED_THREADS * 4) {
        float4 sum = load4(position + int64_t(t) * C + c);
        if (t == 0) {
            float4 y = load4(class_token + c), z = load4(bias + c);
            sum = {sum.x + y.x - z.x, sum.y + y.y - z.y, sum.z + y.z - z.z, sum.w + y.w - z.w};
        }
        store4(x + token * C + c, sum);
    }
    const uint8_t *corner = pixels + (int64_t(b) * S * S + (n / side * S + n % side) * P) * 3;
    for (int first = threadIdx.x * 8; first < columns; first += EMBED_THREADS * 8) {
        float values[8] = {};
        if (t > 0)
            load_columns(values, corner, first, S, P);
        store4(patches + token * columns + first,
               float4{values[0], values[1], values[2], values[3]});
        store4(patches + token * columns + first + 4,
               float4{values[4], values[5], values[6], values[7]});
    }
}

static int tokens_of(const struct embed_args *args)
{
    int side = args->S / args->P;
    return side * side + 1;
}

template <class T> static enum status launch(struct stream *stream, const struct embed_args *args)
{
    return cuda_launch(stream, dim3(tokens_of(args), args->B), dim3(EMBED_THREADS), 0,
                       embed_kernel<T>, args->x, static_cast<T *>(args->patches), args->pixels,
                       args->class_token, args->position, args->bias, args->S, args->P, args->C);
}

enum status embed_cuda(struct stream *stream, const struct embed_args *args)
{
    TRY(with_activation_type(stream,
                             [=](auto value) { return launch<decltype(value)>(stream, args); }));
    struct matmul matmul = {};
    matmul.kind = LINEAR_RESIDUAL;
    matmul.out = args->x;
    matmul.in = args->patches;
    matmul.weight = args->weight;
    matmul.bias = args->bias;
    matmul.out_stride = args->C;
    matmul.M = args->B * tokens_of(args);
    matmul.N = args->C;
    matmul.K = EMBED_COLUMNS(args->P);
    return matmul_cuda(stream, &matmul);
}
