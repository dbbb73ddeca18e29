// out = in . weight^T + bias, then GELU, or added to what out holds. The only door to oneDNN.
//
// A weight (N, K) is packed once into the blocked layout that the library prefers, the same for
// every number of rows. A primitive is compiled for a fixed number of rows, so a batch is cut into
// power-of-two runs of images: a dozen primitives per layer shape serve every batch size, all made
// while the server warms up. The sums over K run in the same order whatever the number of rows, so
// an image's result does not depend on what shares its batch.

#include "kernels.h"
#include <dnnl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if DNNL_VERSION_MAJOR != 2
#error "written for the C API of oneDNN 2.x, which 3.x changed"
#endif

// What a primitive is compiled for.
struct plan_key {
    int64_t out_stride;
    int kind, M, N, K;
};

struct plan {
    struct plan_key key;
    dnnl_primitive_t primitive;
    dnnl_memory_t in, weight, bias, out, scratch;
};

struct linear_cpu {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct plan *plans;
    size_t n_plans;
    void *scratch; // shared by all plans: they run one after another
    size_t scratch_bytes;
};

static enum status dnnl_failed(dnnl_status_t code, const char *call)
{
    return code == dnnl_out_of_memory
               ? status_fail(STATUS_OUT_OF_MEMORY, "oneDNN: out of memory in %s", call)
               : status_fail(STATUS_DEVICE_FAILED, "oneDNN: %s failed (status %d)", call, code);
}

#define TRY_DNNL(call)                                                                             \
    do {                                                                                           \
        dnnl_status_t code_ = (call);                                                              \
        if (code_ != dnnl_success)                                                                 \
            return dnnl_failed(code_, #call);                                                      \
    } while (0)

enum status linear_cpu_create(struct linear_cpu **linear)
{
    struct linear_cpu *l = *linear = calloc(1, sizeof *l);
    if (!l)
        return status_fail(STATUS_OUT_OF_MEMORY, "linear layers: out of memory");
    TRY_DNNL(dnnl_engine_create(&l->engine, dnnl_cpu, 0));
    TRY_DNNL(dnnl_stream_create(&l->stream, l->engine, dnnl_stream_default_flags));
    return STATUS_OK;
}

static void plan_release(struct plan *plan)
{
    dnnl_memory_t memories[] = {plan->in, plan->weight, plan->bias, plan->out, plan->scratch};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        dnnl_memory_destroy(memories[i]);
    dnnl_primitive_destroy(plan->primitive);
}

void linear_cpu_free(struct linear_cpu *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n_plans; i++)
        plan_release(&l->plans[i]);
    free(l->plans);
    free(l->scratch);
    dnnl_stream_destroy(l->stream);
    dnnl_engine_destroy(l->engine);
    free(l);
}

static enum status matrix(dnnl_memory_desc_t *desc, int64_t rows, int64_t columns, int64_t stride)
{
    TRY_DNNL(dnnl_memory_desc_init_by_strides(desc, 2, (dnnl_dims_t){rows, columns}, dnnl_f32,
                                              (dnnl_dims_t){stride, 1}));
    return STATUS_OK;
}

// The primitive's description for `key`; with `weight` of format "any" the library chooses it.
static enum status describe(struct linear_cpu *l, const struct plan_key *key,
                            const dnnl_memory_desc_t *weight, dnnl_primitive_desc_t *out)
{
    dnnl_memory_desc_t in, bias, result;
    TRY(matrix(&in, key->M, key->K, key->K));
    TRY(matrix(&bias, 1, key->N, key->N));
    TRY(matrix(&result, key->M, key->N, key->out_stride));
    dnnl_matmul_desc_t matmul;
    TRY_DNNL(dnnl_matmul_desc_init(&matmul, &in, weight, &bias, &result));

    dnnl_post_ops_t post_ops = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t code = dnnl_post_ops_create(&post_ops);
    if (code == dnnl_success && key->kind == LINEAR_GELU)
        code = dnnl_post_ops_append_eltwise(post_ops, 1.0f, dnnl_eltwise_gelu_erf, 0.0f, 0.0f);
    if (code == dnnl_success && key->kind == LINEAR_RESIDUAL)
        code = dnnl_post_ops_append_sum(post_ops, 1.0f);
    if (code == dnnl_success)
        code = dnnl_primitive_attr_create(&attr);
    if (code == dnnl_success)
        code = dnnl_primitive_attr_set_post_ops(attr, post_ops);
    if (code == dnnl_success)
        code = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (code == dnnl_success)
        code = dnnl_primitive_desc_create(out, &matmul, attr, l->engine, NULL);
    dnnl_primitive_attr_destroy(attr);
    dnnl_post_ops_destroy(post_ops);
    return code == dnnl_success ? STATUS_OK : dnnl_failed(code, "describing a matrix product");
}

