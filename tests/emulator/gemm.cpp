// Operands are widened to fp32 panels, multiplied as the hardware does it, and rounded once. ASan
// sees every element read and written; only the product of the private panels is left
// uninstrumented, for speed.
//
// fp32 products round each sum to nearest, in blocks of k. For 16-bit and tf32 inputs tensor cores
// add the exact products of a group of k to the sum at one go and never round: every addend is
// aligned to the largest, what lies below its last bit is dropped, and so is what the result has no
// room for (Fasi et al., PeerJ Computer Science 7:e330; for Hopper Khattak and Mikaitis,
// arXiv 2512.07004). The sum therefore lags behind, by more than rounding ever would. An A100 takes
// groups of 8 and keeps one bit below fp32's last; an H100 takes groups of 16 and keeps more. We
// do as the A100 does, which loses more.
#include "gemm.h"
#include "device.h"
#include "sanitizer.h"

namespace emulator
{

constexpr int64_t panel_rows = 8, panel_columns = 4, k_block = 256, k_group = 8;
typedef float vec4 __attribute__((vector_size(16)));
typedef int32_t ivec4 __attribute__((vector_size(16)));

size_t bytes_of(cudaDataType type)
{
    switch (type) {
    case CUDA_R_32F:
        return 4;
    case CUDA_R_16BF:
    case CUDA_R_16F:
        return 2;
    default:
        return 0;
    }
}

static float load(cudaDataType type, const void *values, int64_t i)
{
    if (type == CUDA_R_32F)
        return static_cast<const float *>(values)[i];
    uint16_t bits = static_cast<const uint16_t *>(values)[i];
    return type == CUDA_R_16F ? half_to_float(bits) : bits_as<float>(uint32_t(bits) << 16);
}

static void store(cudaDataType type, void *values, int64_t i, float value)
{
    if (type == CUDA_R_32F)
        static_cast<float *>(values)[i] = value;
    else if (type == CUDA_R_16F)
        static_cast<__half *>(values)[i] = __float2half_rn(value);
    else
        static_cast<__nv_bfloat16 *>(values)[i] = __float2bfloat16_rn(value);
}

static const char *batch_of(const matrix &x, const void *values, int64_t batch)
{
    return static_cast<const char *>(values) + batch * x.batch_stride * int64_t(bytes_of(x.type));
}

// Round to nearest, ties away from zero, to the 10 mantissa bits of tf32.
static uint32_t float_to_tf32(float x)
{
    uint32_t bits = __float_as_uint(x);
    bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    return finite ? (bits + 0x1000u) & ~0x1fffu : bits;
}

static int64_t whole_groups(int64_t k)
{
    return (k + k_group - 1) / k_group * k_group;
}

// `outer` is the index that panels are made of (m or n). Panel p holds, for each of the k, `width`
// values of the outer indices from p * width on, zero past the end of either.
static std::vector<float> pack(const matrix &x, const void *values, bool k_contiguous,
                               int64_t outer, int64_t k, int64_t width, bool tf32)
{
    int64_t panels = (outer + width - 1) / width, stride = whole_groups(k) * width;
    std::vector<float> packed(panels * stride);
    for (int64_t o = 0; o < outer; o++) {
        float *to = packed.data() + (o / width) * stride + o % width;
        for (int64_t i = 0; i < k; i++) {
            float value = load(x.type, values, k_contiguous ? o * x.ld + i : i * x.ld + o);
            to[i * width] = tf32 ? bits_as<float>(float_to_tf32(value)) : value;
        }
    }
    return packed;
}

// sum (8, 4) += a panel (k, 8) . b panel (k, 4)
__attribute__((no_sanitize("address", "undefined"))) static void
multiply_rounding(const float *a, const float *b, int64_t k, float sum[panel_columns][panel_rows])
{
    vec4 part[panel_columns][2] = {};
    for (int64_t i = 0; i < k; i++) {
        vec4 low, high;
        memcpy(&low, a + i * panel_rows, sizeof low);
        memcpy(&high, a + i * panel_rows + 4, sizeof high);
        for (int j = 0; j < panel_columns; j++) {
            part[j][0] += low * b[i * panel_columns + j];
            part[j][1] += high * b[i * panel_columns + j];
        }
    }
    for (int j = 0; j < panel_columns; j++)
        for (int i = 0; i < panel_rows; i++)
            sum[j][i] += part[j][i / 4][i % 4];
}

// Most of a test's time passes here.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !EMULATOR_ASAN
#define FAST __attribute__((target_clones("avx2", "default")))
#else
#define FAST __attribute__((no_sanitize("address", "undefined")))
#endif

// The same as tensor cores do it: each sum takes a whole group of products at one go, every addend
// cut to a multiple of 2^-24 of the largest one's exponent.
FAST static void multiply_truncating(const float *a, const float *b, int64_t k,
                                     float sum[panel_columns][panel_rows])
{
    constexpr int32_t size = 0x7fffffff, exponent = 0x7f800000, bits = 24 << 23;
    const ivec4 smallest = ivec4{} + (40 << 23); // of exponents: far below what matters
    for (int at = 0; at < panel_columns * panel_rows; at += 4) {
        int column = at / panel_rows, row = at % panel_rows;
        vec4 part = {};
        for (int64_t first = 0; first < k; first += k_group) {
            vec4 products[k_group], plain = part;
            vec4 largest = reinterpret_cast<vec4>(reinterpret_cast<ivec4>(part) & size);
            for (int i = 0; i < k_group; i++) {
                memcpy(&products[i], a + (first + i) * panel_rows + row, sizeof products[i]);
                products[i] *= b[(first + i) * panel_columns + column];
                vec4 other = reinterpret_cast<vec4>(reinterpret_cast<ivec4>(products[i]) & size);
                largest = largest > other ? largest : other;
                plain += products[i];
            }
            ivec4 known = reinterpret_cast<ivec4>(largest) & exponent;
            known = known > smallest ? known : smallest;
            vec4 scale = reinterpret_cast<vec4>((254 << 23) - (known - bits)); // 2^24 / 2^exponent
            ivec4 total = __builtin_convertvector(part * scale, ivec4);
            for (const vec4 &product : products)
                total += __builtin_convertvector(product * scale, ivec4);
            vec4 rounded = __builtin_convertvector(total, vec4); // right or one step too far
            ivec4 back = __builtin_convertvector(rounded, ivec4);
            ivec4 too_far = total < 0 ? back < total : back > total;
            vec4 cut = reinterpret_cast<vec4>(reinterpret_cast<ivec4>(rounded) + too_far);
            ivec4 finite = plain - plain == 0.0f;
            part = finite ? cut * reinterpret_cast<vec4>(known - bits) : plain;
        }
        for (int i = 0; i < 4; i++)
            sum[column][row + i] += part[i];
    }
}

static float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

struct epilogue {
    float alpha, beta;
    const void *c, *bias;
    void *d;
};

static void write_tile(const gemm &g, const epilogue &e, int64_t row, int64_t column,
                       const float sum[panel_columns][panel_rows])
{
    for (int64_t j = column; j < std::min(column + panel_columns, g.n); j++)
        for (int64_t i = row; i < std::min(row + panel_rows, g.m); i++) {
            float value = e.alpha * sum[j - column][i - row];
            if (e.beta != 0.0f)
                value += e.beta * load(g.c.type, e.c, j * g.c.ld + i);
            if (e.bias)
                value += load(g.bias_type, e.bias, i);
            store(g.d.type, e.d, j * g.d.ld + i, g.gelu ? gelu_tanh(value) : value);
        }
}

static void run_batch(const gemm &g, const void *a_values, const void *b_values, const epilogue &e)
{
    std::vector<float> a = pack(g.a, a_values, g.a.transposed, g.m, g.k, panel_rows, g.tf32);
    std::vector<float> b = pack(g.b, b_values, !g.b.transposed, g.n, g.k, panel_columns, g.tf32);
    bool tensor_cores = g.tf32 || g.a.type != CUDA_R_32F;
    auto multiply = tensor_cores ? multiply_truncating : multiply_rounding;
    int64_t all = whole_groups(g.k), part = whole_groups((g.k + g.splits - 1) / g.splits);
    int64_t block = tensor_cores ? part : std::min(k_block, part);
    for (int64_t row = 0; row < g.m; row += panel_rows)
        for (int64_t column = 0; column < g.n; column += panel_columns) {
            float sum[panel_columns][panel_rows] = {};
            for (int64_t k = 0; k < all; k += block)
                multiply(a.data() + (row * all + k * panel_rows),
                         b.data() + (column * all + k * panel_columns), std::min(block, all - k),
                         sum);
            write_tile(g, e, row, column, sum);
        }
}

static const void *at(const matrix &x, const void *values, int64_t column)
{
    int64_t step = x.transposed ? 1 : x.ld;
    return static_cast<const char *>(values) + column * step * int64_t(bytes_of(x.type));
}

static gemm columns_of(gemm g, int64_t first, int64_t count)
{
    g.n = count;
    g.b_values = at(g.b, g.b_values, first);
    g.c_values = at(g.c, g.c_values, first);
    g.d_values = const_cast<void *>(at(g.d, g.d_values, first));
    return g;
}

void run_gemm(const gemm &g, float alpha, float beta)
{
    int64_t ends = int64_t(current_settings().blocks) * panel_columns;
    if (ends && 2 * ends < g.n) { // as much of a large product as of a large grid
        run_gemm(columns_of(g, 0, ends), alpha, beta);
        run_gemm(columns_of(g, g.n - ends, ends), alpha, beta);
        return;
    }
    for (int64_t i = 0; i < g.batches; i++) {
        const char *bias = static_cast<const char *>(g.bias);
        epilogue e = {alpha, beta, batch_of(g.c, g.c_values, i), bias,
                      const_cast<char *>(batch_of(g.d, g.d_values, i))};
        if (bias)
            e.bias = bias + i * g.bias_stride * int64_t(bytes_of(g.bias_type));
        run_batch(g, batch_of(g.a, g.a_values, i), batch_of(g.b, g.b_values, i), e);
    }
}

} // namespace emulator
