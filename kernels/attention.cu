// out[b, t, h] = softmax(q . k^T / sqrt(HS)) v, for the first `queries` tokens t of each image.
//
// qkv (B, T, 3, NH, HS), out (B, queries, NH, HS), activations.
//
// In 16 bit, a block takes 64 queries of one head of one image, 16 per warp, and goes over the keys
// 64 at a time: scores by mma.sync from keys in shared memory, softmax in fp32 registers with the
// running maximum and sum of each row (Milakov and Gimelshein, arXiv 1805.02867; one pass where
// T <= 64), the weights rounded to 16 bit as the left operand of the second product. Values arrive
// while the scores are computed, the next keys while the values are multiplied. With 50 tokens the
// kernel is bound by the latency of these steps, not by reading qkv.
//
// In fp32 and tf32, and for head sizes that are no instance of the above, a warp takes one query
// and computes in plain fp32: this is the reference, not the fast path.

#include "cuda_backend.cuh"

enum { TILE = 64, WARP_QUERIES = 16 };

// Rows of shared memory are 16 bytes longer than a head, so that the eight rows which an ldmatrix
// reads at once lie in different banks.
template <int HS> struct tile_row {
    static constexpr int stride = HS + 8;
};

// Copies up to TILE tokens, from token `first` of the image on, into shared memory; rows past T
// become zeros. `source` points at this head of token 0.
template <class T, int HS>
static __device__ void load_tile(T *tile, const T *source, int64_t token_stride, int first,
                                 int tokens)
{
    constexpr int chunks = HS / 8; // of 16 bytes
    for (int i = threadIdx.x; i < TILE * chunks; i += blockDim.x) {
        int row = i / chunks, column = i % chunks * 8;
        bool valid = first + row < tokens;
        const T *from = source + (valid ? first + row : 0) * token_stride + column;
        cp_async_16_or_zero(tile + row * tile_row<HS>::stride + column, from, valid);
    }
    cp_async_commit();
}

// scores (16 x 64) = q . k^T of one warp. In every fragment below, lane = 4 g + t holds rows g and
// g + 8 and columns 2 t and 2 t + 1 of each tile of eight columns.
template <class T, int HS>
static __device__ void multiply_keys(float (&scores)[8][4], const T *queries, const T *keys)
{
    constexpr int stride = tile_row<HS>::stride;
    int lane = threadIdx.x % 32, matrix = lane / 8;
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 4; i++)
            scores[j][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < HS; k += 16) {
        uint32_t a[4];
        ldmatrix_x4(a, queries + (lane % 16) * stride + k + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            uint32_t b[4]; // keys 8 j .. 8 j + 7, both halves of k; then the next eight keys
            ldmatrix_x4(b,
                        keys + (8 * j + matrix / 2 * 8 + lane % 8) * stride + k + matrix % 2 * 8);
            mma_m16n8k16<T>(scores[j], a, b[0], b[1]);
            mma_m16n8k16<T>(scores[j + 1], a, b[2], b[3]);
        }
    }
}

// out (16 x HS) += weights . v. The accumulators of the first product are, in pairs, the left
// operand's fragment of the second.
template <class T, int HS>
static __device__ void multiply_values(float (&out)[HS / 8][4], const float (&weights)[8][4],
                                       const T *values)
{
    constexpr int stride = tile_row<HS>::stride;
    int lane = threadIdx.x % 32, matrix = lane / 8;
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        uint32_t a[4] = {pack2<T>(weights[2 * k][0], weights[2 * k][1]),
                         pack2<T>(weights[2 * k][2], weights[2 * k][3]),
                         pack2<T>(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                         pack2<T>(weights[2 * k + 1][2], weights[2 * k + 1][3])};
#pragma unroll
        for (int j = 0; j < HS / 8; j += 2) {
            uint32_t b[4]; // both halves of k for columns 8 j .. 8 j + 7; then the next eight
            ldmatrix_x4_trans(b, values + (16 * k + matrix % 2 * 8 + lane % 8) * stride + 8 * j +
                                     matrix / 2 * 8);
            mma_m16n8k16<T>(out[j], a, b[0], b[1]);
            mma_m16n8k16<T>(out[j + 1], a, b[2], b[3]);
        }
    }
}

