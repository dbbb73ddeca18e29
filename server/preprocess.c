// The arithmetic of Pillow's ImagingResample for 8-bit samples, operation by operation, since the
// result must be the same to the bit. Each output sample of an axis is a weighted sum of the input
// samples under a filter, which is stretched by the scale where the picture shrinks. Weights are
// computed in double, normalised and rounded to 22-bit fixed point. Columns first, their result
// rounded to 8 bits, then rows.

#include "preprocess.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// A fused multiply-add would round differently. gcc has no such pragma: -std=c11 says it.
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

enum { PRECISION_BITS = 32 - 8 - 2 }; // 8 bits of result, 2 for weights that are negative or over 1

struct filter {
    double (*weight)(double distance);
    double support; // the weight is 0 from here on
};

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static const struct filter filters[] = {
    [INTERPOLATION_BILINEAR] = {bilinear, 1.0},
    [INTERPOLATION_BICUBIC] = {bicubic, 2.0},
};

// One axis: what part of the resized picture is wanted.
struct axis {
    int input;      // length before the resize
    int64_t output; // after it; where the picture is long and thin this passes 2^31
    int64_t offset; // where the crop starts in the output
};

// The weights of `crop` outputs: output i is the sum of weights[i * stride + j] * input[first[i] +
// j], j < count[i]. Both ends of these ranges grow with i.
struct taps {
    int *first, *count;
    int32_t *weights;
    size_t stride;
};

static void taps_release(struct taps *taps)
{
    free(taps->first);
    free(taps->count);
    free(taps->weights);
}

static enum status taps_allocate(struct taps *taps, int crop, double support)
{
    taps->stride = (size_t)ceil(support) * 2 + 1;
    taps->first = reallocarray(NULL, (size_t)crop, sizeof *taps->first);
    taps->count = reallocarray(NULL, (size_t)crop, sizeof *taps->count);
    size_t bytes;
    if (!__builtin_mul_overflow(taps->stride, sizeof *taps->weights, &bytes))
        taps->weights = reallocarray(NULL, (size_t)crop, bytes);
    if (!taps->first || !taps->count || !taps->weights)
        return status_fail(STATUS_OUT_OF_MEMORY, "no memory for the weights of a resize");
    return STATUS_OK;
}

// *taps is to be released also where this fails.
static enum status taps_init(struct taps *taps, const struct axis *axis, int crop,
                             const struct filter *filter)
{
    double scale = (double)axis->input / (double)axis->output;
    double stretch = scale < 1.0 ? 1.0 : scale;
    double support = filter->support * stretch;
    double shrink = 1.0 / stretch;
    TRY(taps_allocate(taps, crop, support));
    for (int i = 0; i < crop; i++) {
        double center = ((double)(axis->offset + i) + 0.5) * scale;
        int first = (int)(center - support + 0.5);
        int end = (int)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > axis->input ? axis->input : end;
        double sum = 0.0;
        for (int j = first; j < end; j++)
            sum += filter->weight((j - center + 0.5) * shrink);
        int32_t *weights = taps->weights + (size_t)i * taps->stride;
        for (int j = first; j < end; j++) {
            double weight = filter->weight((j - center + 0.5) * shrink);
            if (sum != 0.0)
                weight /= sum;
            weight *= 1 << PRECISION_BITS;
            *weights++ = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
        taps->first[i] = first;
        taps->count[i] = end - first;
    }
    return STATUS_OK;
}

static uint8_t round_to_8_bits(int32_t sum)
{
    int32_t value = (sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

// input: `rows` rows of `width` pixels; output: (rows, crop, 3).
static void resample_columns(const struct taps *taps, int crop, const uint8_t *input, int width,
                             size_t rows, uint8_t *output)
{
    for (size_t y = 0; y < rows; y++, input += (size_t)width * 3) {
        for (int i = 0; i < crop; i++, output += 3) {
            const uint8_t *pixel = input + (size_t)taps->first[i] * 3;
            const int32_t *weights = taps->weights + (size_t)i * taps->stride;
            int32_t red = 0, green = 0, blue = 0;
            for (int j = 0; j < taps->count[i]; j++, pixel += 3) {
                red += pixel[0] * weights[j];
                green += pixel[1] * weights[j];
                blue += pixel[2] * weights[j];
            }
            output[0] = round_to_8_bits(red);
            output[1] = round_to_8_bits(green);
            output[2] = round_to_8_bits(blue);
        }
    }
}

// input: rows of `samples` bytes, the first of them row taps->first[0]; output: (crop, samples);
// sums: (samples,) to work in.
static void resample_rows(const struct taps *taps, int crop, const uint8_t *input, size_t samples,
                          int32_t *sums, uint8_t *output)
{
    for (int i = 0; i < crop; i++, output += samples) {
        const uint8_t *row = input + (size_t)(taps->first[i] - taps->first[0]) * samples;
        const int32_t *weights = taps->weights + (size_t)i * taps->stride;
        memset(sums, 0, samples * sizeof *sums);
        for (int j = 0; j < taps->count[i]; j++, row += samples)
            for (size_t x = 0; x < samples; x++)
                sums[x] += row[x] * weights[j];
        for (size_t x = 0; x < samples; x++)
            output[x] = round_to_8_bits(sums[x]);
    }
}

// torchvision's arithmetic: the longer side is truncated, the offset of the crop is rounded to
// even.
static struct axis axis_of(const struct preprocess *recipe, int side, int other_side)
{
    int64_t output = recipe->resize;
    if (side > other_side)
        output = (int64_t)((double)((int64_t)recipe->resize * side) / (double)other_side);
    int64_t margin = output - recipe->crop, half = margin / 2;
    return (struct axis){side, output, half + (margin & half & 1)};
}

enum status preprocess_image(const struct preprocess *recipe, const struct image *image,
                             uint8_t *out)
{
    const struct filter *filter = &filters[recipe->interpolation];
    struct axis horizontal = axis_of(recipe, image->width, image->height);
    struct axis vertical = axis_of(recipe, image->height, image->width);
    int crop = recipe->crop;
    size_t samples = (size_t)crop * 3;
    struct taps columns = {0}, rows = {0};
    uint8_t *narrowed = NULL;
    int32_t *sums = NULL;
    enum status status = taps_init(&columns, &horizontal, crop, filter);
    if (status == STATUS_OK)
        status = taps_init(&rows, &vertical, crop, filter);
    if (status != STATUS_OK)
        goto out;

    // Only the rows that the crop is made of.
    int top = rows.first[0];
    size_t height = (size_t)(rows.first[crop - 1] + rows.count[crop - 1] - top);
    narrowed = reallocarray(NULL, height, samples);
    sums = reallocarray(NULL, samples, sizeof *sums);
    if (!narrowed || !sums) {
        status = status_fail(STATUS_OUT_OF_MEMORY, "no memory to resize to %zu rows", height);
        goto out;
    }
    resample_columns(&columns, crop, image->rgb + (size_t)top * (size_t)image->width * 3,
                     image->width, height, narrowed);
    resample_rows(&rows, crop, narrowed, samples, sums, out);
out:
    taps_release(&columns);
    taps_release(&rows);
    free(narrowed);
    free(sums);
    return status;
}
