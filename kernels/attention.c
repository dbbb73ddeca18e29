// out[b, t, h] = softmax(q . k^T / sqrt(HS)) v, for the first `queries` tokens t of each image.
//
// qkv (B, T, 3, NH, HS); out (B, queries, NH, HS). One (image, head) at a time per thread, and up
// to WIDTH queries of it. Both products are tiles (tile.c), the first one transposed: its rows are
// the keys, its columns the queries, so that softmax runs down the columns, a vector of queries at
// once. In bf16 both products are in bf16, so the weights and the values of two tokens go in a
// lane; sums and softmax are in fp32 always.

#include "kernels.h"
#include "numeric.h"
#include <math.h>
#include <string.h>

// With AVX-512 a tile takes a head of 64 values in one go.
enum { TILE_ROWS = 6, TILE_VECTORS = TILE_SUMS / TILE_ROWS, WIDTH = TILE_VECTORS * VECTOR_FLOATS };

struct job {
    const struct attention_args *args;
    bool half;
    float *scratch; // of every thread
};

// What a thread works in. Lanes hold one value in fp32, two in bf16. What pads rows to whole
// vectors is never used.
struct scratch {
    uint32_t *queries; // (lanes of HS, WIDTH)
    uint32_t *values;  // (lanes of T, HS)
    float *scores;     // (T, WIDTH)
    uint32_t *weights; // (lanes of T, WIDTH), in bf16
    float *products;   // (TILE_ROWS, HS)
    int HS;            // the length of rows
};

static int whole_vectors(int columns)
{
    return (columns + VECTOR_FLOATS - 1) / VECTOR_FLOATS * VECTOR_FLOATS;
}

size_t CPU_KERNEL(attention_scratch_cpu)(const struct attention_args *args)
{
    size_t T = (size_t)args->T, HS = (size_t)whole_vectors(args->HS);
    return HS * WIDTH + T * HS + T * WIDTH + (T + 1) / 2 * WIDTH + TILE_ROWS * HS;
}

static struct scratch cut_scratch(const struct attention_args *args, float *memory)
{
    struct scratch s = {.HS = whole_vectors(args->HS)};
    s.queries = (uint32_t *)memory;
    s.values = s.queries + (int64_t)s.HS * WIDTH;
    s.weights = s.values + (int64_t)args->T * s.HS;
    s.scores = (float *)(s.weights + (int64_t)(args->T + 1) / 2 * WIDTH);
    s.products = s.scores + (int64_t)args->T * WIDTH;
    return s;
}

// A block of 4 x 4 lanes; strides in lanes.
static void transpose_block(uint32_t *out, int64_t out_stride, const uint32_t *in,
                            int64_t in_stride)
{
    typedef uint32_t row __attribute__((vector_size(16)));
    row in_rows[4], out_rows[4];
    for (int r = 0; r < 4; r++)
        memcpy(&in_rows[r], in + r * in_stride, sizeof *in_rows);
    row even_low = __builtin_shufflevector(in_rows[0], in_rows[2], 0, 4, 1, 5);
    row even_high = __builtin_shufflevector(in_rows[0], in_rows[2], 2, 6, 3, 7);
    row odd_low = __builtin_shufflevector(in_rows[1], in_rows[3], 0, 4, 1, 5);
    row odd_high = __builtin_shufflevector(in_rows[1], in_rows[3], 2, 6, 3, 7);
    out_rows[0] = __builtin_shufflevector(even_low, odd_low, 0, 4, 1, 5);
    out_rows[1] = __builtin_shufflevector(even_low, odd_low, 2, 6, 3, 7);
    out_rows[2] = __builtin_shufflevector(even_high, odd_high, 0, 4, 1, 5);
    out_rows[3] = __builtin_shufflevector(even_high, odd_high, 2, 6, 3, 7);
    for (int r = 0; r < 4; r++)
        memcpy(out + r * out_stride, &out_rows[r], sizeof *out_rows);
}

// out (columns, rows) = in (rows, columns).
static void transpose(uint32_t *out, int64_t out_stride, const uint32_t *in, int64_t in_stride,
                      int rows, int columns)
{
    int whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
    for (int r = 0; r < whole_rows; r += 4)
        for (int c = 0; c < whole_columns; c += 4)
            transpose_block(out + c * out_stride + r, out_stride, in + r * in_stride + c,
                            in_stride);
    for (int r = 0; r < rows; r++)
        for (int c = r < whole_rows ? whole_columns : 0; c < columns; c++)
            out[c * out_stride + r] = in[r * in_stride + c];
}

