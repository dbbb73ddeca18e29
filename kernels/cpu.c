// The CPU backend: op table, memory and threads. Everything runs at once in the calling thread and
// its OpenMP team; a stream is the team's size and its scratch memory.

#include "kernels.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cpu_backend {
    struct backend base;
    struct cpu_kernels kernels;
    struct linear_cpu *packer;
    int threads;
};

struct cpu_stream {
    struct stream base;
    const struct cpu_kernels *kernels;
    struct linear_cpu *linear;
    float *scratch; // of attention, for every thread
    size_t scratch_floats;
    int threads;
};

#define CPU_KERNELS(isa)                                                                           \
    {                                                                                              \
        patches_cpu_##isa, layernorm_cpu_##isa, attention_cpu_##isa, peak_cpu_##isa                \
    }

static struct cpu_kernels best_kernels(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return (struct cpu_kernels)CPU_KERNELS(v4);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        return (struct cpu_kernels)CPU_KERNELS(v3);
#endif
    return (struct cpu_kernels)CPU_KERNELS(generic);
}

static enum status cpu_alloc(struct backend *backend, size_t bytes, void **memory)
{
    (void)backend;
    *memory = bytes <= SIZE_MAX - 255 ? aligned_alloc(256, (bytes + 255) & ~(size_t)255) : NULL;
    return *memory ? STATUS_OK
                   : status_fail(STATUS_OUT_OF_MEMORY, "cpu: no memory for %zu bytes", bytes);
}

static void cpu_free(struct backend *backend, void *memory)
{
    (void)backend;
    free(memory);
}

static enum status cpu_packed_bytes(struct backend *backend, enum weight_kind kind, int N, int K,
                                    size_t *bytes)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    *bytes = sizeof(float) * (size_t)N * (size_t)K;
    return kind == WEIGHT_VECTOR ? STATUS_OK : linear_cpu_packed_bytes(cpu->packer, N, K, bytes);
}

static enum status cpu_pack(struct backend *backend, enum weight_kind kind, int N, int K,
                            const float *values, void *packed)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    if (kind != WEIGHT_VECTOR)
        return linear_cpu_pack(cpu->packer, N, K, values, packed);
    memcpy(packed, values, sizeof *values * (size_t)N * (size_t)K);
    return STATUS_OK;
}

// fp32 is what the values are.
static void cpu_round(struct backend *backend, enum weight_kind kind, float *values, size_t count)
{
    (void)backend, (void)kind, (void)values, (void)count;
}

static void cpu_stream_free(struct stream *base)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    if (!stream)
        return;
    linear_cpu_free(stream->linear);
    free(stream->scratch);
    free(stream);
}

static enum status cpu_stream_create(struct backend *backend, struct stream **out)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    struct cpu_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return status_fail(STATUS_OUT_OF_MEMORY, "cpu: out of memory");
    stream->base.backend = backend;
    stream->kernels = &cpu->kernels;
    stream->threads = cpu->threads;
    enum status status = linear_cpu_create(&stream->linear);
    if (status != STATUS_OK) {
        cpu_stream_free(&stream->base);
        return status;
    }
    *out = &stream->base;
    return STATUS_OK;
}

static enum status cpu_copy(struct stream *stream, void *to, const void *from, size_t bytes)
{
    (void)stream;
    memcpy(to, from, bytes);
    return STATUS_OK;
}

// Gathers the patches of the whole batch, then adds their products to x image by image: the rows
// of patches are dense, those of x leave out the class token.
static enum status cpu_embed(struct stream *base, const struct embed_args *args)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    int side = args->S / args->P, N = side * side, K = args->P * args->P * 3;
    stream->kernels->patches(args);
    for (int b = 0; b < args->B; b++)
        TRY(linear_cpu(stream->linear,
                       &(struct linear_args){.kind = LINEAR_RESIDUAL,
                                             .out = args->x + ((int64_t)b * (N + 1) + 1) * args->C,
                                             .out_stride = args->C,
                                             .in = (float *)args->patches + (int64_t)b * N * K,
                                             .weight = args->weight,
                                             .bias = args->bias,
                                             .B = 1,
                                             .rows = N,
                                             .N = args->C,
                                             .K = K}));
    return STATUS_OK;
}

