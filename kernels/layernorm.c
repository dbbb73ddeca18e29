// out[r] = (x[r] - mean) / sqrt(variance + epsilon) * weight + bias
//
// x (rows, C) fp32, rows x_stride apart; out (rows, C) dense. Mean first, then the variance around
// it: two passes over a row that is in the nearest cache anyway, and no cancellation. The second
// pass also corrects the mean by that of the deviations, which loses no digits to a large mean.

#include "kernels.h"
#include <math.h>

static void layernorm_row(float *restrict out, const float *restrict x,
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
    for (int c = 0; c < C; c++)
        out[c] = (x[c] - mean) * scale * weight[c] + bias[c];
}

void CPU_KERNEL(layernorm_cpu)(const struct layernorm_args *args)
{
    float *out = args->out;
#pragma omp parallel for
    for (int r = 0; r < args->rows; r++)
        layernorm_row(out + (int64_t)r * args->C, args->x + r * args->x_stride, args->weight,
                      args->bias, args->C, args->epsilon);
}
