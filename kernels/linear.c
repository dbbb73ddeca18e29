// out = in . weight^T + bias, then GELU, or added to what out holds.
//
// A weight (N, K) is packed into panels of TILE_COLUMNS columns. A panel holds one 32-bit lane of
// values of K after the other, for all its columns (tile.c); in int8 the columns' scales and
// corrections follow. A task is a panel and some of the rows: the panel stays in the second-level
// cache while the rows pass by, and meanwhile the next one is fetched. Each thread has its own rows
// where there are enough of them (team.h), so that what the op before wrote there is in its cache.
//
// In int8 the weight has a scale for each column, the input one for each row. vpdpbusd wants one of
// its factors unsigned: the input is stored with 128 added, and the correction, 128 times the sum
// of the column, taken off again. Pixels (DOT_BYTES) are unsigned as they come.

#include "kernels.h"
#include "numeric.h"
#include <string.h>

// With AVX-512 8 x 3 vectors: the fastest of the shapes that were measured (tests/bench/SPEED.md).
enum {
    TILE_ROWS = TILE_SUMS == 24 ? 8 : 6,
    TILE_VECTORS = TILE_SUMS / TILE_ROWS,
    TILE_COLUMNS = TILE_VECTORS * VECTOR_FLOATS
};

enum { INT8_OFFSET = 128 };

// The products whose sums are int32.
static bool whole_numbers(enum dot dot)
{
    return dot == DOT_INT8 || dot == DOT_BYTES;
}

static int values_per_lane(enum dot dot)
{
    return whole_numbers(dot) ? 4 : dot == DOT_BF16 ? 2 : 1;
}

static int lanes_of(enum dot dot, int K)
{
    return (K + values_per_lane(dot) - 1) / values_per_lane(dot);
}

static int panels_of(int N)
{
    return (N + TILE_COLUMNS - 1) / TILE_COLUMNS;
}

static int64_t panel_bytes(enum dot dot, int K)
{
    int64_t lanes = lanes_of(dot, K) + (whole_numbers(dot) ? 2 : 0); // corrections, scales
    return lanes * TILE_COLUMNS * 4;
}

size_t CPU_KERNEL(packed_bytes_cpu)(enum dot dot, int N, int K)
{
    return (size_t)panel_bytes(dot, K) * (size_t)panels_of(N);
}

static void pack_int8(enum dot dot, int K, const float *values, int8_t *panel, int column,
                      int lanes)
{
    int32_t sum = 0;
    int32_t *corrections = (int32_t *)(void *)panel + (int64_t)lanes * TILE_COLUMNS;
    float *scales = (float *)(corrections + TILE_COLUMNS);
    float scale = quantization_scale(largest_size(values, K)),
          inverse = quantization_inverse(scale);
    for (int k = 0; k < K; k++) {
        int value = quantize(values[k], inverse);
        panel[((int64_t)(k / 4) * TILE_COLUMNS + column) * 4 + k % 4] = (int8_t)value;
        sum += value;
    }
    corrections[column] = dot == DOT_INT8 ? INT8_OFFSET * sum : 0;
    scales[column] = scale;
}

// `lanes` of the panel: padded, they can be more than K fills.
static void pack_column(enum dot dot, int K, const float *values, void *panel, int column,
                        int lanes)
{
    float *floats = panel;
    uint16_t *halves = panel;
    if (whole_numbers(dot))
        pack_int8(dot, K, values, panel, column, lanes);
    else if (dot == DOT_BF16)
        for (int k = 0; k < K; k++)
            halves[((int64_t)(k / 2) * TILE_COLUMNS + column) * 2 + k % 2] =
                bf16_from_float(values[k]);
    else
        for (int64_t k = 0; k < K; k++)
            floats[k * TILE_COLUMNS + column] = values[k];
}

struct packing {
    enum dot dot;
    int N, K, columns;
    const float *values;
    void *packed;
};

static void pack_panel(void *context, int p, int thread)
{
    const struct packing *job = context;
    int64_t bytes = panel_bytes(job->dot, job->columns);
    char *panel = (char *)job->packed + bytes * p;
    (void)thread;
    if (job->N - p * TILE_COLUMNS < TILE_COLUMNS || job->columns != job->K || job->K % 4 != 0)
        memset(panel, 0, (size_t)bytes);
    for (int n = p * TILE_COLUMNS; n < job->N && n < (p + 1) * TILE_COLUMNS; n++)
        pack_column(job->dot, job->K, job->values + (int64_t)n * job->K, panel, n % TILE_COLUMNS,
                    lanes_of(job->dot, job->columns));
}

