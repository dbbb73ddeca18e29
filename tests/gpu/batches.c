// The GPU beside the CPU, same weights, same pictures: the logits of every batch size and every
// precision that the device has, every place of each batch, against fp32 on the CPU. Usage:
//   gpu_batches MODEL BATCH,BATCH,...
// Prints a line for each precision, and one for each batch that is over its precision's limit;
// exit code 1 if there is one.

#include "catalog.h"
#include "clock.h"
#include "device.h"
#include "log.h"
#include "model.h"
#include "vit.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PICTURES = 8, MAX_BATCHES = 32 };

// Largest rel-L2 error of the logits.
static const struct {
    enum precision precision;
    double limit;
} precisions[] = {
    {PRECISION_FP32, 1e-5}, {PRECISION_TF32, 2e-3}, {PRECISION_FP16, 2e-3}, {PRECISION_BF16, 2e-2}};

struct network {
    struct backend *backend;
    struct vit_weights weights;
    struct vit_run *run;
};

static void check(enum status status)
{
    if (status != STATUS_OK) {
        fprintf(stderr, "gpu_batches: %s\n", status_detail(status));
        exit(1);
    }
}

static void open_network(struct network *n, enum device device, enum precision precision,
                         const struct catalog_entry *entry, int max_batch)
{
    struct weights *weights;
    check(device_open(device, precision, 0, &n->backend));
    check(weights_open_random(1, &weights));
    check(vit_weights_load(n->backend, &entry->dims, &entry->preprocess, weights, &n->weights));
    weights_close(weights);
    check(vit_run_create(&entry->dims, &n->weights, max_batch, &n->run));
}

static void close_network(struct network *n)
{
    vit_run_free(n->run);
    vit_weights_release(&n->weights);
    n->backend->ops->destroy(n->backend);
}

static size_t picture_bytes(const struct vit_dims *dims)
{
    return (size_t)dims->S * (size_t)dims->S * 3;
}

// Logits of a batch of the pictures, in order and over again.
static const float *forward(struct network *n, const struct vit_dims *dims, const uint8_t *pixels,
                            int batch)
{
    const float *logits;
    for (int i = 0; i < batch; i++)
        check(vit_set_image(n->run, i, pixels + (size_t)(i % PICTURES) * picture_bytes(dims)));
    check(vit_forward(n->run, batch, &logits));
    return logits;
}

static double relative_error(const float *got, const float *expected, int count)
{
    double error = 0.0, norm = 0.0;
    for (int k = 0; k < count; k++) {
        error += ((double)got[k] - (double)expected[k]) * ((double)got[k] - (double)expected[k]);
        norm += (double)expected[k] * (double)expected[k];
    }
    return sqrt(error / norm);
}

// The worst error over all batches of a precision; NaN counts as infinite.
static double worst_error(const struct catalog_entry *entry, enum precision precision, double limit,
                          const uint8_t *pixels, const float *expected, const int *batches,
                          int n_batches)
{
    const struct vit_dims *dims = &entry->dims;
    struct network gpu;
    double worst = 0.0;
    int largest = 1;
    for (int i = 0; i < n_batches; i++)
        largest = batches[i] > largest ? batches[i] : largest;
    open_network(&gpu, DEVICE_CUDA, precision, entry, largest);
    for (int i = 0; i < 2 * n_batches; i++) { // the second time from the recording
        int batch = batches[i % n_batches];
        const float *logits = forward(&gpu, dims, pixels, batch);
        for (int image = 0; image < batch; image++) {
            double error = relative_error(logits + (size_t)image * (size_t)dims->K,
                                          expected + (image % PICTURES) * dims->K, dims->K);
            if (!(error <= limit))
                printf("%s, batch %d, image %d: rel-L2 %.2e is over %.0e\n",
                       precision_name(precision), batch, image, error, limit);
            worst = error <= worst ? worst : isnan(error) ? INFINITY : error;
        }
    }
    close_network(&gpu);
    return worst;
}

static int parse_batches(const char *text, int *batches)
{
    int count = 0;
    for (char *end; *text && count < MAX_BATCHES; text = *end ? end + 1 : end) {
        batches[count] = (int)strtol(text, &end, 10);
        if (end == text || batches[count] < 1)
            return 0;
        count++;
    }
    return count;
}

// Noise of its own brightness for each picture.
static uint8_t *make_pictures(const struct vit_dims *dims)
{
    size_t bytes = picture_bytes(dims);
    uint8_t *pixels = malloc(PICTURES * bytes);
    uint32_t random = 1;
    for (size_t i = 0; pixels && i < PICTURES * bytes; i++) {
        random = random * 1664525u + 1013904223u;
        pixels[i] = (uint8_t)((random >> 25) + 16 * (i / bytes));
    }
    return pixels;
}

int main(int argc, char **argv)
{
    int batches[MAX_BATCHES], n_batches = argc == 3 ? parse_batches(argv[2], batches) : 0;
    struct catalog *catalog;
    const struct catalog_entry *entry;
    if (n_batches == 0) {
        fprintf(stderr, "usage: %s MODEL BATCH,BATCH,...\n", argv[0]);
        return 2;
    }
    log_set(LOG_ERROR, LOG_TEXT);
    check(catalog_open(&catalog));
    check(catalog_find(catalog, argv[1], &entry));
    size_t logits_bytes = sizeof(float) * PICTURES * (size_t)entry->dims.K;
    uint8_t *pixels = make_pictures(&entry->dims);
    float *expected = malloc(logits_bytes);
    if (!pixels || !expected)
        return 1;
    struct network cpu;
    open_network(&cpu, DEVICE_CPU, PRECISION_FP32, entry, PICTURES);
    memcpy(expected, forward(&cpu, &entry->dims, pixels, PICTURES), logits_bytes);
    close_network(&cpu);
    bool failed = false;
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        int64_t start = clock_ns();
        double limit = precisions[i].limit;
        double worst = worst_error(entry, precisions[i].precision, limit, pixels, expected, batches,
                                   n_batches);
        printf("%s: rel-L2 at most %.2e (limit %.0e) in batches of %s; %.1f s\n",
               precision_name(precisions[i].precision), worst, limit, argv[2],
               (double)(clock_ns() - start) * 1e-9);
        failed |= !(worst <= limit);
    }
    free(expected);
    free(pixels);
    catalog_close(catalog);
    return failed;
}
