// Every op of a forward pass on its own, at a model's shapes and on random data: its time, how
// close it comes to the device's arithmetic limit, and how many bytes it moves. Usage:
//   bench_kernels cpu|cuda PRECISION MODEL BATCH [SECONDS]
// Each op is timed with the same buffers every time (warm), with other weights every time, as in a
// network (weights), and with other buffers and weights every time (cold). Launches are recorded
// once and replayed, as the server does it, many between two synchronisations; times are medians.

#include "catalog.h"
#include "clock.h"
#include "device.h"
#include "log.h"
#include "reference.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAUNCHES = 24, MAX_RUNS = 1000, MAX_SETS = 24, RANDOM_VALUES = 1 << 20 };
static const double COLD_BYTES = 400e6; // more than any second-level cache holds
static const int64_t SAMPLE_NS = 2000000;

enum caches { WARM, WEIGHTS, COLD, N_CACHES };

struct bench {
    struct backend *backend;
    struct stream *stream;
    struct vit_dims dims;
    int B;
    double seconds; // for each op and state of the caches
    double peak, total[N_CACHES];
    int n_sets;
    // Device memory, each as large as the largest use of it: what is computed with, by turns.
    struct activations {
        void *x, *wide, *narrow, *pixels;
    } activations[MAX_SETS], *a;
    struct weights_set {
        void *weight, *vector;
    } weights[MAX_SETS], *w;
};

