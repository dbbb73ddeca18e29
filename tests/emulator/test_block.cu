// Threads of a block: order, barriers, shuffles, shared memory.
#include "check.h"
#include <cstdlib>

static const unsigned full = 0xffffffffu;

template <class T> static __global__ void shuffle_kernel(T *out, const T *in)
{
    unsigned i = threadIdx.x;
    T v = in[i];
    out[i] = __shfl_xor_sync(full, v, 5);
    out[i + 32] = __shfl_sync(full, v, 7);
    out[i + 64] = __shfl_up_sync(full, v, 3);
    out[i + 96] = __shfl_down_sync(full, v, 3, 8);
}

template <class T> static bool shuffles_right()
{
    std::vector<T> in(32);
    unsigned char *bytes = reinterpret_cast<unsigned char *>(in.data());
    for (size_t i = 0; i < 32 * sizeof(T); i++)
        bytes[i] = (unsigned char)(i * 37 % 101);
    device_array<T> from(in), to(128);
    cudaLaunchConfig_t config = launch_config(1, 32);
    CUDA_OK(cudaLaunchKernelEx(&config, shuffle_kernel<T>, to.data, from.data));
    std::vector<T> out = to.get();
    bool right = true;
    for (int i = 0; i < 32; i++) {
        int sources[4] = {i ^ 5, 7, i < 3 ? i : i - 3, i % 8 + 3 < 8 ? i + 3 : i};
        for (int j = 0; j < 4; j++)
            right &= !memcmp(&out[j * 32 + i], &in[sources[j]], sizeof(T));
    }
    return right;
}

static __global__ void vote_kernel(unsigned *out)
{
    unsigned lane = threadIdx.x;
    unsigned even = __ballot_sync(full, lane % 2 == 0);
    int sum = __reduce_add_sync(full, int(lane) - 3);
    unsigned most = __reduce_max_sync(full, lane * 3);
    if (lane < 16) // a part of the warp
        sum += __any_sync(0x0000ffffu, lane == 40) + 2 * __all_sync(0x0000ffffu, lane < 16);
    __syncwarp();
    atomicAdd(&out[0], even == 0x55555555u && most == 93);
    atomicAdd(&out[1], unsigned(sum));
}

static void test_votes()
{
    device_array<unsigned> out(std::vector<unsigned>{0, 0});
    cudaLaunchConfig_t config = launch_config(1, 32);
    CUDA_OK(cudaLaunchKernelEx(&config, vote_kernel, out.data));
    CHECK(out.get()[0] == 32);
    CHECK(out.get()[1] == 32 * (31 * 16 - 96) + 16 * 2);
}

// Reverses each block's part through shared memory, static and dynamic.
template <bool with_barrier> static __global__ void reverse_kernel(int *out, const int *in)
{
    __shared__ int part[128];
    DYNAMIC_SHARED(int, again);
    const int *from = in + blockIdx.x * blockDim.x;
    part[threadIdx.x] = from[threadIdx.x];
    if (with_barrier)
        __syncthreads();
    again[blockDim.x - 1 - threadIdx.x] = part[blockDim.x - 1 - threadIdx.x];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = again[blockDim.x - 1 - threadIdx.x];
}

template <bool with_barrier> static bool reverses()
{
    std::vector<int> in(3 * 128);
    for (size_t i = 0; i < in.size(); i++)
        in[i] = int(i);
    device_array<int> from(in), to(in.size());
    cudaLaunchConfig_t config = launch_config(3, 128, 128 * sizeof(int));
    CUDA_OK(cudaLaunchKernelEx(&config, reverse_kernel<with_barrier>, to.data, from.data));
    std::vector<int> out = to.get();
    for (size_t i = 0; i < out.size(); i++)
        if (out[i] != in[i / 128 * 128 + 127 - i % 128])
            return false;
    return true;
}

// Within one warp: a store and a load of another lane's value need __syncwarp between them.
template <bool with_barrier> static __global__ void neighbour_kernel(int *out)
{
    __shared__ int values[32];
    values[threadIdx.x] = int(threadIdx.x);
    if (with_barrier)
        __syncwarp();
    out[threadIdx.x] = values[(threadIdx.x + 1) % 32];
}

template <bool with_barrier> static bool neighbours()
{
    device_array<int> to(32);
    cudaLaunchConfig_t config = launch_config(1, 32);
    CUDA_OK(cudaLaunchKernelEx(&config, neighbour_kernel<with_barrier>, to.data));
    std::vector<int> out = to.get();
    bool right = true;
    for (int i = 0; i < 32; i++)
        right &= out[i] == (i + 1) % 32;
    return right;
}

enum wrong {
    NONE,
    EXITED_BARRIER,
    OTHER_BARRIER,
    EXITED_LANE,
    OTHER_SHUFFLE,
    SHUFFLE_AND_BARRIER,
    SHARED_OVERRUN,
    STATIC_OVERRUN,
    STATIC_OVERRUN_BY_POINTER,
    GLOBAL_OVERRUN,
    MISALIGNED,
    READ_SHARED_FIRST,
};

// Out of sight of the compiler's own bounds check.
static __device__ __attribute__((noinline)) float value_at(const float *values, int i)
{
    return values[i];
}

