// The CPU backend: op table and memory. An op is over when its call returns; a stream is a team of
// threads (team.c), of which the caller is one, and scratch memory.

#include "kernels.h"
#include "numeric.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct cpu_backend {
    struct backend base;
    const struct cpu_kernels *kernels;
    struct team *team; // packs weights
    int threads;
};

struct cpu_stream {
    struct stream base;
    const struct cpu_backend *cpu;
    struct team *team;
    void *scratch; // of the op in work
    size_t scratch_bytes;
};

// Large blocks in huge pages where the system has them: a page at a time, the first touch of the
// weights takes longer than packing them.
static enum status cpu_alloc(struct backend *backend, size_t bytes, void **memory)
{
    enum { SMALL_ALIGNMENT = 256, HUGE_PAGE = 2 << 20 };
    size_t alignment = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : SMALL_ALIGNMENT;
    size_t whole = (bytes + alignment - 1) & ~(alignment - 1);
    (void)backend;
    *memory = whole >= bytes ? aligned_alloc(alignment, whole) : NULL;
    if (!*memory)
        return status_fail(STATUS_OUT_OF_MEMORY, "cpu: no memory for %zu bytes", bytes);
    if (alignment == HUGE_PAGE)
        madvise(*memory, whole, MADV_HUGEPAGE);
    return STATUS_OK;
}

static void cpu_free(struct backend *backend, void *memory)
{
    (void)backend;
    free(memory);
}

// What a matrix is multiplied in. The logits are not quantised.
static enum dot dot_of(const struct cpu_backend *cpu, enum weight_kind kind)
{
    if (cpu->base.precision == PRECISION_FP32)
        return DOT_FP32;
    if (cpu->base.precision == PRECISION_BF16 || kind == WEIGHT_HEAD)
        return DOT_BF16;
    return kind == WEIGHT_PATCH ? DOT_BYTES : DOT_INT8;
}

// The columns of a packed matrix: those of the patch embedding are padded as the patches are.
static int packed_columns(enum weight_kind kind, int K)
{
    return kind == WEIGHT_PATCH ? (K + 7) / 8 * 8 : K;
}

static enum status cpu_packed_bytes(struct backend *backend, enum weight_kind kind, int N, int K,
                                    size_t *bytes)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    enum dot dot = dot_of(cpu, kind);
    *bytes = kind == WEIGHT_VECTOR ? sizeof(float) * (size_t)N * (size_t)K
                                   : cpu->kernels->packed_bytes(dot, N, packed_columns(kind, K));
    if (kind != WEIGHT_VECTOR && kind != WEIGHT_PATCH && dot == DOT_BF16 && K % 2 != 0)
        return status_fail(STATUS_UNSUPPORTED_DEVICE,
                           "the CPU backend's bf16 needs an even number of channels, not %d", K);
    // Sums of K products of at most 255 x 127 are kept in 32 bits.
    if ((dot == DOT_INT8 || dot == DOT_BYTES) && K > INT32_MAX / (255 * 127))
        return status_fail(STATUS_UNSUPPORTED_DEVICE,
                           "the CPU backend's int8 takes at most %d channels, not %d",
                           INT32_MAX / (255 * 127), K);
    return STATUS_OK;
}

static enum status cpu_pack(struct backend *backend, enum weight_kind kind, int N, int K,
                            const float *values, void *packed)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    if (kind == WEIGHT_VECTOR)
        memcpy(packed, values, sizeof *values * (size_t)N * (size_t)K);
    else
        cpu->kernels->pack(dot_of(cpu, kind), N, K, packed_columns(kind, K), values, packed,
                           cpu->team);
    return STATUS_OK;
}

