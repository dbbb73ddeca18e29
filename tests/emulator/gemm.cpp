// Operands are widened to fp32 panels, multiplied in blocks of k (fp32 within a block, blocks added
// up: about as exact as the tensor cores), and rounded once. ASan sees every element read and
// written; only the product of the private panels is left uninstrumented, for speed.
#include "gemm.h"
#include "device.h"

namespace emulator
{

constexpr int64_t panel_rows = 8, panel_columns = 4, k_block = 256;
typedef float vec4 __attribute__((vector_size(16)));

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

// `outer` is the index that panels are made of (m or n). Panel p holds, for each of the k, `width`
// values of the outer indices from p * width on, zero past the end.
static std::vector<float> pack(const matrix &x, const void *values, bool k_contiguous,
                               int64_t outer, int64_t k, int64_t width, bool tf32)
{
    int64_t panels = (outer + width - 1) / width;
    std::vector<float> packed(panels * k * width);
    for (int64_t o = 0; o < outer; o++) {
        float *to = packed.data() + (o / width) * k * width + o % width;
        for (int64_t i = 0; i < k; i++) {
            float value = load(x.type, values, k_contiguous ? o * x.ld + i : i * x.ld + o);
            to[i * width] = tf32 ? bits_as<float>(float_to_tf32(value)) : value;
        }
    }
    return packed;
}

// sum (8, 4) += a panel (k, 8) . b panel (k, 4)
__attribute__((no_sanitize("address", "undefined"))) static void
multiply_panels(const float *a, const float *b, int64_t k, float sum[panel_columns][panel_rows])
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
    int64_t block = std::min(k_block, (g.k + g.splits - 1) / g.splits);
    for (int64_t row = 0; row < g.m; row += panel_rows)
        for (int64_t column = 0; column < g.n; column += panel_columns) {
            float sum[panel_columns][panel_rows] = {};
            for (int64_t k = 0; k < g.k; k += block)
                multiply_panels(a.data() + (row * g.k + k * panel_rows),
                                b.data() + (column * g.k + k * panel_columns),
                                std::min(block, g.k - k), sum);
            write_tile(g, e, row, column, sum);
        }
}

void run_gemm(const gemm &g, float alpha, float beta)
{
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
