// The arithmetic of Pillow's ImagingResample for 8-bit samples, operation by operation, since the
// result must be the same to the bit. Each output sample of an axis is a weighted sum of the input
// samples under a filter, which is stretched by the scale where the picture shrinks. Weights are
// computed in double, normalised and rounded to 22-bit fixed point. Columns first, their result
// rounded to 8 bits, then rows. A resizer takes the picture in strips of rows and keeps of them,
// narrowed, what the next row of the crop needs: a few rows, whatever the picture's height.

#include "preprocess.h"
#include "clock.h"
#include "resample.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// A fused multiply-add would round differently. gcc has no such pragma: -std=c11 says it.
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

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
    int input;      // samples before the resize
    double length;  // of the picture in such samples; less than `input` where the last is a part
    int64_t output; // length after it; where the picture is long and thin this passes 2^31
    int64_t offset; // where the crop starts in the output
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
    double scale = axis->length / (double)axis->output;
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
            weight *= 1 << RESAMPLE_BITS;
            *weights++ = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
        taps->first[i] = first;
        taps->count[i] = end - first;
    }
    return STATUS_OK;
}

// torchvision's arithmetic: the longer side is truncated, the offset of the crop is rounded to
// even.
static struct axis axis_of(const struct preprocess *recipe, int side, int other_side, int reduction)
{
    int64_t output = recipe->resize;
    if (side > other_side)
        output = (int64_t)((double)((int64_t)recipe->resize * side) / (double)other_side);
    int64_t margin = output - recipe->crop, half = margin / 2;
    return (struct axis){side / reduction + (side % reduction != 0), (double)side / reduction,
                         output, half + (margin & half & 1)};
}

struct resizer {
    struct image_sink sink; // first: what the functions get is the resizer
    const struct preprocess *recipe;
    const struct resample *resample;
    uint8_t *out;
    struct image_size size;
    struct image_window window;
    struct taps columns, rows; // `first` counts from the window's edge
    uint8_t *memory;           // holds what follows
    uint8_t *turned, *narrowed;
    uint8_t *kept;     // narrowed rows, `stride` bytes apart, from row `oldest` of the window on
    uint8_t *finished; // a row of the crop, with the padding that `out` lacks
    size_t stride;
    int oldest, arrived; // rows of the window
    int written;         // rows of the crop
    int64_t resample_ns;
};

// Makes `first` count from the first sample that is needed, and says which that was and how many
// there are.
static void taps_rebase(struct taps *taps, int crop, int *first, int *length)
{
    *first = taps->first[0];
    *length = taps->first[crop - 1] + taps->count[crop - 1] - *first;
    for (int i = 0; i < crop; i++)
        taps->first[i] -= *first;
}

static int most_taps(const struct taps *taps, int crop)
{
    int most = 0;
    for (int i = 0; i < crop; i++)
        most = taps->count[i] > most ? taps->count[i] : most;
    return most;
}