// What one recording holds: LAUNCHES launches of an op.
struct recording {
    struct bench *bench;
    enum status (*launch)(struct bench *);
    enum caches caches;
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

static enum status record(void *context, int batch)
{
    struct recording *recording = context;
    struct bench *b = recording->bench;
    (void)batch;
    for (int i = 0; i < LAUNCHES; i++) {
        b->a = &b->activations[recording->caches == COLD ? i % b->n_sets : 0];
        b->w = &b->weights[recording->caches == WARM ? 0 : i % b->n_sets];
        TRY(recording->launch(b));
    }
    return STATUS_OK;
}

// Nanoseconds of `replays` replays.
static int64_t time_replays(struct bench *b, struct recording *recording, int replays)
{
    int64_t start = clock_ns();
    for (int i = 0; i < replays; i++)
        check(b->backend->ops->run(b->stream, 1, 1, record, recording));
    check(b->backend->ops->sync(b->stream));
    return clock_ns() - start;
}

// Median microseconds of one launch, of samples that are long beside a synchronisation.
static double time_launch(struct bench *b, struct recording *recording)
{
    static double times[MAX_RUNS];
    int runs = 0, replays = 1;
    time_replays(b, recording, 1); // compiles, tunes and records
    while (time_replays(b, recording, replays) < SAMPLE_NS)
        replays *= 2;
    int64_t begin = clock_ns();
    do
        times[runs++] =
            (double)time_replays(b, recording, replays) * 1e-3 / (replays * (double)LAUNCHES);
    while (runs < MAX_RUNS && (double)(clock_ns() - begin) * 1e-9 < b->seconds);
    qsort(times, (size_t)runs, sizeof *times, by_value);
    return times[runs / 2];
}

// Times an op and prints a line; `count` is how often a forward pass has it.
static void measure(struct bench *b, const char *name, enum status (*launch)(struct bench *),
                    int count, double flops, double bytes)
{
    static struct recording recordings[MAX_SETS]; // a graph is known by the address of its context
    static int used;
    double us[N_CACHES];
    for (int caches = WARM; caches < N_CACHES; caches++) {
        struct recording *recording = &recordings[used++];
        *recording = (struct recording){b, launch, (enum caches)caches};
        us[caches] = time_launch(b, recording);
        b->total[caches] += us[caches] * count;
    }
    printf("%-9s %3d x %9.2f warm %9.2f weights %9.2f cold us %9.1f GFLOP/s %5.1f %% of the limit "
           "%7.1f GB/s\n",
           name, count, us[WARM], us[WEIGHTS], us[COLD], flops / us[WEIGHTS] * 1e-3,
           100.0 * flops / (us[WEIGHTS] * 1e-6) / b->peak, bytes / us[COLD] * 1e-3);
}

static enum status run_embed(struct bench *b)
{
    const struct vit_dims *d = &b->dims;
    return b->backend->ops->embed(b->stream, &(struct embed_args){.x = b->a->x,
                                                                  .patches = b->a->wide,
                                                                  .pixels = b->a->pixels,
                                                                  .weight = b->w->weight,
                                                                  .bias = b->w->vector,
                                                                  .class_token = b->w->vector,
                                                                  .position = b->w->vector,
                                                                  .B = b->B,
                                                                  .S = d->S,
                                                                  .P = d->P,
                                                                  .C = d->C});
}

static enum status run_layernorm(struct bench *b)
{
    return b->backend->ops->layernorm(b->stream,
                                      &(struct layernorm_args){.out = b->a->narrow,
                                                               .x = b->a->x,
                                                               .weight = b->w->vector,
                                                               .bias = b->w->vector,
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
                                                                    .weight = b->w->weight,
                                                                    .bias = b->w->vector,
                                                                    .out_stride = N,
                                                                    .B = b->B,
                                                                    .rows = vit_tokens(&b->dims),
                                                                    .N = N,
                                                                    .K = K});
}

static enum status run_in_proj(struct bench *b)
{
    return run_linear(b, LINEAR_BIAS, b->a->wide, b->a->narrow, 3 * b->dims.C, b->dims.C);
}

static enum status run_out_proj(struct bench *b)
{
    return run_linear(b, LINEAR_RESIDUAL, b->a->x, b->a->narrow, b->dims.C, b->dims.C);
}

static enum status run_mlp_in(struct bench *b)
{
    return run_linear(b, LINEAR_GELU, b->a->wide, b->a->narrow, b->dims.M, b->dims.C);
}

static enum status run_mlp_out(struct bench *b)
{
    return run_linear(b, LINEAR_RESIDUAL, b->a->x, b->a->wide, b->dims.C, b->dims.M);
}

static enum status run_attention(struct bench *b)
{
    int T = vit_tokens(&b->dims);
    return b->backend->ops->attention(b->stream,
                                      &(struct attention_args){.out = b->a->narrow,
                                                               .qkv = b->a->wide,
                                                               .B = b->B,
                                                               .T = T,
                                                               .NH = b->dims.NH,
                                                               .HS = b->dims.C / b->dims.NH,
                                                               .queries = T});
}

// Device memory full of random values, as fp32 or as activations, or of random bytes.
static void *allocate(struct bench *b, size_t bytes, const void *values, size_t values_bytes)
{
    char *memory;
    check(b->backend->ops->alloc(b->backend, bytes, (void **)(void *)&memory));
    for (size_t at = 0; at < bytes; at += values_bytes)
        check(b->backend->ops->upload(b->stream, memory + at, values,
                                      bytes - at < values_bytes ? bytes - at : values_bytes));
    check(b->backend->ops->sync(b->stream));
    return memory;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

// A vector as the backend packs it.
static void *allocate_vector(struct bench *b, int count, const float *values)
{
    size_t bytes;
    void *memory;
    check(b->backend->ops->packed_bytes(b->backend, WEIGHT_VECTOR, count, 1, &bytes));
    check(b->backend->ops->alloc(b->backend, bytes, &memory));
    check(b->backend->ops->pack(b->backend, WEIGHT_VECTOR, count, 1, values, memory));
    return memory;
}

static void allocate_all(struct bench *b)
{
    static float floats[RANDOM_VALUES];
    static char encoded[RANDOM_VALUES * sizeof(float)];
    const struct vit_dims *d = &b->dims;
    size_t T = (size_t)vit_tokens(d), B = (size_t)b->B, C = (size_t)d->C, M = (size_t)d->M;
    size_t K = (size_t)EMBED_COLUMNS(d->P), value = b->backend->activation_bytes;
    size_t x = B * T * C * sizeof(float), narrow = B * T * C * value;
    size_t wide = B * T * larger(larger(3 * C, M), K) * value;
    size_t weight = C * larger(larger(4 * C, M), K) * value;
    size_t pixels = B * (size_t)d->S * (size_t)d->S * 3;
    uint32_t random = 1;
    for (size_t i = 0; i < RANDOM_VALUES; i++) {
        random = random * 1664525u + 1013904223u;
        floats[i] = (float)(int32_t)random * 0x1p-31f;
    }
    activations_encode(b->backend->precision, floats, RANDOM_VALUES, encoded);
    // As many as the cold caches take, and no more than fit in a moderate memory.
    b->n_sets = (int)(COLD_BYTES / (double)(narrow + weight)) + 2;
    b->n_sets = b->n_sets < MAX_SETS ? b->n_sets : MAX_SETS;
    for (int i = 0; i < b->n_sets; i++) {
        b->a = &b->activations[i];
        b->a->x = allocate(b, x, floats, sizeof floats);
        b->a->wide = allocate(b, wide, encoded, RANDOM_VALUES * value);
        b->a->narrow = allocate(b, narrow, encoded, RANDOM_VALUES * value);
        b->a->pixels = allocate(b, pixels, floats, sizeof floats);
        b->w = &b->weights[i];
        b->w->weight = allocate(b, weight, encoded, RANDOM_VALUES * value);
        b->w->vector = allocate_vector(b, (int)larger(T * C, M + 3 * C), floats);
    }
}

static void free_all(struct bench *b)
{
    for (int i = 0; i < b->n_sets; i++) {
        void *all[] = {b->activations[i].x,      b->activations[i].wide, b->activations[i].narrow,
                       b->activations[i].pixels, b->weights[i].weight,   b->weights[i].vector};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            b->backend->ops->free(b->backend, all[j]);
    }
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
    printf(
        "sum of a pass without the class token's shortcut: %.1f warm, %.1f weights, %.1f cold us\n",
        b->total[WARM], b->total[WEIGHTS], b->total[COLD]);
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
    struct bench b = {.seconds = argc > 5 ? atof(argv[5]) : 0.2};
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
    free_all(&b);
    b.backend->ops->stream_free(b.stream);
    b.backend->ops->destroy(b.backend);
    catalog_close(catalog);
    return 0;
}
