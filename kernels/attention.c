// out[b, t, h] = softmax(q . k^T / sqrt(HS)) v, for the first `queries` tokens t of each image.
//
// qkv (B, T, 3, NH, HS); out (B, queries, NH, HS). One (image, head) at a time per thread. Its
// keys, transposed, and values lie in scratch as fp32, so that scores and sums are matrix products
// of tiles (tile.c): TILE_ROWS queries share each pass over them.

#include "kernels.h"
#include "numeric.h"
#include <math.h>
#include <string.h>

static int whole_vectors(int columns)
{
    return (columns + VECTOR_FLOATS - 1) / VECTOR_FLOATS * VECTOR_FLOATS;
}

// What a thread works in. Rows are whole vectors; what pads them is never read.
struct scratch {
    float *keys;    // (HS, T)
    float *values;  // (T, HS)
    float *queries; // (TILE_ROWS, HS)
    float *scores;  // (TILE_ROWS, T)
    float *row;     // (HS)
    int T, HS;      // lengths of rows
};

size_t CPU_KERNEL(attention_scratch_cpu)(const struct attention_args *args)
{
    size_t T = (size_t)whole_vectors(args->T), HS = (size_t)whole_vectors(args->HS);
    return 2 * HS * T + TILE_ROWS * (HS + T) + HS;
}

static struct scratch cut_scratch(const struct attention_args *args, float *memory)
{
    struct scratch s = {.T = whole_vectors(args->T), .HS = whole_vectors(args->HS)};
    s.keys = memory;
    s.values = s.keys + (int64_t)s.HS * s.T;
    s.queries = s.values + (int64_t)s.T * s.HS;
    s.scores = s.queries + TILE_ROWS * s.HS;
    s.row = s.scores + TILE_ROWS * s.T;
    return s;
}

// out (rows, columns) = a (rows, K) . b (K, columns), rows of a and b as long as a_row and b_row.
static void multiply(float *out, int out_row, const float *a, int a_row, const float *b, int b_row,
                     int rows, int columns, int K)
{
    float tile[TILE_ROWS][TILE_COLUMNS];
    for (int n = 0; n < columns; n += TILE_COLUMNS) {
        int count = columns - n < TILE_COLUMNS ? columns - n : TILE_COLUMNS;
        int vectors = (count + VECTOR_FLOATS - 1) / VECTOR_FLOATS;
        CPU_KERNEL(tile_cpu)
        (DOT_FP32, &(struct tile){.out = tile,
                                  .a = a,
                                  .b = b + n,
                                  .a_stride = a_row * (int64_t)sizeof *a,
                                  .b_stride = b_row * (int64_t)sizeof *b,
                                  .lanes = K,
                                  .rows = rows,
                                  .vectors = vectors});
        for (int r = 0; r < rows; r++)
            memcpy(out + (int64_t)r * out_row + n, tile[r],
                   sizeof **tile * (size_t)(vectors * VECTOR_FLOATS));
    }
}

// Turns T scores, to be multiplied by `scale`, into weights that sum to 1.
static void softmax(float *scores, int T, float scale)
{
    float max = scores[0], sum = 0.0f;
#pragma omp simd reduction(max : max)
    for (int j = 0; j < T; j++)
        max = scores[j] > max ? scores[j] : max;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < T; j++)
        sum += scores[j] = exp_negative((scores[j] - max) * scale);
    float inverse = 1.0f / sum;
    for (int j = 0; j < T; j++)
        scores[j] *= inverse;
}

// Head h of image b: its vectors of `part` 0 (query), 1 (key) or 2 (value) for token t.
static const char *head(const struct attention_args *args, bool half, int b, int h, int part, int t)
{
    int64_t token = (int64_t)b * args->T + t;
    int64_t index = ((token * 3 + part) * args->NH + h) * args->HS;
    return (const char *)args->qkv + index * (half ? 2 : 4);
}

static void attention_head(const struct attention_args *args, bool half, int b, int h,
                           const struct scratch *s)
{
    int T = args->T, HS = args->HS;
    float scale = 1.0f / sqrtf((float)HS);
    for (int t = 0; t < T; t++) {
        activations_load(s->values + (int64_t)t * s->HS, head(args, half, b, h, 2, t), HS, half);
        activations_load(s->row, head(args, half, b, h, 1, t), HS, half);
        for (int d = 0; d < HS; d++)
            s->keys[(int64_t)d * s->T + t] = s->row[d];
    }
    for (int t = 0; t < args->queries; t += TILE_ROWS) {
        int rows = args->queries - t < TILE_ROWS ? args->queries - t : TILE_ROWS;
        for (int r = 0; r < rows; r++)
            activations_load(s->queries + r * s->HS, head(args, half, b, h, 0, t + r), HS, half);
        multiply(s->scores, s->T, s->queries, s->HS, s->keys, s->T, rows, T, HS);
        for (int r = 0; r < rows; r++)
            softmax(s->scores + r * s->T, T, scale);
        multiply(s->queries, s->HS, s->scores, s->T, s->values, s->HS, rows, HS, T);
        for (int r = 0; r < rows; r++) {
            int64_t index = (((int64_t)b * args->queries + t + r) * args->NH + h) * HS;
            activations_store((char *)args->out + index * (half ? 2 : 4), s->queries + r * s->HS,
                              HS, half);
        }
    }
}

struct job {
    const struct attention_args *args;
    bool half;
    float *scratch; // of every thread
};

static void attend(void *context, int task, int thread)
{
    const struct job *job = context;
    size_t floats = CPU_KERNEL(attention_scratch_cpu)(job->args);
    struct scratch s = cut_scratch(job->args, job->scratch + floats * (size_t)thread);
    attention_head(job->args, job->half, task / job->args->NH, task % job->args->NH, &s);
}

void CPU_KERNEL(attention_cpu)(const struct attention_args *args, bool half, struct team *team,
                               float *scratch)
{
    team_run(team, args->B * args->NH, attend, &(struct job){args, half, scratch});
}