static void cpu_round(struct backend *backend, enum weight_kind kind, int N, int K, float *values)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    enum dot dot = dot_of(cpu, kind);
    if (kind == WEIGHT_VECTOR || dot == DOT_FP32)
        return;
    for (int64_t i = 0; dot == DOT_BF16 && i < (int64_t)N * K; i++)
        values[i] = bf16_to_float(bf16_from_float(values[i]));
    for (int n = 0; dot != DOT_BF16 && n < N; n++) {
        float *row = values + (int64_t)n * K, scale = quantization_scale(largest_size(row, K));
        float inverse = quantization_inverse(scale);
        for (int k = 0; k < K; k++)
            row[k] = scale * (float)quantize(row[k], inverse);
    }
}

static void cpu_stream_free(struct stream *base)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    if (!stream)
        return;
    team_free(stream->team);
    free(stream->scratch);
    free(stream);
}

static enum status cpu_stream_create(struct backend *backend, struct stream **out)
{
    struct cpu_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return status_fail(STATUS_OUT_OF_MEMORY, "cpu: out of memory");
    stream->base.backend = backend;
    stream->cpu = (struct cpu_backend *)backend;
    enum status status = team_create(stream->cpu->threads, &stream->team);
    if (status != STATUS_OK) {
        free(stream);
        return status;
    }
    *out = &stream->base;
    return STATUS_OK;
}

static enum status grow_scratch(struct cpu_stream *stream, size_t bytes)
{
    if (bytes <= stream->scratch_bytes)
        return STATUS_OK;
    free(stream->scratch);
    stream->scratch_bytes = (bytes + 63) & ~(size_t)63;
    stream->scratch = aligned_alloc(64, stream->scratch_bytes);
    if (stream->scratch)
        return STATUS_OK;
    stream->scratch_bytes = 0;
    return status_fail(STATUS_OUT_OF_MEMORY, "cpu: no memory for %zu bytes", bytes);
}

static enum status cpu_copy(struct stream *stream, void *to, const void *from, size_t bytes)
{
    (void)stream;
    memcpy(to, from, bytes);
    return STATUS_OK;
}

static bool half_activations(const struct cpu_stream *stream)
{
    return stream->cpu->base.precision != PRECISION_FP32;
}

// The rows of patches are dense, those of x leave out the class token of each image.
static enum status cpu_embed(struct stream *base, const struct embed_args *args)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    enum dot dot = dot_of(stream->cpu, WEIGHT_PATCH);
    int side = args->S / args->P;
    stream->cpu->kernels->patches(args, dot, stream->team);
    struct linear_args product = {.kind = LINEAR_RESIDUAL,
                                  .out = args->x,
                                  .out_stride = args->C,
                                  .in = args->patches,
                                  .weight = args->weight,
                                  .bias = args->bias,
                                  .B = args->B,
                                  .rows = side * side,
                                  .N = args->C,
                                  .K = EMBED_COLUMNS(args->P)};
    stream->cpu->kernels->linear(&(struct cpu_linear){.args = &product,
                                                      .dot = dot,
                                                      .half = half_activations(stream),
                                                      .lead = 1,
                                                      .team = stream->team});
    return STATUS_OK;
}

static enum status cpu_layernorm(struct stream *base, const struct layernorm_args *args)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    stream->cpu->kernels->layernorm(args, half_activations(stream), stream->team);
    return STATUS_OK;
}

static enum status cpu_linear(struct stream *base, const struct linear_args *args)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    enum weight_kind kind = args->kind == LINEAR_LOGITS ? WEIGHT_HEAD : WEIGHT_LINEAR;
    enum dot dot = dot_of(stream->cpu, kind);
    if (dot == DOT_INT8)
        TRY(grow_scratch(stream, linear_cpu_scratch(args)));
    stream->cpu->kernels->linear(&(struct cpu_linear){.args = args,
                                                      .dot = dot,
                                                      .half = half_activations(stream),
                                                      .team = stream->team,
                                                      .scratch = stream->scratch});
    return STATUS_OK;
}