// Softmax of one vector of columns, T scores each, to be multiplied by `scale`, but for the
// division by their sums. The weights are at most 1, rounded to bf16 in `half`, and the sums are of
// what they are then: the largest is exactly 1, so where it alone counts its value comes out as it
// is.
static void softmax(float *restrict scores, int T, float scale, bool half, float *restrict sums)
{
    float max[VECTOR_FLOATS];
    memcpy(max, scores, sizeof max);
    for (int j = 1; j < T; j++)
#pragma omp simd
        for (int n = 0; n < VECTOR_FLOATS; n++)
            max[n] = scores[j * WIDTH + n] > max[n] ? scores[j * WIDTH + n] : max[n];
    float sum[VECTOR_FLOATS] = {0};
    for (int j = 0; j < T; j++) {
        float *weights = scores + j * WIDTH;
#pragma omp simd
        for (int n = 0; n < VECTOR_FLOATS; n++)
            weights[n] = exp_negative((weights[n] - max[n]) * scale);
#pragma omp simd
        for (int n = 0; n < (half ? VECTOR_FLOATS : 0); n++)
            weights[n] = bf16_to_float(bf16_from_float(weights[n]));
#pragma omp simd
        for (int n = 0; n < VECTOR_FLOATS; n++)
            sum[n] += weights[n];
    }
    memcpy(sums, sum, sizeof sum);
}

// Rows of weights, which bf16 holds already, in pairs; the last of an odd number has zeros.
static void pair_weights(const struct scratch *s, int T, int width)
{
    static const float zeros[WIDTH];
    for (int j = 0; j < T; j += 2) {
        const float *first = s->scores + j * WIDTH, *second = j + 1 < T ? first + WIDTH : zeros;
        uint32_t *pairs = s->weights + j / 2 * WIDTH;
        for (int n = 0; n < width; n++)
            pairs[n] = (union float_bits){.value = first[n]}.bits >> 16 |
                       (union float_bits){.value = second[n]}.bits;
    }
}

// Head h of image b: its vector of `part` 0 (query), 1 (key) or 2 (value) for token t.
static const void *head(const struct job *job, int b, int h, int part, int t)
{
    const struct attention_args *args = job->args;
    int64_t token = (int64_t)b * args->T + t;
    int64_t index = ((token * 3 + part) * args->NH + h) * args->HS;
    return (const char *)args->qkv + index * (job->half ? 2 : 4);
}

// In bf16 a lane holds the values of two tokens, the first of them in its lower half; the last
// token of an odd number has no second.
static void gather_values(const struct job *job, int b, int h, const struct scratch *s)
{
    int T = job->args->T, HS = job->args->HS;
    for (int t = 0; t < T && !job->half; t++)
        memcpy(s->values + (int64_t)t * s->HS, head(job, b, h, 2, t), sizeof(float) * (size_t)HS);
    for (int t = 0; t < T && job->half; t += 2) {
        const uint16_t *first = head(job, b, h, 2, t);
        const uint16_t *second = head(job, b, h, 2, t + 1 < T ? t + 1 : t);
        uint32_t *row = s->values + (int64_t)(t / 2) * s->HS;
        for (int d = 0; d < HS; d++)
            row[d] = first[d] | (uint32_t)second[d] << 16;
    }
}

// Transposed, and zeros behind them.
static void gather_queries(const struct job *job, int b, int h, int t, int count,
                           const struct scratch *s)
{
    int lanes = job->args->HS / (job->half ? 2 : 1), width = whole_vectors(count);
    transpose(s->queries, WIDTH, head(job, b, h, 0, t), 3 * (int64_t)job->args->NH * lanes, count,
              lanes);
    for (int d = 0; d < lanes; d++)
        for (int n = count; n < width; n++)
            s->queries[d * WIDTH + n] = 0;
}