// A row's state while its keys go by: index 0 for row g, 1 for row g + 8 of the warp's sixteen.
struct softmax_state {
    float max[2], sum[2]; // the sum only over this lane's columns
};

// Turns scores of keys first .. first + 63 into weights relative to the new maximum; out and sum
// are brought to it too. Scores come in without their scale, which is log2(e) / sqrt(HS).
template <int OUT_TILES>
static __device__ void softmax_step(float (&scores)[8][4], float (&out)[OUT_TILES][4],
                                    struct softmax_state &state, float scale, int first, int tokens)
{
    int column = first + threadIdx.x % 4 * 2;
    for (int half = 0; half < 2; half++) {
        float max = state.max[half];
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &score = scores[j][2 * half + i];
                score = column + 8 * j + i < tokens ? score * scale : -INFINITY;
                max = fmaxf(max, score);
            }
        max = fmaxf(max, __shfl_xor_sync(~0u, max, 1));
        max = fmaxf(max, __shfl_xor_sync(~0u, max, 2));
        float shrink = exp2_approx(state.max[half] - max);
        state.max[half] = max;
        state.sum[half] *= shrink;
#pragma unroll
        for (int j = 0; j < OUT_TILES; j++)
            out[j][2 * half] *= shrink, out[j][2 * half + 1] *= shrink;
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &score = scores[j][2 * half + i];
                score = exp2_approx(score - max);
                state.sum[half] += score;
            }
    }
}

// Divides by the sums and stores the rows that are queries, by way of the warp's rows of the query
// tile, which are not needed any more: fragments are pairs, and global memory wants 16 bytes.
template <class T, int HS>
static __device__ void store_rows(T *out, T *rows, const float (&values)[HS / 8][4],
                                  const struct softmax_state &state, int64_t row_stride, int first,
                                  int queries)
{
    constexpr int stride = tile_row<HS>::stride, chunks = HS / 8;
    int lane = threadIdx.x % 32;
    for (int half = 0; half < 2; half++) {
        float sum = state.sum[half];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        float scale = 1.0f / sum;
        uint32_t *to =
            reinterpret_cast<uint32_t *>(rows + (lane / 4 + 8 * half) * stride + lane % 4 * 2);
#pragma unroll
        for (int j = 0; j < HS / 8; j++)
            to[4 * j] = pack2<T>(values[j][2 * half] * scale, values[j][2 * half + 1] * scale);
    }
    __syncwarp();
    for (int i = lane; i < WARP_QUERIES * chunks; i += 32) {
        int row = i / chunks, column = i % chunks * 8;
        if (first + row < queries)
            *reinterpret_cast<uint4 *>(out + (first + row) * row_stride + column) =
                *reinterpret_cast<const uint4 *>(rows + row * stride + column);
    }
}

// Grid: (tiles of queries, NH, B). Blocks of one to four warps.
template <class T, int HS>
static __global__ void __launch_bounds__(TILE / WARP_QUERIES * 32, 4)
    attention_mma_kernel(T *__restrict__ out, const T *__restrict__ qkv, int tokens, int queries,
                         float scale)
{
    constexpr int stride = tile_row<HS>::stride;
    DYNAMIC_SHARED(T, tiles);
    T *query_tile = tiles, *key_tile = tiles + TILE * stride,
      *value_tile = key_tile + TILE * stride;
    int heads = gridDim.y, head = blockIdx.y, b = blockIdx.z, first = blockIdx.x * TILE;
    int64_t C = int64_t(heads) * HS, token_stride = 3 * C;
    const T *q = qkv + b * tokens * token_stride + head * HS;
    int warp_row = threadIdx.x / 32 * WARP_QUERIES;

    float result[HS / 8][4] = {};
    struct softmax_state state = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    load_tile<T, HS>(query_tile, q, token_stride, first, tokens);
    load_tile<T, HS>(key_tile, q + C, token_stride, 0, tokens);
    load_tile<T, HS>(value_tile, q + 2 * C, token_stride, 0, tokens);
    for (int key = 0; key < tokens; key += TILE) {
        cp_async_wait<1>(); // all but the values
        __syncthreads();
        float scores[8][4];
        multiply_keys<T, HS>(scores, query_tile + warp_row * stride, key_tile);
        softmax_step(scores, result, state, scale, key, tokens);
        cp_async_wait<0>();
        __syncthreads();
        bool more = key + TILE < tokens;
        if (more)
            load_tile<T, HS>(key_tile, q + C, token_stride, key + TILE, tokens);
        multiply_values<T, HS>(result, scores, value_tile);
        if (more) {
            __syncthreads(); // the values have been read
            load_tile<T, HS>(value_tile, q + 2 * C, token_stride, key + TILE, tokens);
        }
    }
    store_rows<T, HS>(out + b * queries * C + head * HS, query_tile + warp_row * stride, result,
                      state, C, first + warp_row, queries);
}

