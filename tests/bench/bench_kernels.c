// Every op of a forward pass on its own, at a model's shapes: time, share of the pass, and how
// close it comes to the device's arithmetic limit or how many bytes it moves. Usage:
//   bench_kernels cpu|cuda PRECISION MODEL BATCH [SECONDS]
// Times are medians of runs of many launches between two synchronisations.

#include "catalog.h"
#include "clock.h"
#include "device.h"
#include "log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAUNCHES = 20, MAX_RUNS = 1000 };

struct bench {
    struct backend *backend;
    struct stream *stream;
    struct vit_dims dims;
    int B;
    double seconds; // for each op
    double peak, total;
    // Device memory, each as large as the largest use of it.
    void *x, *wide, *narrow, *weight, *vector, *pixels;
};

static void check(enum status status)
{
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_kernels: %s\n", status_detail(status));
        exit(1);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Times launch(bench) and prints a line; `count` is how often a forward pass has the op.
static void measure(struct bench *b, const char *name, enum status (*launch)(struct bench *),
                    int count, double flops, double bytes)
{
    static double times[MAX_RUNS];
    int runs = 0;
    check(launch(b));
    check(b->backend->ops->sync(b->stream));
    int64_t begin = clock_ns();
    do {
        int64_t start = clock_ns();
        for (int i = 0; i < LAUNCHES; i++)
            check(launch(b));
        check(b->backend->ops->sync(b->stream));
        times[runs++] = (double)(clock_ns() - start) * 1e-3 / LAUNCHES;
    } while (runs < MAX_RUNS && (double)(clock_ns() - begin) * 1e-9 < b->seconds);
    qsort(times, (size_t)runs, sizeof *times, by_value);
    double us = times[runs / 2];
    b->total += us * count;
    printf("%-12s %4d x %10.2f us %9.1f GFLOP/s %6.1f %% of the limit %9.1f GB/s\n", name, count,
           us, flops / us * 1e-3, 100.0 * flops / (us * 1e-6) / b->peak, bytes / us * 1e-3);
}

static enum status run_embed(struct bench *b)
{
    const struct vit_dims *d = &b->dims;
    return b->backend->ops->embed(b->stream, &(struct embed_args){.x = b->x,
                                                                  .patches = b->wide,
                                                                  .pixels = b->pixels,
                                                                  .weight = b->weight,
                                                                  .bias = b->vector,
                                                                  .class_token = b->vector,
                                                                  .position = b->vector,
                                                                  .B = b->B,
                                                                  .S = d->S,
                                                                  .P = d->P,
                                                                  .C = d->C});
}

static enum status run_layernorm(struct bench *b)
{
    return b->backend->ops->layernorm(b->stream,
                                      &(struct layernorm_args){.out = b->narrow,
                                                               .x = b->x,
                                                               .weight = b->vector,
                                                               .bias = b->vector,
                                                               .x_stride = b->dims.C,
                                                               .rows = b->B * vit_tokens(&b->dims),
                                                               .C = b->dims.C,
                                                               .epsilon = 1e-6f});
}

static enum status run_linear(struct bench *b, enum linear_kind kind, void *out, const void *in,
                              int N, int K)
{
    return b->backend->ops->linear(b->stream, &(struct linear_args){.kind = kind,
                                                                    .out = out,
                                                                    .in = in,
                                                                    .weight = b->weight,
                                                                    .bias = b->vector,
                                                                    .out_stride = N,
                                                                    .B = b->B,
                                                                    .rows = vit_tokens(&b->dims),
                                                                    .N = N,
                                                                    .K = K});
}

static enum status run_in_proj(struct bench *b)
{
    return run_linear(b, LINEAR_BIAS, b->wide, b->narrow, 3 * b->dims.C, b->dims.C);
}

static enum status run_out_proj(struct bench *b)
{
    return run_linear(b, LINEAR_RESIDUAL, b->x, b->narrow, b->dims.C, b->dims.C);
}

static enum status run_mlp_in(struct bench *b)
{
    return run_linear(b, LINEAR_GELU, b->wide, b->narrow, b->dims.M, b->dims.C);
}

static enum status run_mlp_out(struct bench *b)
{
    return run_linear(b, LINEAR_RESIDUAL, b->x, b->wide, b->dims.C, b->dims.M);
}

static enum status run_attention(struct bench *b)
{
    int T = vit_tokens(&b->dims);
    return b->backend->ops->attention(b->stream,
                                      &(struct attention_args){.out = b->narrow,
                                                               .qkv = b->wide,
                                                               .B = b->B,
                                                               .T = T,
                                                               .NH = b->dims.NH,
                                                               .HS = b->dims.C / b->dims.NH,
                                                               .queries = T});
}

// Zeroed device memory.
static void *allocate(struct bench *b, size_t bytes)
{
    void *memory, *zeros = calloc(bytes, 1);
    if (!zeros)
        exit(1);
    check(b->backend->ops->alloc(b->backend, bytes, &memory));
    check(b->backend->ops->upload(b->stream, memory, zeros, bytes));
    check(b->backend->ops->sync(b->stream));
    free(zeros);
    return memory;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void allocate_all(struct bench *b)
{
    const struct vit_dims *d = &b->dims;
    size_t T = (size_t)vit_tokens(d), B = (size_t)b->B, C = (size_t)d->C, M = (size_t)d->M;
    size_t K = (size_t)EMBED_COLUMNS(d->P), value = b->backend->activation_bytes;
    size_t side = (size_t)d->S;
    b->x = allocate(b, B * T * C * sizeof(float));
    b->wide = allocate(b, B * T * larger(larger(3 * C, M), K) * value);
    b->narrow = allocate(b, B * T * C * value);
    b->weight = allocate(b, C * larger(larger(4 * C, M), K) * sizeof(float));
    b->vector = allocate(b, 4 * larger(T * C, M + 3 * C) * sizeof(float));
    b->pixels = allocate(b, B * side * side * 3);
}

static void run_all(struct bench *b)
{
    const struct vit_dims *d = &b->dims;
    double T = vit_tokens(d), rows = b->B * T, C = d->C, M = d->M, K = d->P * d->P * 3;
    double value = (double)b->backend->activation_bytes, L = d->L;
    check(b->backend->ops->peak(b->stream, &b->peak));
    printf("limit %.1f GFLOP/s\n", b->peak * 1e-9);
    measure(b, "embed", run_embed, 1, 2 * (rows - b->B) * K * C,
            b->B * 3.0 * d->S * d->S + 2 * rows * K * value + K * C * value + rows * C * 8);
    measure(b, "layernorm", run_layernorm, 2 * d->L + 1, 8 * rows * C, rows * C * (4 + value));
    measure(b, "in_proj", run_in_proj, (int)L, 6 * rows * C * C,
            (rows * 4 * C + 3 * C * C) * value);
    measure(b, "attention", run_attention, (int)L, 4 * rows * T * C, rows * 4 * C * value);
    measure(b, "out_proj", run_out_proj, (int)L, 2 * rows * C * C,
            (rows * C + C * C) * value + rows * C * 8);
    measure(b, "mlp in", run_mlp_in, (int)L, 2 * rows * C * M, (rows * (C + M) + C * M) * value);
    measure(b, "mlp out", run_mlp_out, (int)L, 2 * rows * C * M,
            (rows * M + C * M) * value + rows * C * 8);
    printf("sum of a pass without the class token's shortcut: %.1f us, %.1f images/s\n", b->total,
           1e6 * b->B / b->total);
}

static enum precision precision_of(const char *name)
{
    static const char *const names[] = {"auto", "fp32", "tf32", "bf16", "fp16", "int8", "fp8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum precision)i;
    fprintf(stderr, "bench_kernels: no precision %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    struct bench b = {.seconds = argc > 5 ? atof(argv[5]) : 0.5};
    struct catalog *catalog;
    const struct catalog_entry *entry;
    if (argc < 5) {
        fprintf(stderr, "usage: %s cpu|cuda PRECISION MODEL BATCH [SECONDS]\n", argv[0]);
        return 2;
    }
    log_set(LOG_ERROR, LOG_TEXT);
    check(catalog_open(&catalog));
    check(catalog_find(catalog, argv[3], &entry));
    b.dims = entry->dims;
    b.B = atoi(argv[4]);
    check(device_open(strcmp(argv[1], "cpu") == 0 ? DEVICE_CPU : DEVICE_CUDA, precision_of(argv[2]),
                      0, &b.backend));
    check(b.backend->ops->stream_create(b.backend, &b.stream));
    printf("%s, batch %d, on %s (%s), %s\n", argv[3], b.B, b.backend->name, b.backend->device_name,
           argv[2]);
    allocate_all(&b);
    run_all(&b);
    void *all[] = {b.x, b.wide, b.narrow, b.weight, b.vector, b.pixels};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        b.backend->ops->free(b.backend, all[i]);
    b.backend->ops->stream_free(b.stream);
    b.backend->ops->destroy(b.backend);
    catalog_close(catalog);
    return 0;
}
