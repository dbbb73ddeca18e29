// The part of the patch embedding that is not a matrix product:
//   patches (B, N, EMBED_COLUMNS(P)) = the P rows of P*3 bytes of each patch, one after the other,
//                                      as the product takes them, and zeros
//   x (B, T, C)                      = position, plus the class token in row 0
// so that x += patches . weight^T + bias finishes the embedding (cpu.c). Bytes are exact in bf16.

#include "kernels.h"
#include "numeric.h"
#include <string.h>

struct job {
    const struct embed_args *args;
    enum dot dot;
};

static int value_bytes(enum dot dot)
{
    return dot == DOT_BYTES ? 1 : dot == DOT_BF16 ? 2 : 4;
}

// A row of a patch, or another stretch of pixels.
static void store_pixels(void *restrict out, const uint8_t *restrict pixels, int count,
                         enum dot dot)
{
    float *floats = out;
    uint16_t *halves = out;
    if (dot == DOT_BYTES)
        memcpy(out, pixels, (size_t)count);
    else if (dot == DOT_BF16)
        for (int i = 0; i < count; i++)
            halves[i] = bf16_from_float((float)pixels[i]);
    else
        for (int i = 0; i < count; i++)
            floats[i] = (float)pixels[i];
}

static void gather_patch(char *out, const uint8_t *image, int n, const struct embed_args *args,
                         enum dot dot)
{
    int side = args->S / args->P, row_bytes = args->P * 3, length = args->P * row_bytes;
    int64_t stride = (int64_t)args->S * 3, size = value_bytes(dot);
    const uint8_t *corner = image + n / side * args->P * stride + n % side * row_bytes;
    for (int y = 0; y < args->P; y++)
        store_pixels(out + y * row_bytes * size, corner + y * stride, row_bytes, dot);
    memset(out + length * size, 0, (size_t)((EMBED_COLUMNS(args->P) - length) * size));
}

// The patches of one image, and what they are added to.
static void gather_image(void *context, int b, int thread)
{
    const struct job *job = context;
    const struct embed_args *args = job->args;
    int side = args->S / args->P, N = side * side, T = N + 1, C = args->C;
    int64_t patch_bytes = EMBED_COLUMNS(args->P) * (int64_t)value_bytes(job->dot);
    (void)thread;
    for (int n = 0; n < N; n++)
        gather_patch((char *)args->patches + ((int64_t)b * N + n) * patch_bytes,
                     args->pixels + (int64_t)b * args->S * args->S * 3, n, args, job->dot);
    float *x = args->x + (int64_t)b * T * C;
    memcpy(x, args->position, sizeof *x * (size_t)T * (size_t)C);
    for (int c = 0; c < C; c++)
        x[c] += args->class_token[c];
}

void CPU_KERNEL(patches_cpu)(const struct embed_args *args, enum dot dot, struct team *team)
{
    team_run(team, args->B, gather_image, &(struct job){args, dot});
}