void CPU_KERNEL(pack_cpu)(enum dot dot, int N, int K, int columns, const float *values,
                          void *packed, struct team *team)
{
    team_run(team, panels_of(N), pack_panel, &(struct packing){dot, N, K, columns, values, packed});
}

// The product in work, its input as the tiles take it.
struct product {
    const struct cpu_linear *linear;
    const struct linear_args *args;
    const char *in;     // (M, K)
    int64_t in_stride;  // in bytes
    float *scales;      // (M), of a quantised input; NULL: all are 1
    uint8_t *quantized; // (M, K), that input
    int M, lanes;
    int step, panels; // rows and panels
};

// Without their signs, values in bf16 are ordered as whole numbers are, with those that are not
// finite on top.
static float scale_of_row(const uint16_t *in, int K)
{
    uint16_t largest = 0;
    for (int k = 0; k < K; k++) {
        uint16_t size = in[k] & 0x7fff;
        largest = size > largest ? size : largest;
    }
    return quantization_scale(bf16_to_float(largest));
}

// A row of bf16 -> bytes with INT8_OFFSET added. K is padded to whole lanes, with anything: there
// the weight is 0.
static void quantize_row(uint8_t *restrict out, const uint16_t *restrict in, int K, float scale)
{
    float inverse = quantization_inverse(scale);
    for (int k = 0; k < K; k++)
        out[k] = (uint8_t)(quantize(bf16_to_float(in[k]), inverse) + INT8_OFFSET);
    for (int k = K; k % 4 != 0; k++)
        out[k] = INT8_OFFSET;
}

// A tile as it leaves the product.
union tile_sums {
    float values[TILE_ROWS][TILE_COLUMNS];
    int32_t whole[TILE_ROWS][TILE_COLUMNS];
};

// Takes the corrections off and applies the scales, which follow the panel's lanes.
static void dequantize(const struct product *p, union tile_sums *tile, int row, int rows,
                       const char *panel)
{
    const int32_t *corrections = (const int32_t *)(const void *)panel;
    corrections += (int64_t)p->lanes * TILE_COLUMNS;
    const float *scales = (const float *)(corrections + TILE_COLUMNS);
    for (int r = 0; r < rows; r++) {
        float row_scale = p->scales ? p->scales[row + r] : 1.0f;
        for (int n = 0; n < TILE_COLUMNS; n++)
            tile->values[r][n] =
                (float)(tile->whole[r][n] - corrections[n]) * (scales[n] * row_scale);
    }
}

// One row of a tile, `count` columns of it, to its place.
static void store_row(const struct product *p, int row, int column, const float *values, int count)
{
    const struct linear_args *args = p->args;
    int64_t out_row = row;
    if (p->linear->lead > 0)
        out_row += (int64_t)(row / args->rows + 1) * p->linear->lead;
    int64_t at = out_row * args->out_stride + column;
    float *out = (float *)args->out + at;
    if (args->kind == LINEAR_RESIDUAL)
        for (int n = 0; n < count; n++)
            out[n] += values[n];
    else if (args->kind == LINEAR_LOGITS || !p->linear->half)
        activations_store(out, values, count, false);
    else
        activations_store((uint16_t *)args->out + at, values, count, true);
}

static void apply_gelu(float *values, int count, bool half)
{
#pragma omp simd
    for (int i = 0; i < (half ? 0 : count); i++)
        values[i] = gelu(values[i]);
#pragma omp simd
    for (int i = 0; i < (half ? count : 0); i++)
        values[i] = gelu_half(values[i]);
}

// Adds the bias, does what the kind of layer asks for, and stores.
static void finish_tile(const struct product *p, union tile_sums *tile, int row, int rows,
                        int column, const float *bias)
{
    int count = p->args->N - column;
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < TILE_COLUMNS; n++)
            tile->values[r][n] += bias[n];
    if (p->args->kind == LINEAR_GELU)
        apply_gelu((float *)tile, rows * TILE_COLUMNS, p->linear->half);
    for (int r = 0; r < rows; r++)
        if (count >= TILE_COLUMNS) // the usual case, of a length that the compiler knows
            store_row(p, row + r, column, tile->values[r], TILE_COLUMNS);
        else
            store_row(p, row + r, column, tile->values[r], count);
}