// The layout of a packed weight (N, K): what the library picks for a typical number of rows.
static enum status packed_layout(struct linear_cpu *l, int N, int K, dnnl_memory_desc_t *layout)
{
    dnnl_memory_desc_t any;
    TRY_DNNL(
        dnnl_memory_desc_init_by_tag(&any, 2, (dnnl_dims_t){K, N}, dnnl_f32, dnnl_format_tag_any));
    struct plan_key key = {.kind = LINEAR_BIAS, .M = 64, .N = N, .K = K, .out_stride = N};
    dnnl_primitive_desc_t desc;
    TRY(describe(l, &key, &any, &desc));
    *layout = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    TRY_DNNL(dnnl_primitive_desc_destroy(desc));
    return STATUS_OK;
}

enum status linear_cpu_packed_bytes(struct linear_cpu *l, int N, int K, size_t *bytes)
{
    dnnl_memory_desc_t layout;
    TRY(packed_layout(l, N, K, &layout));
    *bytes = dnnl_memory_desc_get_size(&layout);
    return STATUS_OK;
}

enum status linear_cpu_pack(struct linear_cpu *l, int N, int K, const float *values, void *packed)
{
    dnnl_memory_desc_t plain, layout;
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&plain, 2, (dnnl_dims_t){K, N}, dnnl_f32, dnnl_ba));
    TRY(packed_layout(l, N, K, &layout));

    dnnl_memory_t from = NULL, to = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_status_t code = dnnl_memory_create(&from, &plain, l->engine, (void *)(uintptr_t)values);
    if (code == dnnl_success)
        code = dnnl_memory_create(&to, &layout, l->engine, packed);
    if (code == dnnl_success)
        code =
            dnnl_reorder_primitive_desc_create(&desc, &plain, l->engine, &layout, l->engine, NULL);
    if (code == dnnl_success)
        code = dnnl_primitive_create(&reorder, desc);
    if (code == dnnl_success)
        code = dnnl_primitive_execute(
            reorder, l->stream, 2, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
    if (code == dnnl_success)
        code = dnnl_stream_wait(l->stream);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_destroy(to);
    dnnl_memory_destroy(from);
    return code == dnnl_success ? STATUS_OK : dnnl_failed(code, "packing a weight");
}

static enum status grow_scratch(struct linear_cpu *l, size_t bytes)
{
    if (bytes <= l->scratch_bytes)
        return STATUS_OK;
    free(l->scratch);
    l->scratch_bytes = (bytes + 63) & ~(size_t)63;
    l->scratch = aligned_alloc(64, l->scratch_bytes);
    if (l->scratch)
        return STATUS_OK;
    l->scratch_bytes = 0;
    return status_fail(STATUS_OUT_OF_MEMORY, "linear layers: no memory for %zu bytes", bytes);
}

static enum status attach(struct linear_cpu *l, dnnl_primitive_desc_t desc, dnnl_query_t what,
                          int index, dnnl_memory_t *memory)
{
    const dnnl_memory_desc_t *layout = dnnl_primitive_desc_query_md(desc, what, index);
    TRY_DNNL(dnnl_memory_create(memory, layout, l->engine, DNNL_MEMORY_NONE));
    return STATUS_OK;
}

