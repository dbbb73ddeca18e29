// ldmatrix, mma and cp.async against plain loops.
#include "check.h"

// D (16, 16) = A (16, k) . B (16, k)^T from shared memory, as an attention kernel loads its
// operands: both row-major along k, or B as (k, 16) by a transposed load.
template <class T, bool transposed>
static __global__ void product_kernel(float *d, const T *a, const T *b, bool wait, bool barrier)
{
    constexpr int k = 16, pad = 8; // rows of 48 bytes: no bank twice, still aligned
    __shared__ __align__(16) T tile_a[16][k + pad];
    __shared__ __align__(16) T tile_b[16][k + pad];
    unsigned lane = threadIdx.x, matrix = lane / 8;
    cp_async_16_or_zero(&tile_a[lane / 2][lane % 2 * 8], a + lane * 8, true);
    cp_async_16_or_zero(&tile_b[lane / 2][lane % 2 * 8], b + lane * 8, true);
    cp_async_commit();
    if (wait)
        cp_async_wait<0>();
    if (barrier)
        __syncthreads();
    uint32_t fragment_a[4], fragment_b[4];
    ldmatrix_x4(fragment_a, &tile_a[lane % 16][lane / 16 * 8]);
    if (transposed)
        ldmatrix_x4_trans(fragment_b, &tile_b[matrix % 2 * 8 + lane % 8][matrix / 2 * 8]);
    else
        ldmatrix_x4(fragment_b, &tile_b[matrix / 2 * 8 + lane % 8][matrix % 2 * 8]);
    for (int half = 0; half < 2; half++) {
        float sum[4] = {};
        mma_m16n8k16<T>(sum, fragment_a, fragment_b[2 * half], fragment_b[2 * half + 1]);
        for (int i = 0; i < 4; i++)
            d[(lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2] = sum[i];
    }
}

static float widen(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
static float widen(__half x)
{
    return __half2float(x);
}

template <class T> static std::vector<T> numbers(size_t n, int start)
{
    std::vector<T> values(n);
    for (size_t i = 0; i < n; i++)
        values[i] = T(float((int(i) * 29 + start) % 61 - 30) / 8.0f); // exact in all types
    return values;
}

// A (16, k), B (columns, k), or (k, columns) where transposed.
template <class T>
static bool product_right(const std::vector<float> &d, const std::vector<T> &a,
                          const std::vector<T> &b, int columns, int k, bool transposed)
{
    bool right = true;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < columns; j++) {
            float sum = 0.0f;
            for (int l = 0; l < k; l++)
                sum += widen(a[i * k + l]) * widen(transposed ? b[l * columns + j] : b[j * k + l]);
            right &= d[i * columns + j] == sum;
        }
    return right;
}

template <class T, bool transposed> static bool multiplies(bool wait = true, bool barrier = true)
{
    std::vector<T> a = numbers<T>(16 * 16, 3), b = numbers<T>(16 * 16, 11);
    device_array<T> on_a(a), on_b(b);
    device_array<float> on_d(16 * 16);
    cudaLaunchConfig_t config = launch_config(1, 32);
    CUDA_OK(cudaLaunchKernelEx(&config, product_kernel<T, transposed>, on_d.data, on_a.data,
                               on_b.data, wait, barrier));
    return product_right(on_d.get(), a, b, 16, 16, transposed);
}

// The k8 form, operands straight from global memory.
static __global__ void fp16_kernel(float *d, const __half *a, const __half *b)
{
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    const uint32_t *pairs_a = reinterpret_cast<const uint32_t *>(a);
    const uint32_t *pairs_b = reinterpret_cast<const uint32_t *>(b);
    uint32_t fragment[2] = {pairs_a[g * 4 + t], pairs_a[(g + 8) * 4 + t]};
    float sum[4] = {};
    mma_m16n8k8_fp16(sum, fragment, pairs_b[g * 4 + t]);
    for (int i = 0; i < 4; i++)
        d[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = sum[i];
}

static bool multiplies_k8()
{
    std::vector<__half> a = numbers<__half>(16 * 8, 5), b = numbers<__half>(8 * 8, 17);
    device_array<__half> on_a(a), on_b(b);
    device_array<float> on_d(16 * 8);
    cudaLaunchConfig_t config = launch_config(1, 32);
    CUDA_OK(cudaLaunchKernelEx(&config, fp16_kernel, on_d.data, on_a.data, on_b.data));
    return product_right(on_d.get(), a, b, 8, 8, false);
}

enum copy_fault { COPY_RIGHT, NO_WAIT, NO_BARRIER, EARLY_REFILL, HOST_SOURCE, UNALIGNED };

// Sums two stages that pass through one buffer.
static __global__ void copy_kernel(float *out, const float *in, copy_fault what)
{
    DYNAMIC_SHARED(float, buffer);
    unsigned i = threadIdx.x;
    float sum = 0.0f;
    for (int stage = 0; stage < 2; stage++) {
        const float *from = in + stage * 256 + i * 4 + (what == UNALIGNED);
        cp_async_16_or_zero(buffer + i * 4, from, i != 5);
        cp_async_commit();
        if (what == NO_WAIT)
            cp_async_wait<1>();
        else
            cp_async_wait<0>();
        if (what != NO_BARRIER)
            __syncthreads();
        sum += buffer[(i + 32) % 64 * 4];
        if (what != EARLY_REFILL)
            __syncthreads();
    }
    out[i] = sum;
}

static bool copies(copy_fault what)
{
    std::vector<float> in = numbers<float>(512, 7);
    device_array<float> from(in), to(64);
    cudaLaunchConfig_t config = launch_config(1, 64, 256 * sizeof(float));
    CUDA_OK(cudaLaunchKernelEx(&config, copy_kernel, to.data,
                               what == HOST_SOURCE ? in.data() : from.data, what));
    std::vector<float> out = to.get();
    bool right = true;
    for (int i = 0; i < 64; i++) {
        int j = (i + 32) % 64;
        right &= out[i] == (j == 5 ? 0.0f : in[j * 4] + in[256 + j * 4]);
    }
    return right;
}

static __global__ void bad_row_kernel(int shift, uint32_t *out)
{
    __shared__ __align__(16) uint4 tile[32];
    tile[threadIdx.x] = {0, 0, 0, 0};
    __syncwarp();
    uint32_t r[4];
    ldmatrix_x4(r, reinterpret_cast<char *>(tile + threadIdx.x) - (shift & 8) + (shift & 16) * 64);
    out[threadIdx.x] = r[0];
}

static void run_bad_row(int shift)
{
    device_array<uint32_t> out(32);
    cudaLaunchConfig_t config = launch_config(1, 32);
    cudaLaunchKernelEx(&config, bad_row_kernel, shift, out.data);
    cudaDeviceSynchronize();
}

void test_ptx()
{
    CHECK((multiplies<__nv_bfloat16, false>()));
    CHECK((multiplies<__nv_bfloat16, true>()));
    CHECK((multiplies<__half, false>()));
    CHECK((multiplies<__half, true>()));
    CHECK(multiplies_k8());
    CHECK(wrong_seeds(20, [] { return copies(COPY_RIGHT); }) == 0);
    with_environment("EMULATOR_RACES", "0", [] {
        CHECK(wrong_seeds(20, [] { return copies(NO_WAIT); }) == 20);
        CHECK(wrong_seeds(20, [] { return copies(NO_BARRIER); }) == 20);
        CHECK(wrong_seeds(20, [] { return copies(EARLY_REFILL); }) > 15);
    });
    CHECK(dies([] { multiplies<__half, true>(false, true); }, "that it has not waited for"));
    CHECK(dies([] { multiplies<__half, true>(true, false); }, "with no barrier between"));
    if (finds_races)
        CHECK(dies([] { copies(EARLY_REFILL); }, "with no barrier between"));
    CHECK(dies([] { copies(HOST_SOURCE); }, "not in device memory"));
    CHECK(dies([] { copies(UNALIGNED); }, "not aligned to 16 bytes"));
    CHECK(dies([] { run_bad_row(8); }, "ldmatrix"));
    CHECK(dies([] { run_bad_row(16); }, "not in shared memory"));
    with_environment("EMULATOR_CC", "7.5", [] {
        CHECK((multiplies<__half, false>()));
        CHECK(dies([] { multiplies<__nv_bfloat16, false>(); }, "needs compute capability 8.0"));
        CHECK(copies(COPY_RIGHT) && copies(NO_WAIT));
    });
}