// The sizes are sums and products of a few ints: none can pass 2^64.
static enum status resizer_allocate(struct resizer *resizer)
{
    enum { ALIGNMENT = 64 };
    int crop = resizer->recipe->crop;
    size_t strips = ((size_t)crop + RESAMPLE_ROWS - 1) / RESAMPLE_ROWS;
    resizer->stride = strips * RESAMPLE_LANES;
    size_t kept_rows = (size_t)most_taps(&resizer->rows, crop) + RESAMPLE_ROWS;
    size_t bytes[] = {RESAMPLE_COLUMNS_BYTES(resizer->window.width), RESAMPLE_COLUMNS_BYTES(crop),
                      kept_rows * resizer->stride, resizer->stride};
    uint8_t **parts[] = {&resizer->turned, &resizer->narrowed, &resizer->kept, &resizer->finished};
    size_t total = 0;
    for (int i = 0; i < 4; i++) {
        bytes[i] = (bytes[i] + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        total += bytes[i];
    }
    uint8_t *at = resizer->memory = aligned_alloc(ALIGNMENT, total);
    if (!at)
        return status_fail(STATUS_OUT_OF_MEMORY, "no memory to resize to %d pixels", crop);
    for (int i = 0; i < 4; i++, at += bytes[i - 1])
        *parts[i] = at;
    return STATUS_OK;
}

static enum status resizer_begin(struct image_sink *sink, const struct image_size *size,
                                 struct image_window *window)
{
    struct resizer *resizer = (struct resizer *)sink;
    const struct preprocess *recipe = resizer->recipe;
    const struct filter *filter = &filters[recipe->interpolation];
    struct axis horizontal = axis_of(recipe, size->width, size->height, size->reduction);
    struct axis vertical = axis_of(recipe, size->height, size->width, size->reduction);
    TRY(taps_init(&resizer->columns, &horizontal, recipe->crop, filter));
    TRY(taps_init(&resizer->rows, &vertical, recipe->crop, filter));
    taps_rebase(&resizer->columns, recipe->crop, &window->left, &window->width);
    taps_rebase(&resizer->rows, recipe->crop, &window->top, &window->height);
    resizer->size = *size;
    resizer->window = *window;
    return resizer_allocate(resizer);
}

static void resizer_rows(struct image_sink *sink, const uint8_t *const *rows, int count)
{
    _Static_assert((int)IMAGE_ROWS <= (int)RESAMPLE_ROWS, "a strip holds what comes at once");
    struct resizer *resizer = (struct resizer *)sink;
    const struct taps *taps = &resizer->rows;
    size_t stride = resizer->stride, crop = (size_t)resizer->recipe->crop;
    int64_t start = clock_ns();

    // What the next row of the crop does not need leaves; the strip comes behind the rest. (Ranges
    // of neighbours overlap or touch: the next one starts no later than where the rows end.)
    int oldest = taps->first[resizer->written];
    uint8_t *kept = resizer->kept, *end = kept + (size_t)(resizer->arrived - oldest) * stride;
    memmove(kept, kept + (size_t)(oldest - resizer->oldest) * stride, (size_t)(end - kept));
    const uint8_t *strip[RESAMPLE_ROWS]; // a short one is filled up: nobody reads the result
    for (int i = 0; i < RESAMPLE_ROWS; i++)
        strip[i] = rows[i < count ? i : 0];
    resizer->resample->columns(&resizer->columns, (int)crop, strip, resizer->window.width,
                               resizer->turned, resizer->narrowed, end, stride);
    resizer->oldest = oldest;
    resizer->arrived += count;

    for (size_t i = (size_t)resizer->written;
         i < crop && taps->first[i] + taps->count[i] <= resizer->arrived; i++) {
        resizer->resample->rows(taps->weights + i * taps->stride, taps->count[i],
                                kept + (size_t)(taps->first[i] - oldest) * stride, stride,
                                resizer->finished);
        memcpy(resizer->out + i * crop * 3, resizer->finished, crop * 3);
        resizer->written++;
    }
    resizer->resample_ns += clock_ns() - start;
}

// What the processor can do is asked once for each picture: it is a load.
static const struct resample *best_resample(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &resample_v4;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        return &resample_v3;
#endif
    return &resample_generic;
}

// Fast decoding keeps 3/2 of what the resize makes of the shorter side: with less, the crop blurs.
static struct resizer resizer_of(const struct preprocess *recipe, uint8_t *out)
{
    return (struct resizer){
        .sink = {.shortest = recipe->resize + recipe->resize / 2,
                 .begin = resizer_begin,
                 .rows = resizer_rows},
        .recipe = recipe,
        .resample = best_resample(),
        .out = out,
    };
}

static void resizer_release(struct resizer *resizer)
{
    taps_release(&resizer->columns);
    taps_release(&resizer->rows);
    free(resizer->memory);
}

enum status preprocess_bytes(const struct preprocess *recipe, const uint8_t *bytes, size_t length,
                             const struct image_limits *limits, uint8_t *out,
                             struct preprocessed *done)
{
    struct resizer resizer = resizer_of(recipe, out);
    enum status status = image_read(bytes, length, limits, &resizer.sink);
    if (status == STATUS_OK)
        *done = (struct preprocessed){resizer.size.width, resizer.size.height, resizer.resample_ns};
    resizer_release(&resizer);
    return status;
}

enum status preprocess_image(const struct preprocess *recipe, const struct image *image,
                             uint8_t *out)
{
    struct resizer resizer = resizer_of(recipe, out);
    enum status status = image_send(image, &resizer.sink);
    resizer_release(&resizer);
    return status;
}