static __global__ void wrong_kernel(wrong what, float *out, int n)
{
    DYNAMIC_SHARED(float, tile);
    __shared__ float fixed[64];
    unsigned i = threadIdx.x;
    float v = 0.0f;
    fixed[i] = 0.0f;
    if (what == EXITED_BARRIER && i == 3)
        return;
    if (what == EXITED_BARRIER)
        __syncthreads();
    if (what == OTHER_BARRIER && i < 32)
        __syncthreads();
    else if (what == OTHER_BARRIER)
        __syncthreads();
    if (what == EXITED_LANE && i % 32 == 9)
        return;
    if (what == EXITED_LANE)
        v = __shfl_xor_sync(full, v, 1);
    if (what == OTHER_SHUFFLE)
        v = i % 32 < 5 ? __shfl_xor_sync(full, v, 1) : __shfl_down_sync(full, v, 1);
    if (what == SHUFFLE_AND_BARRIER && i == 0)
        v = __shfl_xor_sync(full, v, 1);
    else if (what == SHUFFLE_AND_BARRIER)
        __syncthreads();
    if (what == SHARED_OVERRUN)
        tile[n] = 1.0f;
    if (what == STATIC_OVERRUN)
        v = fixed[n] = 1.0f;
    if (what == STATIC_OVERRUN_BY_POINTER)
        v = value_at(fixed, n);
    if (what == GLOBAL_OVERRUN)
        v = out[n];
    if (what == MISALIGNED)
        v = reinterpret_cast<float4 *>(out + 1)->x;
    if (what == READ_SHARED_FIRST)
        v = tile[0];
    out[i] = v + fixed[i];
}

// n is the index past the end where one is written.
static void run_wrong(wrong what, int n = 0)
{
    device_array<float> out(64);
    cudaLaunchConfig_t config = launch_config(1, 64, 40);
    cudaLaunchKernelEx(&config, wrong_kernel, what, out.data, n);
    std::vector<float> values = out.get();
    if (what == READ_SHARED_FIRST && !(values[0] == values[0]))
        abort();
}

static void test_wrong()
{
    run_wrong(NONE);
    CHECK(dies([] { run_wrong(EXITED_BARRIER); }, "divergent barrier"));
    CHECK(dies([] { run_wrong(OTHER_BARRIER); }, "divergent barrier"));
    CHECK(dies([] { run_wrong(EXITED_LANE); }, "exited"));
    CHECK(dies([] { run_wrong(OTHER_SHUFFLE); }, "divergent warp"));
    CHECK(dies([] { run_wrong(SHUFFLE_AND_BARRIER); }, "EMULATOR_SEED=1"));
    CHECK(dies([] { run_wrong(READ_SHARED_FIRST); }, ""));
    CHECK(dies([] { run_wrong(GLOBAL_OVERRUN, 64); }, "bad memory access"));
    CHECK(dies([] { run_wrong(GLOBAL_OVERRUN, 64); }, "wrong_kernel"));
    if (finds_races)
        CHECK(
            dies([] { run_wrong(SHARED_OVERRUN, 10); }, "of dynamic shared memory, which has 40"));
    if (!under_asan)
        return;
    CHECK(dies([] { run_wrong(SHARED_OVERRUN, 10); }, "heap-buffer-overflow"));
    CHECK(dies([] { run_wrong(STATIC_OVERRUN, 64); }, "out of bounds"));
    CHECK(dies([] { run_wrong(STATIC_OVERRUN_BY_POINTER, 64); }, "global-buffer-overflow"));
    CHECK(dies([] { run_wrong(MISALIGNED); }, "misaligned address"));
}

static void test_limits()
{
    device_array<int> a(128), b(128);
    cudaLaunchConfig_t config = launch_config(1, 1025);
    CHECK(cudaLaunchKernelEx(&config, reverse_kernel<true>, a.data, b.data) ==
          cudaErrorInvalidConfiguration);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    CHECK(cudaGetLastError() == cudaSuccess);
    config = launch_config(dim3(1, 65536), 128);
    CHECK(cudaLaunchKernelEx(&config, reverse_kernel<true>, a.data, b.data) ==
          cudaErrorInvalidConfiguration);
    config = launch_config(1, 128, 100 << 10);
    CHECK(cudaLaunchKernelEx(&config, reverse_kernel<true>, a.data, b.data) ==
          cudaErrorInvalidValue);
    CUDA_OK(cudaFuncSetAttribute(reverse_kernel<true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 100 << 10));
    CUDA_OK(cudaLaunchKernelEx(&config, reverse_kernel<true>, a.data, b.data));
    CHECK(cudaFuncSetAttribute(reverse_kernel<true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               228 << 10) == cudaErrorInvalidValue);
    cudaGetLastError();
}

void test_block()
{
    CHECK(shuffles_right<int>());
    CHECK(shuffles_right<float>());
    CHECK(shuffles_right<double>());
    CHECK(shuffles_right<float2>());
    CHECK(shuffles_right<uint4>());
    CHECK(shuffles_right<__nv_bfloat16>());
    CHECK(shuffles_right<__nv_bfloat162>());
    CHECK(shuffles_right<__half2>());
    test_votes();
    CHECK(wrong_seeds(20, reverses<true>) == 0);
    CHECK(wrong_seeds(20, neighbours<true>) == 0);
    with_environment("EMULATOR_RACES", "0", [] {
        CHECK(wrong_seeds(20, reverses<false>) == 20);
        CHECK(wrong_seeds(20, neighbours<false>) == 20);
    });
    emulator_seed(1);
    test_wrong();
    test_limits();
}