// What a tile is to fetch of the panel that comes next, so that all of it has come when the last of
// the `tiles` is through: a piece that starts `*fetched` bytes on.
static void fetch_ahead(struct tile *tile, const char *next, int64_t bytes, int tiles,
                        int64_t *fetched)
{
    enum { CACHE_LINE = 64, LINES = LANES_AT_ONCE * TILE_COLUMNS * 4 / CACHE_LINE };
    tile->ahead = next + *fetched;
    tile->ahead_lines = *fetched < bytes ? (LINES + tiles - 1) / tiles : 0;
    *fetched += (int64_t)tile->ahead_lines * CACHE_LINE * (tile->lanes / LANES_AT_ONCE + 1);
}

// Rows first..last - 1 of the panel's columns.
static void multiply_rows(const struct product *p, int panel_index, int first, int last)
{
    enum dot dot = p->linear->dot;
    int column = panel_index * TILE_COLUMNS, left = p->args->N - column;
    int columns = left < TILE_COLUMNS ? left : TILE_COLUMNS;
    int64_t bytes = panel_bytes(dot, p->args->K), fetched = 0;
    const char *panel = (const char *)p->args->weight + bytes * panel_index;
    const char *next = panel_index + 1 < p->panels ? panel + bytes : p->args->weight;
    float bias[TILE_COLUMNS] = {0};
    memcpy(bias, p->args->bias + column, sizeof *bias * (size_t)columns);
    union tile_sums sums = {.whole = {{0}}};
    struct tile tile = {.out = &sums,
                        .b = panel,
                        .out_stride = sizeof *sums.values,
                        .a_stride = p->in_stride,
                        .a_step = 4,
                        .b_stride = TILE_COLUMNS * 4,
                        .lanes = p->lanes,
                        .vectors = (columns + VECTOR_FLOATS - 1) / VECTOR_FLOATS};
    for (int row = first; row < last; row += TILE_ROWS) {
        tile.a = p->in + p->in_stride * row;
        tile.rows = last - row < TILE_ROWS ? last - row : TILE_ROWS;
        fetch_ahead(&tile, next, bytes, (last - first + TILE_ROWS - 1) / TILE_ROWS, &fetched);
        CPU_KERNEL(tile_cpu)(dot, &tile);
        if (whole_numbers(dot))
            dequantize(p, &sums, row, tile.rows, panel);
        finish_tile(p, &sums, row, tile.rows, column, bias);
    }
}

// Rows of a task. Each thread has its own, if they are enough to be worth reading all of the weight
// for. There are four tasks for each thread at least, so that none has long to wait for the last.
static int rows_per_task(int M, int panels, int threads)
{
    enum { ROWS_WORTH_A_WEIGHT = 96 };
    int groups = M / ROWS_WORTH_A_WEIGHT < threads ? M / ROWS_WORTH_A_WEIGHT : threads;
    int fewest = (4 * threads + panels - 1) / panels;
    int tiles = (M + TILE_ROWS - 1) / TILE_ROWS;
    groups = groups > fewest ? groups : fewest;
    return (tiles + groups - 1) / groups * TILE_ROWS;
}

static void multiply_task(void *context, int task, int thread)
{
    const struct product *p = context;
    int first = task / p->panels * p->step, last = first + p->step;
    (void)thread;
    multiply_rows(p, task % p->panels, first, last < p->M ? last : p->M);
}

enum { QUANTIZED_ROWS = 8 }; // of a task

static void quantize_task(void *context, int task, int thread)
{
    const struct product *p = context;
    int K = p->args->K, first = task * QUANTIZED_ROWS, left = p->M - first;
    (void)thread;
    for (int row = first; row < first + (left < QUANTIZED_ROWS ? left : QUANTIZED_ROWS); row++) {
        const uint16_t *in = (const uint16_t *)p->args->in + (int64_t)row * K;
        p->scales[row] = scale_of_row(in, K);
        quantize_row(p->quantized + row * p->in_stride, in, K, p->scales[row]);
    }
}

void CPU_KERNEL(linear_cpu)(const struct cpu_linear *linear)
{
    const struct linear_args *args = linear->args;
    struct product p = {.linear = linear, .args = args, .in = args->in};
    p.M = args->B * args->rows;
    p.lanes = lanes_of(linear->dot, args->K);
    p.in_stride = p.lanes * (int64_t)4;
    if (linear->dot == DOT_INT8) {
        p.scales = linear->scratch;
        p.quantized = (uint8_t *)(p.scales + p.M);
        p.in = (const char *)p.quantized;
        team_run(linear->team, (p.M + QUANTIZED_ROWS - 1) / QUANTIZED_ROWS, quantize_task, &p);
    }
    p.panels = panels_of(args->N);
    p.step = rows_per_task(p.M, p.panels, team_threads(linear->team));
    team_run(linear->team, (p.M + p.step - 1) / p.step * p.panels, multiply_task, &p);
}
