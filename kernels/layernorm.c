// out[r] = (x[r] - mean) / sqrt(variance + epsilon) * weight + bias
//
// x (rows, C) fp32, rows x_stride apart; out (rows, C) dense. Mean first, then the variance around
// it: two passes over a row that is in the nearest cache anyway, and no cancellation. The second
// pass also corrects the mean by that of the deviations, which loses no digits to a large mean.

#include "kernels.h"
#include "numeric.h"
#include <math.h>

// One of the outputs is NULL.
static void layernorm_row(float *restrict out, uint16_t *restrict half_out, const float *restrict x,
                          const float *restrict weight, const float *restrict bias, int C,
                          float epsilon)
{
    float sum = 0.0f, deviations = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int c = 0; c < C; c++)
        sum += x[c];
    float mean = sum / (float)C;
#pragma omp simd reduction(+ : deviations, squares)
    for (int c = 0; c < C; c++) {
        deviations += x[c] - mean;
        squares += (x[c] - mean) * (x[c] - mean);
    }
    float shift = deviations / (float)C;
    float scale = 1.0f / sqrtf(squares / (float)C - shift * shift + epsilon);
    mean += shift;
    if (half_out)
        for (int c = 0; c < C; c++)
            half_out[c] = bf16_from_float((x[c] - mean) * scale * weight[c] + bias[c]);
    else
        for (int c = 0; c < C; c++)
            out[c] = (x[c] - mean) * scale * weight[c] + bias[c];
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