static enum status cpu_attention(struct stream *base, const struct attention_args *args)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    if (half_activations(stream) && args->HS % 2 != 0)
        return status_fail(STATUS_UNSUPPORTED_DEVICE,
                           "the CPU backend's bf16 needs an even head size, not %d", args->HS);
    size_t floats = stream->cpu->kernels->attention_scratch(args) * (size_t)stream->cpu->threads;
    TRY(grow_scratch(stream, floats * sizeof(float)));
    stream->cpu->kernels->attention(args, half_activations(stream), stream->team, stream->scratch);
    return STATUS_OK;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

struct peak {
    const struct cpu_backend *cpu;
    enum dot dot;
    int64_t rounds;
    double operations; // of one task
};

static void peak_task(void *context, int task, int thread)
{
    struct peak *peak = context;
    (void)thread;
    double operations = peak->cpu->kernels->peak(peak->dot, peak->rounds);
    if (task == 0)
        peak->operations = operations;
}

// All cores at once, as they are when they share a matrix product: in many tasks, so that a thread
// that starts late does not count as a slow one.
static enum status cpu_peak(struct stream *base, double *flops)
{
    enum { TASKS = 200 };
    struct cpu_stream *stream = (struct cpu_stream *)base;
    struct peak peak = {
        .cpu = stream->cpu, .dot = dot_of(stream->cpu, WEIGHT_LINEAR), .rounds = 100 * 1000};
    int tasks = TASKS * stream->cpu->threads;
    int64_t start = now_ns();
    team_run(stream->team, tasks, peak_task, &peak);
    *flops = peak.operations * tasks / ((double)(now_ns() - start) * 1e-9);
    return STATUS_OK;
}

static enum status cpu_run(struct stream *stream, int batch, int max_batch, forward_fn forward,
                           void *context)
{
    (void)stream, (void)max_batch;
    return forward(context, batch);
}

// The largest batch takes the most scratch.
static enum status cpu_warm_up(struct stream *stream, int max_batch, forward_fn forward,
                               void *context)
{
    return cpu_run(stream, max_batch, max_batch, forward, context);
}

static enum status cpu_sync(struct stream *stream)
{
    (void)stream;
    return STATUS_OK;
}

static void cpu_destroy(struct backend *backend)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    team_free(cpu->team);
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

static enum status check_precision(const struct cpu_isa *isa, enum precision precision)
{
    if (precision == PRECISION_FP32 ||
        (isa->half && (precision == PRECISION_BF16 || precision == PRECISION_INT8)))
        return STATUS_OK;
    return status_fail(STATUS_UNSUPPORTED_DEVICE,
                       "the CPU backend computes in fp32, and in bf16 and int8 where the "
                       "processor has AVX512_BF16 and AVX512_VNNI");
}

enum status backend_cpu_create_isa(const char *name, enum precision precision, int threads,
                                   struct backend **out)
{
    const struct cpu_isa *isa = cpu_isa_find(name);
    if (!isa)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "the processor has no \"%s\"", name);
    if (precision == PRECISION_AUTO)
        precision = isa->half ? PRECISION_BF16 : PRECISION_FP32;
    TRY(check_precision(isa, precision));
    struct cpu_backend *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return status_fail(STATUS_OUT_OF_MEMORY, "cpu: out of memory");
    cpu->base = (struct backend){.ops = &cpu_ops,
                                 .name = "cpu",
                                 .precision = precision,
                                 .activation_bytes = precision == PRECISION_FP32 ? 4 : 2,
                                 .host_memory = true,
                                 .workers = 1};
    read_device_name(cpu->base.device_name, sizeof cpu->base.device_name);
    cpu->kernels = &isa->kernels;
    cpu->threads = threads;
    enum status status = team_create(cpu->threads, &cpu->team);
    if (status != STATUS_OK) {
        free(cpu);
        return status;
    }
    *out = &cpu->base;
    return STATUS_OK;
}

enum status backend_cpu_create(enum precision precision, int threads, struct backend **backend)
{
    return backend_cpu_create_isa(NULL, precision, threads, backend);
}
