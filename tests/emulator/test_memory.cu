// Memory on the device: what it holds at first, copies and fills, and its bounds.
#include "check.h"
#include <cmath>

static void test_calls()
{
    void *memory;
    size_t free_bytes, total_bytes;
    CUDA_OK(cudaMemGetInfo(&free_bytes, &total_bytes));
    CHECK(cudaMalloc(&memory, free_bytes + 1) == cudaErrorMemoryAllocation && !memory);
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
    device_array<float> x(10);
    CHECK(std::isnan(x.get()[9]));
    CHECK(reinterpret_cast<uintptr_t>(x.data) % 256 == 0);
    std::vector<float> host(11);
    CHECK(cudaMemcpy(x.data, host.data(), 44, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(x.data, host.data(), 40, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    CHECK(cudaFree(host.data()) == cudaErrorInvalidValue);
    CUDA_OK(cudaMemset(x.data, 0, 40));
    CHECK(x.get()[9] == 0.0f);
    // A column of (5, 2) into a row.
    device_array<float> y(std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    CUDA_OK(cudaMemcpy2DAsync(x.data, 4, y.data + 1, 8, 4, 5, cudaMemcpyDeviceToDevice, nullptr));
    CHECK(x.get()[0] == 1 && x.get()[4] == 9 && x.get()[5] == 0);
    cudaGetLastError();
    if (under_asan) {
        CHECK(dies([&] { x.data[0] = 1.0f; }, "use-after-poison"));
        CHECK(dies([&] { cudaMemcpy(x.data, host.data() + 2, 40, cudaMemcpyHostToDevice); },
                   "heap-buffer-overflow"));
    }
}

static __global__ void touch_kernel(char *at, bool write)
{
    volatile char *byte = at;
    char seen = *byte;
    if (write)
        *byte = char(seen + 1);
}

static void touch(char *at, bool write)
{
    cudaLaunchConfig_t config = launch_config(1, 1);
    CUDA_OK(cudaLaunchKernelEx(&config, touch_kernel, at, write));
    CUDA_OK(cudaDeviceSynchronize());
}

// Past either end there is a page out of bounds or, for up to 255 bytes, what must stay NaN.
static void test_bounds()
{
    char *nan, *whole, *huge;
    CUDA_OK(cudaMalloc(reinterpret_cast<void **>(&nan), 1000));
    CUDA_OK(cudaMalloc(reinterpret_cast<void **>(&whole), 1024));
    for (char *at : {whole, whole + 1023, nan, nan + 999})
        touch(at, true);
    CHECK(dies([=] { touch(whole - 4096, false); }, ""));
    CHECK(dies([=] { touch(whole + 1024, false); }, ""));
    CHECK(dies([=] { touch(nan + 1000, true); },
               under_asan ? "use-after-poison" : "1 bytes past the end of 1000 bytes"));
    CHECK(dies([=] { touch(nan + 1023, true); },
               under_asan ? "use-after-poison" : "24 bytes past the end of 1000 bytes"));
    CUDA_OK(cudaFree(nan));
    CUDA_OK(cudaFree(whole));
    const size_t bytes = size_t(40) << 30; // of which hardly any are ever touched
    setenv("EMULATOR_MEMORY_MB", "65536", 1);
    emulator_reset();
    CUDA_OK(cudaMalloc(reinterpret_cast<void **>(&huge), bytes));
    touch(huge, true);
    touch(huge + bytes - 1, true);
    CUDA_OK(cudaFree(huge));
    unsetenv("EMULATOR_MEMORY_MB");
    emulator_reset();
}

void test_memory()
{
    test_calls();
    test_bounds();
}
