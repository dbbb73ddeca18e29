// What must not stay unseen in a kernel: races in shared memory, values never set, wild accesses.
#include "check.h"
#include <csignal>
#include <unistd.h>

static const unsigned full = 0xffffffffu;

enum race {
    SYNCWARP,
    SYNCTHREADS,
    HALF_WARPS,
    WORD_OF_TWO,
    COUNTER,
    // and what is wrong
    NOTHING,
    SHUFFLE,
    VOTE,
    SYNCWARP_ACROSS,
    OTHER_HALF,
    WRITE_AFTER_READ,
    WRITE_AFTER_WRITE,
    WRITE_AFTER_READS,
    COUNTER_READ,
};

// Each thread stores into its place and loads another's.
template <bool dynamic> static __global__ void race_kernel(race what, int *out)
{
    DYNAMIC_SHARED(int, dynamic_places);
    __shared__ int static_places[65];
    int *places = dynamic ? dynamic_places : static_places;
    unsigned i = threadIdx.x, next = i / 32 * 32 + (i + 1) % 32, across = (i + 32) % 64;
    if (what == WORD_OF_TWO) {
        reinterpret_cast<short *>(places)[i] = short(i);
        return;
    }
    if (what == COUNTER || what == COUNTER_READ) {
        atomicAdd(&places[64], 1);
        if (what == COUNTER)
            __syncthreads();
        out[i] = places[64];
        return;
    }
    if (what == WRITE_AFTER_READS) { // by the thread that was the first to read
        int value = i == 5 ? places[64] : 0;
        value = __shfl_xor_sync(full, value, 1);
        if (i < 32 && i != 5)
            value += places[64];
        value = __shfl_xor_sync(full, value, 1);
        if (i == 5)
            places[64] = value;
        out[i] = value;
        return;
    }
    places[i] = int(i);
    if (what == SYNCTHREADS)
        __syncthreads();
    else if (what == SHUFFLE)
        __shfl_xor_sync(full, i, 1);
    else if (what == VOTE)
        __any_sync(full, i == 0);
    else if (what == HALF_WARPS || what == OTHER_HALF)
        __syncwarp(i % 32 < 16 ? 0xffffu : 0xffff0000u);
    else if (what != NOTHING)
        __syncwarp();
    if (what == HALF_WARPS || what == OTHER_HALF)
        next = what == HALF_WARPS ? i ^ 1 : i ^ 16;
    out[i] = places[what == SYNCWARP_ACROSS || what == SYNCTHREADS ? across : next];
    if (what == WRITE_AFTER_READ)
        places[i] = 0;
    if (what == WRITE_AFTER_WRITE)
        places[64] = 0;
}

template <bool dynamic> static void run_race(race what)
{
    device_array<int> out(64);
    cudaLaunchConfig_t config = launch_config(3, 64, 65 * sizeof(int));
    CUDA_OK(cudaLaunchKernelEx(&config, race_kernel<dynamic>, what, out.data));
    CUDA_OK(cudaDeviceSynchronize());
}

template <bool dynamic> static void test_races()
{
    for (int what = 0; what < NOTHING; what++)
        wrong_seeds(5, [&] { return run_race<dynamic>(race(what)), true; }); // or it dies here
    for (int seed = 1; seed <= 3 && finds_races; seed++) {
        emulator_seed(uint64_t(seed));
        for (int what = NOTHING; what <= COUNTER_READ; what++)
            CHECK(
                dies([&] { run_race<dynamic>(race(what)); }, dynamic ? "of dynamic" : "of static"));
    }
}

// -- values never set -----------------------------------------------------------------------------

// Out of sight of the compiler, which would warn.
static __device__ __attribute__((noinline)) void add_up(float *sums, const float *values)
{
    for (int i = 0; i < 32; i++)
        sums[i] += values[i];
}

static __global__ void sum_kernel(float *out, const float *values, bool set)
{
    float sums[32];
    for (int i = 0; i < 32 && set; i++)
        sums[i] = 0.0f;
    add_up(sums, values);
    for (int i = 0; i < 32; i++)
        out[(blockIdx.x * blockDim.x + threadIdx.x) * 32 + i] = sums[i];
}

// How many of the sums are NaN, where the stack held zeros before.
static int unset_sums(bool set)
{
    device_array<float> values(std::vector<float>(32, 0.0f)), out(5 * 64 * 32);
    cudaLaunchConfig_t config = launch_config(5, 64);
    CUDA_OK(cudaLaunchKernelEx(&config, sum_kernel, out.data, values.data, true));
    CUDA_OK(cudaLaunchKernelEx(&config, sum_kernel, out.data, values.data, set));
    int unset = 0;
    for (float sum : out.get())
        unset += sum != sum;
    return unset;
}

// -- accesses that kill the host ------------------------------------------------------------------

enum fault { NO_FAULT, WILD_STORE, ENDLESS_RECURSION };

static __device__ __attribute__((noinline)) int recurse(volatile int *values, int depth)
{
    volatile int frame[100];
    frame[depth % 100] = depth;
    return values[0] == 1 ? recurse(values, depth + 1) + frame[depth % 100] : 0;
}

static __global__ void fault_kernel(fault what, int *values, size_t wild)
{
    values[0] = 1;
    if (what == WILD_STORE)
        *reinterpret_cast<volatile int *>(wild) = 1;
    if (what == ENDLESS_RECURSION)
        values[1] = recurse(values, 0);
}

static void run_fault(fault what)
{
    device_array<int> values(2);
    cudaLaunchConfig_t config = launch_config(dim3(2, 3), 64);
    CUDA_OK(cudaLaunchKernelEx(&config, fault_kernel, what, values.data, 4096 - 64));
    CUDA_OK(cudaDeviceSynchronize());
}

void test_race()
{
    test_races<false>();
    test_races<true>();
    CHECK(wrong_seeds(5, [] { return unset_sums(true) == 0; }) == 0);
    // Not all of them: on their way in, the hooks of the loads leave some frames below.
    CHECK(wrong_seeds(5, [] { return unset_sums(false) > 5 * 64 * 32 / 2; }) == 0);
    emulator_seed(1);
    run_fault(NO_FAULT);
    CHECK(dies([] { run_fault(WILD_STORE); }, "bad memory access at address 0xfc0"));
    CHECK(dies([] { run_fault(WILD_STORE); }, "(&config, fault_kernel, what, values.data"));
    CHECK(dies([] { run_fault(ENDLESS_RECURSION); }, "bad memory access"));
    CHECK(dies(
        [] {
            signal(SIGSEGV, [](int) { _exit(0); }); // as cmocka catches it
            run_fault(WILD_STORE);
        },
        "bad memory access"));
}