static enum status compile(struct linear_cpu *l, dnnl_primitive_desc_t desc, struct plan *plan)
{
    TRY_DNNL(dnnl_primitive_create(&plan->primitive, desc));
    TRY(attach(l, desc, dnnl_query_src_md, 0, &plan->in));
    TRY(attach(l, desc, dnnl_query_weights_md, 0, &plan->weight));
    TRY(attach(l, desc, dnnl_query_weights_md, 1, &plan->bias));
    TRY(attach(l, desc, dnnl_query_dst_md, 0, &plan->out));
    TRY(attach(l, desc, dnnl_query_scratchpad_md, 0, &plan->scratch));
    return grow_scratch(l, dnnl_memory_desc_get_size(
                               dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0)));
}

static enum status plan_create(struct linear_cpu *l, const struct plan_key *key,
                               struct plan **created)
{
    struct plan *plans = realloc(l->plans, sizeof *plans * (l->n_plans + 1));
    if (!plans)
        return status_fail(STATUS_OUT_OF_MEMORY, "linear layers: out of memory");
    l->plans = plans;
    struct plan *plan = &plans[l->n_plans];
    *plan = (struct plan){.key = *key};

    dnnl_memory_desc_t weight;
    dnnl_primitive_desc_t desc;
    TRY(packed_layout(l, key->N, key->K, &weight));
    TRY(describe(l, key, &weight, &desc));
    enum status status = compile(l, desc, plan);
    dnnl_primitive_desc_destroy(desc);
    if (status != STATUS_OK) {
        plan_release(plan);
        return status;
    }
    l->n_plans++;
    *created = plan;
    return STATUS_OK;
}

static bool same_key(const struct plan_key *a, const struct plan_key *b)
{
    return a->kind == b->kind && a->M == b->M && a->N == b->N && a->K == b->K &&
           a->out_stride == b->out_stride;
}

static enum status plan_find(struct linear_cpu *l, const struct plan_key *key, struct plan **plan)
{
    for (size_t i = 0; i < l->n_plans; i++)
        if (same_key(&l->plans[i].key, key)) {
            *plan = &l->plans[i];
            return STATUS_OK;
        }
    return plan_create(l, key, plan);
}

static enum status run_images(struct linear_cpu *l, const struct linear_args *args, int first,
                              int count)
{
    struct plan_key key = {.kind = (int)args->kind,
                           .M = count * args->rows,
                           .N = args->N,
                           .K = args->K,
                           .out_stride = args->out_stride};
    struct plan *plan = NULL;
    TRY(plan_find(l, &key, &plan));

    int64_t row = (int64_t)first * args->rows;
    float *in = (float *)(uintptr_t)args->in + row * args->K;
    float *out = (float *)args->out + row * args->out_stride;
    TRY_DNNL(dnnl_memory_set_data_handle(plan->in, in));
    TRY_DNNL(dnnl_memory_set_data_handle(plan->weight, (void *)(uintptr_t)args->weight));
    TRY_DNNL(dnnl_memory_set_data_handle(plan->bias, (void *)(uintptr_t)args->bias));
    TRY_DNNL(dnnl_memory_set_data_handle(plan->out, out));
    TRY_DNNL(dnnl_memory_set_data_handle(plan->scratch, l->scratch));
    dnnl_exec_arg_t exec_args[] = {{DNNL_ARG_SRC, plan->in},
                                   {DNNL_ARG_WEIGHTS, plan->weight},
                                   {DNNL_ARG_BIAS, plan->bias},
                                   {DNNL_ARG_DST, plan->out},
                                   {DNNL_ARG_SCRATCHPAD, plan->scratch}};
    TRY_DNNL(dnnl_primitive_execute(plan->primitive, l->stream, 5, exec_args));
    return STATUS_OK;
}

enum status linear_cpu(struct linear_cpu *l, const struct linear_args *args)
{
    // Above this many rows a larger product is no faster, it only has more primitives to compile.
    enum { ENOUGH_ROWS = 2048 };

    for (int first = 0; first < args->B;) {
        int count = 1;
        while (first + 2 * count <= args->B && count * args->rows < ENOUGH_ROWS)
            count *= 2;
        TRY(run_images(l, args, first, count));
        first += count;
    }
    return STATUS_OK;
}