static enum status cpu_layernorm(struct stream *base, const struct layernorm_args *args)
{
    ((struct cpu_stream *)base)->kernels->layernorm(args);
    return STATUS_OK;
}

static enum status cpu_linear(struct stream *base, const struct linear_args *args)
{
    return linear_cpu(((struct cpu_stream *)base)->linear, args);
}

static enum status cpu_attention(struct stream *base, const struct attention_args *args)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    size_t floats = attention_cpu_scratch(args) * (size_t)stream->threads;
    if (floats > stream->scratch_floats) {
        free(stream->scratch);
        stream->scratch_floats = 0;
        stream->scratch = malloc(floats * sizeof *stream->scratch);
        if (!stream->scratch)
            return status_fail(STATUS_OUT_OF_MEMORY, "cpu: no memory for %zu floats", floats);
        stream->scratch_floats = floats;
    }
    stream->kernels->attention(args, stream->scratch);
    return STATUS_OK;
}

// All cores at once, as they are when they share a matrix product.
static enum status cpu_peak(struct stream *base, double *flops)
{
    const int64_t rounds = 10 * 1000 * 1000;
    struct cpu_stream *stream = (struct cpu_stream *)base;
    double operations = 0.0;
    omp_set_num_threads(stream->threads);
    double start = omp_get_wtime();
#pragma omp parallel reduction(+ : operations)
    operations += stream->kernels->peak(rounds);
    *flops = operations / (omp_get_wtime() - start);
    return STATUS_OK;
}

static enum status cpu_run(struct stream *base, int batch, int max_batch, forward_fn forward,
                           void *context)
{
    (void)max_batch;
    omp_set_num_threads(((struct cpu_stream *)base)->threads); // of the calling thread's team
    return forward(context, batch);
}

// Matrix products are compiled for power-of-two numbers of images.
static enum status cpu_warm_up(struct stream *stream, int max_batch, forward_fn forward,
                               void *context)
{
    for (int batch = 1; batch <= max_batch; batch *= 2)
        TRY(cpu_run(stream, batch, max_batch, forward, context));
    return STATUS_OK;
}

static enum status cpu_sync(struct stream *stream)
{
    (void)stream;
    return STATUS_OK;
}

static void cpu_destroy(struct backend *backend)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    linear_cpu_free(cpu->packer);
    free(cpu);
}

static const struct backend_ops cpu_ops = {
    .alloc = cpu_alloc,
    .free = cpu_free,
    .alloc_host = cpu_alloc,
    .free_host = cpu_free,
    .packed_bytes = cpu_packed_bytes,
    .pack = cpu_pack,
    .round = cpu_round,
    .stream_create = cpu_stream_create,
    .stream_free = cpu_stream_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .embed = cpu_embed,
    .layernorm = cpu_layernorm,
    .linear = cpu_linear,
    .attention = cpu_attention,
    .peak = cpu_peak,
    .run = cpu_run,
    .warm_up = cpu_warm_up,
    .sync = cpu_sync,
    .destroy = cpu_destroy,
};

static void read_device_name(char *name, size_t size)
{
    snprintf(name, size, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            snprintf(name, size, "%s", strchr(line, ':') + 2);
            name[strcspn(name, "\n")] = '\0';
            break;
        }
    if (file)
        fclose(file);
}

enum status backend_cpu_create(enum precision precision, int threads, struct backend **out)
{
    if (precision != PRECISION_AUTO && precision != PRECISION_FP32)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "the CPU backend computes in fp32 only");
    struct cpu_backend *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return status_fail(STATUS_OUT_OF_MEMORY, "cpu: out of memory");
    cpu->base = (struct backend){.ops = &cpu_ops,
                                 .name = "cpu",
                                 .precision = PRECISION_FP32,
                                 .activation_bytes = sizeof(float),
                                 .workers = 1};
    read_device_name(cpu->base.device_name, sizeof cpu->base.device_name);
    cpu->kernels = best_kernels();
    cpu->threads = threads > 0 ? threads : omp_get_num_procs();
    enum status status = linear_cpu_create(&cpu->packer);
    if (status != STATUS_OK) {
        cpu_destroy(&cpu->base);
        return status;
    }
    *out = &cpu->base;
    return STATUS_OK;
}