// Scores of `count` queries from t on with all keys -> their weights, not divided by their sums.
static void weigh(const struct job *job, int b, int h, int t, int count, const struct scratch *s,
                  float sums[WIDTH])
{
    const struct attention_args *args = job->args;
    int width = whole_vectors(count), lanes = args->HS / (job->half ? 2 : 1);
    int64_t token_lanes = 3 * (int64_t)args->NH * lanes;
    gather_queries(job, b, h, t, count, s);
    struct tile tile = {.b = s->queries,
                        .out_stride = WIDTH * sizeof *s->scores,
                        .a_stride = token_lanes * 4,
                        .a_step = 4,
                        .b_stride = WIDTH * sizeof *s->queries,
                        .lanes = lanes,
                        .vectors = width / VECTOR_FLOATS};
    for (int j = 0; j < args->T; j += TILE_ROWS) {
        tile.out = s->scores + j * WIDTH;
        tile.a = head(job, b, h, 1, j);
        tile.rows = args->T - j < TILE_ROWS ? args->T - j : TILE_ROWS;
        CPU_KERNEL(tile_cpu)(job->half ? DOT_BF16 : DOT_FP32, &tile);
    }
    for (int n = 0; n < width; n += VECTOR_FLOATS)
        softmax(s->scores + n, args->T, 1.0f / sqrtf((float)args->HS), job->half, sums + n);
    if (job->half)
        pair_weights(s, args->T, width);
}

// What the values of all tokens come to for `rows` queries, the first of them n in the weights.
static void multiply_values(const struct job *job, int n, int rows, const struct scratch *s)
{
    const struct attention_args *args = job->args;
    int vectors = s->HS / VECTOR_FLOATS;
    struct tile tile = {.a = job->half ? (const void *)(s->weights + n) : s->scores + n,
                        .out_stride = s->HS * (int64_t)sizeof *s->products,
                        .a_stride = 4,
                        .a_step = WIDTH * 4,
                        .b_stride = s->HS * (int64_t)sizeof *s->values,
                        .lanes = job->half ? (args->T + 1) / 2 : args->T,
                        .rows = rows};
    for (int v = 0; v < vectors; v += TILE_VECTORS) {
        tile.out = s->products + v * VECTOR_FLOATS;
        tile.b = s->values + v * VECTOR_FLOATS;
        tile.vectors = vectors - v < TILE_VECTORS ? vectors - v : TILE_VECTORS;
        CPU_KERNEL(tile_cpu)(job->half ? DOT_BF16 : DOT_FP32, &tile);
    }
}

// The values of `count` queries from t on, each divided by the sum of its weights, to their places.
static void store_values(const struct job *job, int b, int h, int t, int count,
                         const struct scratch *s, const float *sums)
{
    const struct attention_args *args = job->args;
    for (int r = 0; r < count; r++) {
        int64_t at = (((int64_t)b * args->queries + t + r) * args->NH + h) * args->HS;
        float *values = s->products + r * s->HS, inverse = 1.0f / sums[r];
        for (int d = 0; d < args->HS; d++)
            values[d] *= inverse;
        activations_store((char *)args->out + at * (job->half ? 2 : 4), values, args->HS,
                          job->half);
    }
}

static void attention_head(const struct job *job, int b, int h, const struct scratch *s)
{
    int queries = job->args->queries;
    float sums[WIDTH];
    gather_values(job, b, h, s);
    for (int t = 0; t < queries; t += WIDTH) {
        int count = queries - t < WIDTH ? queries - t : WIDTH;
        weigh(job, b, h, t, count, s, sums);
        for (int n = 0; n < count; n += TILE_ROWS) {
            int rows = count - n < TILE_ROWS ? count - n : TILE_ROWS;
            multiply_values(job, n, rows, s);
            store_values(job, b, h, t + n, rows, s, sums + n);
        }
    }
}

static void attend(void *context, int task, int thread)
{
    const struct job *job = context;
    size_t floats = CPU_KERNEL(attention_scratch_cpu)(job->args);
    struct scratch s = cut_scratch(job->args, job->scratch + floats * (size_t)thread);
    attention_head(job, task / job->args->NH, task % job->args->NH, &s);
}

void CPU_KERNEL(attention_cpu)(const struct attention_args *args, bool half, struct team *team,
                               float *scratch)
{
    team_run(team, args->B * args->NH, attend, &(struct job){args, half, scratch});
}
