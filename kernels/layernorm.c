// out[r] = (x[r] - mean) / sqrt(variance + epsilon) * weight + bias
//
// x (rows, C) fp32, rows x_stride apart; out (rows, C) dense. Mean first, then the variance around
// it: two passes over a row that is in the nearest cache anyway, and no cancellation. The second
// pass also corrects the mean by that of the deviations, which loses no digits to a large mean. The
// order of the additions is written out: left to the compiler it could depend on where the row lies
// in memory.

#include "kernels.h"
#include "numeric.h"
#include "vector.h"
#include <math.h>
#include <string.h>

enum { STEP = 2 * VECTOR_FLOATS }; // two sums, so that an addition need not wait for the last

static float sum_of_lanes(vector lanes)
{
    typedef float quad __attribute__((vector_size(16)));
    quad quads[VECTOR_BYTES / 16], sum;
    memcpy(quads, &lanes, sizeof lanes);
    sum = quads[0];
    for (int i = 1; i < VECTOR_BYTES / 16; i++)
        sum += quads[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static float sum_of(const float *x, int C)
{
    vector sums[2] = {{0}};
    float rest = 0.0f;
    int c = 0;
    for (; c + STEP <= C; c += STEP) {
        sums[0] += vector_load(x + c);
        sums[1] += vector_load(x + c + VECTOR_FLOATS);
    }
    for (; c < C; c++)
        rest += x[c];
    return sum_of_lanes(sums[0] + sums[1]) + rest;
}

// The sum of what x differs from the mean by, and that of the squares.
static float deviations(const float *x, int C, float mean, float *squares)
{
    vector sums[2] = {{0}}, square_sums[2] = {{0}};
    float rest = 0.0f, square_rest = 0.0f;
    int c = 0;
    for (; c + STEP <= C; c += STEP) {
        vector first = vector_load(x + c) - mean,
               second = vector_load(x + c + VECTOR_FLOATS) - mean;
        sums[0] += first;
        sums[1] += second;
        square_sums[0] = vector_multiply_add(first, first, square_sums[0]);
        square_sums[1] = vector_multiply_add(second, second, square_sums[1]);
    }
    for (; c < C; c++) {
        float deviation = x[c] - mean;
        rest += deviation;
        square_rest = fused(deviation, deviation, square_rest);
    }
    *squares = sum_of_lanes(square_sums[0] + square_sums[1]) + square_rest;
    return sum_of_lanes(sums[0] + sums[1]) + rest;
}

// One of the outputs is NULL.
static void layernorm_row(float *restrict out, uint16_t *restrict half_out, const float *restrict x,
                          const float *restrict weight, const float *restrict bias, int C,
                          float epsilon)
{
    float mean = sum_of(x, C) / (float)C, squares;
    float shift = deviations(x, C, mean, &squares) / (float)C;
    float scale = 1.0f / sqrtf(squares / (float)C - shift * shift + epsilon);
    mean += shift;
    if (half_out)
        for (int c = 0; c < C; c++)
            half_out[c] = bf16_from_float(fused((x[c] - mean) * scale, weight[c], bias[c]));
    else
        for (int c = 0; c < C; c++)
            out[c] = fused((x[c] - mean) * scale, weight[c], bias[c]);
}

struct job {
    const struct layernorm_args *args;
    bool half;
};

enum { ROWS_PER_TASK = 8 };

static void normalize_rows(void *context, int task, int thread)
{
    const struct job *job = context;
    const struct layernorm_args *args = job->args;
    int first = task * ROWS_PER_TASK, left = args->rows - first;
    (void)thread;
    for (int r = first; r < first + (left < ROWS_PER_TASK ? left : ROWS_PER_TASK); r++) {
        int64_t at = (int64_t)r * args->C;
        layernorm_row(job->half ? NULL : (float *)args->out + at,
                      job->half ? (uint16_t *)args->out + at : NULL, args->x + r * args->x_stride,
                      args->weight, args->bias, args->C, args->epsilon);
    }
}

void CPU_KERNEL(layernorm_cpu)(const struct layernorm_args *args, bool half, struct team *team)
{
    team_run(team, (args->rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, normalize_rows,
             &(struct job){args, half});
}
