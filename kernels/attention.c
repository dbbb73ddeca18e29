// out[b, t, h] = softmax(q . k^T / sqrt(HS)) v, for the first `queries` tokens t of each image.
//
// qkv (B, T, 3, NH, HS); out (B, queries, NH, HS). One (image, head) at a time per thread: its keys
// are transposed once into scratch, so that the scores of a query are sums of rows of T floats and
// the inner loops run over memory in order. Four queries share each pass over keys and values.

#include "kernels.h"
#include <math.h>
#include <omp.h>
#include <string.h>

enum { QUERIES = 4 };

// e^x for x <= 0, to about 2 ulp: 2^n e^r with |r| <= ln(2)/2, and the Taylor sum of e^r to r^7.
// Written out because a call to expf() in the loop would keep the compiler from vectorising it.
static inline float exp_negative(float x)
{
    x = x < -87.0f ? -87.0f : x;
    float n = rintf(x * 0x1.715476p+0f);
    float r = x - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        int32_t bits;
        float value;
    } power = {.bits = ((int32_t)n + 127) << 23};
    return p * power.value;
}

// Turns T scores into weights that sum to 1.
static void softmax(float *scores, int T)
{
    float max = scores[0], sum = 0.0f;
#pragma omp simd reduction(max : max)
    for (int j = 0; j < T; j++)
        max = scores[j] > max ? scores[j] : max;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < T; j++)
        sum += scores[j] = exp_negative(scores[j] - max);
    float scale = 1.0f / sum;
    for (int j = 0; j < T; j++)
        scores[j] *= scale;
}

// out[i] += sum over r < rows of factors[i * factor_stride + r] * matrix[r], for QUERIES rows i of
// `width` values; matrix rows are `stride` apart.
static void accumulate_rows(float *restrict out, const float *restrict factors, int factor_stride,
                            const float *restrict matrix, int64_t stride, int rows, int width)
{
    float *restrict out0 = out, *restrict out1 = out + width;
    float *restrict out2 = out + 2 * width, *restrict out3 = out + 3 * width;
    for (int r = 0; r < rows; r++) {
        const float *row = matrix + r * stride;
        float f0 = factors[r], f1 = factors[factor_stride + r];
        float f2 = factors[2 * factor_stride + r], f3 = factors[3 * factor_stride + r];
        for (int j = 0; j < width; j++) {
            out0[j] += f0 * row[j];
            out1[j] += f1 * row[j];
            out2[j] += f2 * row[j];
            out3[j] += f3 * row[j];
        }
    }
}

// One head of one image. q, k, v point at its first token; tokens are `stride` apart.
static void attention_head(const struct attention_args *args, float *restrict out, const float *q,
                           const float *k, const float *v, int64_t stride, float *scratch)
{
    int T = args->T, HS = args->HS;
    int64_t out_stride = (int64_t)args->NH * HS;
    float scale = 1.0f / sqrtf((float)HS);
    float *keys = scratch, *scores = keys + (size_t)HS * (size_t)T;
    float *queries = scores + QUERIES * T, *sums = queries + QUERIES * HS;

    for (int j = 0; j < T; j++)
        for (int d = 0; d < HS; d++)
            keys[(int64_t)d * T + j] = k[j * stride + d];
    for (int t = 0; t < args->queries; t += QUERIES) {
        int n = args->queries - t < QUERIES ? args->queries - t : QUERIES;
        memset(scores, 0, sizeof *scores * (size_t)(QUERIES * (T + 2 * HS)));
        for (int i = 0; i < n; i++)
            for (int d = 0; d < HS; d++)
                queries[i * HS + d] = q[(t + i) * stride + d] * scale;
        accumulate_rows(scores, queries, HS, keys, T, HS, T);
        for (int i = 0; i < n; i++)
            softmax(scores + i * T, T);
        accumulate_rows(sums, scores, T, v, stride, T, HS);
        for (int i = 0; i < n; i++)
            memcpy(out + (t + i) * out_stride, sums + i * HS, sizeof *sums * (size_t)HS);
    }
}

void CPU_KERNEL(attention_cpu)(const struct attention_args *args, float *scratch)
{
    int heads = args->NH, HS = args->HS;
    int64_t C = (int64_t)heads * HS, stride = 3 * C;
    size_t scratch_size = attention_cpu_scratch(args);
#pragma omp parallel for
    for (int i = 0; i < args->B * heads; i++) {
        int b = i / heads, h = i % heads;
        const float *q = (const float *)args->qkv + (int64_t)b * args->T * stride + h * HS;
        float *out = (float *)args->out + (int64_t)b * args->queries * C + h * HS;
        attention_head(args, out, q, q + C, q + 2 * C, stride,
                       scratch + scratch_size * (size_t)omp_get_thread_num());
    }
}
