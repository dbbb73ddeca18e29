// out[r] = (x[r] - mean) / sqrt(variance + epsilon) * weight + bias
//
// x (rows, C) fp32, rows x_stride apart; out (rows, C) dense. Mean first, then the variance around
// it: two passes over a row that is in the nearest cache anyway, and no cancellation. The second
// pass also corrects the mean by that of the deviations, which loses no digits to a large mean. The
// order of the additions is written out, LANES sums side by side: left to the compiler it could
// depend on where the row lies in memory.

#include "kernels.h"
#include "numeric.h"
#include <math.h>

enum { LANES = 2 * VECTOR_FLOATS }; // two chains, so that an addition need not wait for the last

// The last of a row, fewer than LANES, go to the first lanes.
static float sum_of_lanes(float lanes[LANES])
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}

static float sum_of(const float *x, int C)
{
    float sums[LANES] = {0};
    int c = 0;
    for (; c + LANES <= C; c += LANES)
        for (int i = 0; i < LANES; i++)
            sums[i] += x[c + i];
    for (int i = 0; c + i < C; i++)
        sums[i] += x[c + i];
    return sum_of_lanes(sums);
}

// The sum of what x differs from the mean by, and that of the squares.
static float deviations(const float *x, int C, float mean, float *squares)
{
    float sums[LANES] = {0}, square_sums[LANES] = {0};
    int c = 0;
    for (; c + LANES <= C; c += LANES)
        for (int i = 0; i < LANES; i++) {
            float deviation = x[c + i] - mean;
            sums[i] += deviation;
            square_sums[i] = fused(deviation, deviation, square_sums[i]);
        }
    for (int i = 0; c + i < C; i++) {
        float deviation = x[c + i] - mean;
        sums[i] += deviation;
        square_sums[i] = fused(deviation, deviation, square_sums[i]);
    }
    *squares = sum_of_lanes(square_sums);
    return sum_of_lanes(sums);
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
