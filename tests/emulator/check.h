#pragma once
// What the emulator's tests share: checks that always count, tests of what must not survive, and
// arrays on the device.
#include "emulator.h"
#include "sanitizer.h"
#include <functional>
#include <string>
#include <vector>

#define CHECK(condition) check_that((condition), #condition, __FILE__, __LINE__)
#define CUDA_OK(call)    check_that((call) == cudaSuccess, #call, __FILE__, __LINE__)

// Prints what does not hold and makes the program fail; returns the condition.
bool check_that(bool condition, const char *text, const char *file, int line);
// Runs the body in a child, which must die with `message` on stderr.
bool dies(const std::function<void()> &body, const char *message);
// For how many of the seeds 1..n the body returns false.
int wrong_seeds(int n, const std::function<bool()> &body);
// Runs the body on a machine with this setting, the rest of the program without it.
void with_environment(const char *name, const char *value, const std::function<void()> &body);
constexpr bool under_asan = EMULATOR_ASAN;
#ifdef EMULATOR_HOOKS
constexpr bool finds_races = true; // by plain loads and stores
#else
constexpr bool finds_races = false;
#endif

template <class T> struct device_array {
    T *data = nullptr;
    size_t count;
    explicit device_array(size_t n) : count(n)
    {
        CUDA_OK(cudaMalloc(reinterpret_cast<void **>(&data), n * sizeof(T)));
    }
    explicit device_array(const std::vector<T> &values) : device_array(values.size())
    {
        CUDA_OK(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice));
        CUDA_OK(cudaStreamSynchronize(nullptr)); // other streams are not ordered after that copy
    }
    device_array(const device_array &) = delete;
    ~device_array()
    {
        CUDA_OK(cudaFree(data));
    }
    std::vector<T> get() const
    {
        std::vector<T> values(count);
        CUDA_OK(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
        return values;
    }
};

cudaLaunchConfig_t launch_config(dim3 grid, dim3 block, size_t shared_bytes = 0,
                                 cudaStream_t stream = nullptr);

void test_block();
void test_race();
void test_ptx();
void test_overlap();
void test_stream();
void test_graph();
void test_cublaslt();
void test_heuristic();
void test_memory();
