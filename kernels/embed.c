// The part of the patch embedding that is not a matrix product:
//   patches (B, N, P*P*3) = the P rows of P*3 bytes of each patch, one after the other, as fp32
//   x (B, T, C)           = position, plus the class token in row 0
// so that x += patches . weight^T + bias finishes the embedding (cpu.c).

#include "kernels.h"
#include <string.h>

static void gather_patch(float *restrict out, const uint8_t *restrict image, int n,
                         const struct embed_args *args)
{
    int side = args->S / args->P;
    int row_bytes = args->P * 3;
    int64_t stride = (int64_t)args->S * 3;
    const uint8_t *corner = image + n / side * args->P * stride + n % side * row_bytes;
    for (int y = 0; y < args->P; y++)
        for (int i = 0; i < row_bytes; i++)
            out[y * row_bytes + i] = (float)corner[y * stride + i];
}

void CPU_KERNEL(patches_cpu)(const struct embed_args *args)
{
    int side = args->S / args->P, N = side * side, T = N + 1, C = args->C;
    int64_t K = (int64_t)args->P * args->P * 3;
    float *patches = args->patches;
#pragma omp parallel for collapse(2)
    for (int b = 0; b < args->B; b++)
        for (int n = 0; n < N; n++)
            gather_patch(patches + ((int64_t)b * N + n) * K,
                         args->pixels + (int64_t)b * args->S * args->S * 3, n, args);
#pragma omp parallel for
    for (int b = 0; b < args->B; b++) {
        float *x = args->x + (int64_t)b * T * C;
        memcpy(x, args->position, sizeof *x * (size_t)T * (size_t)C);
        for (int c = 0; c < C; c++)
            x[c] += args->class_token[c];
    }
}