// Grid: (queries, NH, B), one warp each. Shared memory: the query (HS), then a weight per token.
template <class T>
static __global__ void __launch_bounds__(32)
    attention_simt_kernel(T *__restrict__ out, const T *__restrict__ qkv, int tokens, int HS,
                          float scale)
{
    DYNAMIC_SHARED(float, shared);
    float *query = shared, *weights = shared + HS;
    int queries = gridDim.x, heads = gridDim.y, head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x;
    int64_t C = int64_t(heads) * HS, token_stride = 3 * C;
    const T *q = qkv + b * tokens * token_stride + head * HS;
    for (int d = lane; d < HS; d += 32)
        query[d] = to_float(q[blockIdx.x * token_stride + d]) * scale;
    __syncwarp();
    float max = -INFINITY, sum = 0.0f;
    for (int j = lane; j < tokens; j += 32) {
        const T *key = q + C + j * token_stride;
        float score = 0.0f;
        for (int d = 0; d < HS; d++)
            score += query[d] * to_float(key[d]);
        weights[j] = score;
        max = fmaxf(max, score);
    }
    max = warp_max(max);
    for (int j = lane; j < tokens; j += 32)
        sum += weights[j] = exp2f(weights[j] - max);
    sum = warp_sum(sum);
    __syncwarp();
    for (int d = lane; d < HS; d += 32) {
        float value = 0.0f;
        for (int j = 0; j < tokens; j++)
            value += weights[j] * to_float(q[2 * C + j * token_stride + d]);
        store1(out + (int64_t(b) * queries + blockIdx.x) * C + head * HS + d, value / sum);
    }
}

static float score_scale(int HS)
{
    return 1.44269504f / sqrtf(float(HS)); // log2(e): the kernels compute powers of two
}

template <class T>
static enum status launch_simt(struct stream *stream, const struct attention_args *args)
{
    return cuda_launch(stream, dim3(args->queries, args->NH, args->B), dim3(32),
                       sizeof(float) * (args->HS + args->T), attention_simt_kernel<T>,
                       static_cast<T *>(args->out), static_cast<const T *>(args->qkv), args->T,
                       args->HS, score_scale(args->HS));
}

template <class T, int HS>
static enum status launch_mma(struct stream *stream, const struct attention_args *args)
{
    int tiles = (args->queries + TILE - 1) / TILE;
    int warps = args->queries < TILE ? (args->queries + WARP_QUERIES - 1) / WARP_QUERIES
                                     : TILE / WARP_QUERIES;
    return cuda_launch(stream, dim3(tiles, args->NH, args->B), dim3(warps * 32),
                       3 * TILE * tile_row<HS>::stride * sizeof(T), attention_mma_kernel<T, HS>,
                       static_cast<T *>(args->out), static_cast<const T *>(args->qkv), args->T,
                       args->queries, score_scale(HS));
}

template <class T>
static enum status launch(struct stream *stream, const struct attention_args *args)
{
    if constexpr (sizeof(T) == 2)
        switch (args->HS) {
        case 16:
            return launch_mma<T, 16>(stream, args);
        case 32:
            return launch_mma<T, 32>(stream, args);
        case 64:
            return launch_mma<T, 64>(stream, args);
        case 80:
            return launch_mma<T, 80>(stream, args);
        }
    return launch_simt<T>(stream, args);
}

enum status attention_cuda(struct stream *stream, const struct attention_args *args)
{
    return with_activation_type(stream,
                                [=](auto value) { return launch<decltype(value)>(stream, args); });
}
