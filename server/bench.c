// vitserve bench: how fast the engine is, without HTTP and decoding, beside the device's limit.

#include "clock.h"
#include "commands.h"
#include "json.h"
#include "model.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SIZES = 64, MAX_SAMPLES = 100000, LARGEST_BATCH = 4096 };

struct measurement {
    int batch;
    double images_per_second, ms_p50, ms_p99, percent_of_limit;
};

static enum status parse_sizes(const char *text, int *sizes, int *count)
{
    *count = 0;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long size = strtol(at, &end, 10);
        if (end == at || errno || size < 1 || size > LARGEST_BATCH || *count == MAX_SIZES ||
            (*end && *end != ','))
            return status_fail(STATUS_USAGE,
                               "--batch: \"%s\" is not a list like 1,8,32 of sizes from 1 to %d",
                               text, LARGEST_BATCH);
        sizes[(*count)++] = (int)size;
        if (!*end)
            return STATUS_OK;
        at = end;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Runs one batch size for `seconds` after two passes of warm-up. Rates come from the median pass.
static enum status measure(struct vit_run *run, int batch, double seconds, double *samples,
                           struct measurement *out)
{
    const float *logits;
    int count = 0;
    TRY(vit_forward(run, batch, &logits));
    TRY(vit_forward(run, batch, &logits));
    int64_t begin = clock_ns();
    while (count < MAX_SAMPLES && (double)(clock_ns() - begin) * 1e-9 < seconds) {
        int64_t start = clock_ns();
        TRY(vit_forward(run, batch, &logits));
        samples[count++] = (double)(clock_ns() - start) * 1e-6;
    }
    qsort(samples, (size_t)count, sizeof *samples, by_value);
    out->batch = batch;
    out->ms_p50 = samples[count / 2];
    out->ms_p99 = samples[(count * 99 + 99) / 100 - 1];
    out->images_per_second = 1e3 * batch / out->ms_p50;
    return STATUS_OK;
}

static enum status measure_all(const struct model *model, const int *sizes, int count,
                               double seconds, struct measurement *results)
{
    int largest = 1;
    for (int i = 0; i < count; i++)
        largest = sizes[i] > largest ? sizes[i] : largest;
    struct vit_run *run = NULL;
    size_t bytes = (size_t)model->entry->dims.S * (size_t)model->entry->dims.S * 3;
    uint8_t *pixels = calloc(bytes, 1);
    double *samples = malloc(sizeof *samples * MAX_SAMPLES);
    enum status status = STATUS_OK;
    if (!pixels || !samples)
        status = status_fail(STATUS_OUT_OF_MEMORY, "bench: out of memory");
    if (status == STATUS_OK)
        status = vit_run_create(&model->entry->dims, &model->replicas[0].weights, largest, &run);
    for (size_t i = 0; pixels && i < bytes; i++)
        pixels[i] = (uint8_t)(i * 2654435761u >> 24);
    for (int i = 0; i < largest && status == STATUS_OK; i++)
        status = vit_set_image(run, i, pixels);
    for (int i = 0; i < count && status == STATUS_OK; i++) {
        double peak = 0.0;
        status = vit_run_peak(run, &peak);
        if (status == STATUS_OK)
            status = measure(run, sizes[i], seconds, samples, &results[i]);
        results[i].percent_of_limit =
            100.0 * results[i].images_per_second * (double)vit_flops(&model->entry->dims) / peak;
    }
    vit_run_free(run);
    free(samples);
    free(pixels);
    return status;
}

static void print_table(const struct model *model, const struct measurement *results, int count)
{
    printf("%s on %s (%s), %s\n", model->entry->name, model->replicas[0].backend->name,
           model->replicas[0].backend->device_name,
           precision_name(model->replicas[0].backend->precision));
    puts("  batch   images/s   ms (p50)   ms (p99)   % of limit");
    for (int i = 0; i < count; i++)
        printf("  %5d %10.1f %10.3f %10.3f %12.1f\n", results[i].batch,
               results[i].images_per_second, results[i].ms_p50, results[i].ms_p99,
               results[i].percent_of_limit);
}

static enum status print_json(const struct model *model, const struct measurement *results,
                              int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:i, s:f, s:f, s:f, s:f}", "batch", results[i].batch,
                                        "images_per_second", results[i].images_per_second, "ms_p50",
                                        results[i].ms_p50, "ms_p99", results[i].ms_p99,
                                        "percent_of_limit", results[i].percent_of_limit));
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:o}", "model", model->entry->name, "device",
                  model->replicas[0].backend->name, "precision",
                  precision_name(model->replicas[0].backend->precision), "results", list);
    char *text;
    TRY(json_print(root, JSON_REAL_PRECISION(6), &text));
    puts(text);
    free(text);
    return STATUS_OK;
}

static enum status bench(const struct config *config, const struct model *model)
{
    int sizes[MAX_SIZES], count;
    struct measurement results[MAX_SIZES] = {0};
    TRY(parse_sizes(config->batch, sizes, &count));
    TRY(measure_all(model, sizes, count, (double)config->seconds, results));
    if (config->json)
        return print_json(model, results, count);
    print_table(model, results, count);
    return STATUS_OK;
}

int bench_main(const struct config *config)
{
    struct model model;
    enum status status = model_open(config, &model);
    if (status == STATUS_OK) {
        status = bench(config, &model);
        model_close(&model);
    }
    return status == STATUS_OK ? EXIT_OK : exit_code(status);
}
