// out[b, t, h] = softmax(q . k^T / sqrt(HS)) v, for the first `queries` tokens t of each image.
//
// qkv (B, T, 3, NH, HS); out (B, queries, NH, HS). One (image, head) at a time per thread. Scores
// and sums are matrix products of tiles (tile.c): TILE_ROWS queries share each pass over the keys,
// which lie transposed in scratch, and over the values. In bf16 both products are in bf16, so the
// keys and the weights of the values go in pairs; sums and softmax are in fp32 always.

#include "kernels.h"
#include "numeric.h"
#include <math.h>
#include <string.h>

// A tile takes a head of 64 values in one go.
#ifdef __AVX512F__
enum { TILE_ROWS = 6, TILE_VECTORS = 4 };
#else
enum { TILE_ROWS = 6, TILE_VECTORS = 2 };
#endif

struct job {
    const struct attention_args *args;
    bool half;
    float *scratch; // of every thread
};

// What a thread works in: 32-bit lanes of one value in fp32, of two in bf16, in rows of whole
// vectors. What pads them is never used.
struct scratch {
    uint32_t *keys;    // (lanes of HS, T)
    uint32_t *values;  // (lanes of T, HS)
    float *scores;     // (TILE_ROWS, T)
    float *sums;       // (TILE_ROWS, HS)
    uint16_t *weights; // (TILE_ROWS, T), the scores in bf16
    int T, HS;         // lengths of rows
};

static int whole_vectors(int columns)
{
    return (columns + VECTOR_FLOATS - 1) / VECTOR_FLOATS * VECTOR_FLOATS;
}

size_t CPU_KERNEL(attention_scratch_cpu)(const struct attention_args *args)
{
    size_t T = (size_t)whole_vectors(args->T), HS = (size_t)whole_vectors(args->HS);
    return 2 * HS * T + TILE_ROWS * (HS + T + T / 2);
}

static struct scratch cut_scratch(const struct attention_args *args, float *memory)
{
    struct scratch s = {.T = whole_vectors(args->T), .HS = whole_vectors(args->HS)};
    s.keys = (uint32_t *)memory;
    s.values = s.keys + (int64_t)s.HS * s.T;
    s.scores = memory + 2 * (int64_t)s.HS * s.T;
    s.sums = s.scores + TILE_ROWS * s.T;
    s.weights = (uint16_t *)(s.sums + TILE_ROWS * s.HS);
    return s;
}

// out (rows, columns) = a (rows, lanes) . b (lanes, columns). `columns` are rounded up to whole
// vectors; the rows of out and of b have room for them.
static void multiply(enum dot dot, float *out, int out_row, const void *a, int64_t a_stride,
                     const uint32_t *b, int b_row, int rows, int columns, int lanes)
{
    int vectors = (columns + VECTOR_FLOATS - 1) / VECTOR_FLOATS;
    for (int v = 0; v < vectors; v += TILE_VECTORS)
        CPU_KERNEL(tile_cpu)
    (dot, &(struct tile){.out = out + v * VECTOR_FLOATS,
                         .a = a,
                         .b = b + v * VECTOR_FLOATS,
                         .out_stride = out_row * (int64_t)sizeof *out,
                         .a_stride = a_stride,
                         .b_stride = b_row * (int64_t)sizeof *b,
                         .lanes = lanes,
                         .rows = rows,
                         .vectors = vectors - v < TILE_VECTORS ? vectors - v : TILE_VECTORS});
}

// Turns T scores, to be multiplied by `scale`, into weights of at most 1, rounded to bf16 in
// `half`, and returns the sum of what they are then: the largest is exactly 1, so where it alone
// counts its value comes out as it is.
static float softmax(float *scores, int T, float scale, bool half)
{
    float max = scores[0], sum = 0.0f;
#pragma omp simd reduction(max : max)
    for (int j = 0; j < T; j++)
        max = scores[j] > max ? scores[j] : max;
    for (int j = 0; j < T; j++)
        scores[j] = exp_negative((scores[j] - max) * scale);
    for (int j = 0; j < T && half; j++)
        scores[j] = bf16_to_float(bf16_from_float(scores[j]));
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < T; j++)
        sum += scores[j];
    return sum;
}

// Head h of image b: its vector of `part` 0 (query), 1 (key) or 2 (value) for token t.
static const void *head(const struct job *job, int b, int h, int part, int t)
{
    const struct attention_args *args = job->args;
    int64_t token = (int64_t)b * args->T + t;
    int64_t index = ((token * 3 + part) * args->NH + h) * args->HS;
    return (const char *)args->qkv + index * (job->half ? 2 : 4);
}

static void gather_keys(const struct job *job, int b, int h, const struct scratch *s)
{
    int lanes = job->half ? job->args->HS / 2 : job->args->HS;
    for (int t = 0; t < job->args->T; t++) {
        const uint32_t *key = head(job, b, h, 1, t);
        for (int d = 0; d < lanes; d++)
            s->keys[(int64_t)d * s->T + t] = key[d];
    }
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

// Softmax of the rows of scores, but for the division by their sums. Returns the weights as the
// product takes them, rows T long: bf16 has a zero behind an odd number of them.
static const void *weigh(const struct job *job, const struct scratch *s, int rows,
                         float sums[TILE_ROWS])
{
    int T = job->args->T;
    float scale = 1.0f / sqrtf((float)job->args->HS);
    for (int r = 0; r < rows; r++) {
        float *scores = s->scores + r * s->T;
        sums[r] = softmax(scores, T, scale, job->half);
        if (!job->half)
            continue;
        if (T % 2 != 0)
            scores[T] = 0.0f;
        activations_store(s->weights + r * s->T, scores, T + T % 2, true);
    }
    return job->half ? (const void *)s->weights : s->scores;
}

static void attention_head(const struct job *job, int b, int h, const struct scratch *s)
{
    const struct attention_args *args = job->args;
    enum dot dot = job->half ? DOT_BF16 : DOT_FP32;
    int per_lane = job->half ? 2 : 1, value_bytes = job->half ? 2 : 4;
    int64_t token_bytes = 3 * (int64_t)args->NH * args->HS * value_bytes;
    gather_keys(job, b, h, s);
    gather_values(job, b, h, s);
    for (int t = 0; t < args->queries; t += TILE_ROWS) {
        int rows = args->queries - t < TILE_ROWS ? args->queries - t : TILE_ROWS;
        multiply(dot, s->scores, s->T, head(job, b, h, 0, t), token_bytes, s->keys, s->T, rows,
                 args->T, args->HS / per_lane);
        float sums[TILE_ROWS];
        const void *weights = weigh(job, s, rows, sums);
        multiply(dot, s->sums, s->HS, weights, s->T * (int64_t)value_bytes, s->values, s->HS, rows,
                 args->HS, (args->T + per_lane - 1) / per_lane);
        for (int r = 0; r < rows; r++) {
            int64_t at = (((int64_t)b * args->queries + t + r) * args->NH + h) * args->HS;
            float *out = s->sums + r * s->HS, inverse = 1.0f / sums[r];
            for (int d = 0; d < args->HS; d++)
                out[d] *= inverse;
            activations_store((char *)args->out + at * value_bytes, out, args->HS, job->half);
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
