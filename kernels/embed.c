// The part of the patch embedding that is not a matrix product:
//   patches (B, N, EMBED_COLUMNS(P)) = the P rows of P*3 bytes of each patch, one after the other,
//                                      as activations, and zeros
//   x (B, T, C)                      = position, plus the class token in row 0
// so that x += patches . weight^T + bias finishes the embedding (cpu.c). Bytes are exact in bf16.

#include "kernels.h"
#include "numeric.h"
#include <string.h>

struct job {
    const struct embed_args *args;
    bool half;
};

static void gather_patch(void *restrict out, const uint8_t *restrict image, int n,
                         const struct embed_args *args, bool half)
{
    int side = args->S / args->P, row_bytes = args->P * 3, length = args->P * row_bytes;
    int64_t stride = (int64_t)args->S * 3;
    const uint8_t *corner = image + n / side * args->P * stride + n % side * row_bytes;
    float *floats = out;
    uint16_t *halves = out;
    for (int y = 0; y < args->P; y++)
        for (int i = 0; i < row_bytes; i++)
            if (half)
                halves[y * row_bytes + i] = bf16_from_float((float)corner[y * stride + i]);
            else
                floats[y * row_bytes + i] = (float)corner[y * stride + i];
    for (int i = length; i < EMBED_COLUMNS(args->P); i++)
        if (half)
            halves[i] = 0;
        else
            floats[i] = 0.0f;
}

// The patches of one image, and what they are added to.
static void gather_image(void *context, int b, int thread)
{
    const struct job *job = context;
    const struct embed_args *args = job->args;
    int side = args->S / args->P, N = side * side, T = N + 1, C = args->C;
    int64_t patch_bytes = EMBED_COLUMNS(args->P) * (int64_t)(job->half ? 2 : 4);
    (void)thread;
    for (int n = 0; n < N; n++)
        gather_patch((char *)args->patches + ((int64_t)b * N + n) * patch_bytes,
                     args->pixels + (int64_t)b * args->S * args->S * 3, n, args, job->half);
    float *x = args->x + (int64_t)b * T * C;
    memcpy(x, args->position, sizeof *x * (size_t)T * (size_t)C);
    for (int c = 0; c < C; c++)
        x[c] += args->class_token[c];
}

void CPU_KERNEL(patches_cpu)(const struct embed_args *args, bool half, struct team *team)
{
    team_run(team, args->B, gather_image, &(struct job){args, half});
}
