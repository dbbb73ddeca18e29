// Streams, events, devices, errors: what is in order, what is not, and that it shows.
#include "check.h"
#include <thread>

static __global__ void add_kernel(float *out, const float *in, float value, int n)
{
    int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        out[i] = in[i] + value;
}

static cudaError_t add(cudaStream_t stream, float *out, const float *in, float value, int n)
{
    cudaLaunchConfig_t config = launch_config((n + 31) / 32, 32, 0, stream);
    return cudaLaunchKernelEx(&config, add_kernel, out, in, value, n);
}

static float *pinned(size_t n)
{
    void *memory = nullptr;
    CUDA_OK(cudaMallocHost(&memory, n * sizeof(float)));
    return static_cast<float *>(memory);
}

static cudaStream_t new_stream()
{
    cudaStream_t stream = nullptr;
    CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

constexpr int n = 256;

// Upload on one stream, compute on another, download.
static bool pipeline(bool with_event)
{
    cudaStream_t copies = new_stream(), compute = new_stream();
    cudaEvent_t uploaded;
    CUDA_OK(cudaEventCreateWithFlags(&uploaded, cudaEventDisableTiming));
    float *host = pinned(2 * n);
    device_array<float> x(n), y(n);
    for (int i = 0; i < n; i++)
        host[i] = float(i);
    CUDA_OK(cudaMemcpyAsync(x.data, host, n * 4, cudaMemcpyHostToDevice, copies));
    CUDA_OK(cudaEventRecord(uploaded, copies));
    if (with_event)
        CUDA_OK(cudaStreamWaitEvent(compute, uploaded, 0));
    CUDA_OK(add(compute, y.data, x.data, 1.0f, n));
    CUDA_OK(cudaMemcpyAsync(host + n, y.data, n * 4, cudaMemcpyDeviceToHost, compute));
    CUDA_OK(cudaStreamSynchronize(compute));
    bool right = true;
    for (int i = 0; i < n; i++)
        right &= host[n + i] == float(i + 1);
    CUDA_OK(cudaEventDestroy(uploaded));
    CUDA_OK(cudaStreamDestroy(copies));
    CUDA_OK(cudaStreamDestroy(compute));
    CUDA_OK(cudaFreeHost(host));
    return right;
}

// The source changes after the call: too early for pinned memory, not for pageable.
static bool reused_source(bool is_pinned, bool wait)
{
    cudaStream_t stream = new_stream();
    float *memory = pinned(n);
    std::vector<float> pageable(n);
    float *source = is_pinned ? memory : pageable.data();
    device_array<float> x(n);
    for (int i = 0; i < n; i++)
        source[i] = 1.0f;
    CUDA_OK(cudaMemcpyAsync(x.data, source, n * 4, cudaMemcpyHostToDevice, stream));
    if (wait)
        CUDA_OK(cudaStreamSynchronize(stream));
    source[n / 2] = 2.0f;
    CUDA_OK(cudaStreamSynchronize(stream));
    bool right = x.get()[n / 2] == 1.0f;
    CUDA_OK(cudaStreamDestroy(stream));
    CUDA_OK(cudaFreeHost(memory));
    return right;
}

// The result is read without waiting for the download.
static bool early_read(bool is_pinned)
{
    cudaStream_t stream = new_stream();
    float *memory = pinned(n);
    std::vector<float> pageable(n);
    float *target = is_pinned ? memory : pageable.data();
    device_array<float> x(std::vector<float>(n, 3.0f));
    target[0] = 0.0f;
    CUDA_OK(cudaMemcpyAsync(target, x.data, n * 4, cudaMemcpyDeviceToHost, stream));
    bool right = target[0] == 3.0f;
    CUDA_OK(cudaStreamSynchronize(stream));
    CHECK(target[0] == 3.0f);
    CUDA_OK(cudaStreamDestroy(stream));
    CUDA_OK(cudaFreeHost(memory));
    return right;
}

// Work on a blocking stream is in order with the default stream's, on a non-blocking one it is not.
static bool after_default(unsigned flags)
{
    cudaStream_t stream;
    CUDA_OK(cudaStreamCreateWithFlags(&stream, flags));
    device_array<float> x(std::vector<float>(n, 0.0f)), y(n);
    CUDA_OK(add(nullptr, x.data, x.data, 1.0f, n));
    CUDA_OK(add(stream, y.data, x.data, 1.0f, n));
    CUDA_OK(cudaStreamSynchronize(stream));
    bool right = y.get()[n - 1] == 2.0f;
    CUDA_OK(cudaStreamDestroy(stream));
    return right;
}

// Of cudaMemcpy from pageable memory and cudaMemset only the legacy stream sees the end: nothing on
// a non-blocking stream does by itself.
static bool after_upload(bool is_pinned, unsigned flags, bool wait)
{
    cudaStream_t stream;
    CUDA_OK(cudaStreamCreateWithFlags(&stream, flags));
    float *memory = pinned(n);
    std::vector<float> pageable(n, 1.0f);
    std::fill(memory, memory + n, 1.0f);
    device_array<float> x(std::vector<float>(n, 0.0f)), y(n);
    CUDA_OK(
        cudaMemcpy(x.data, is_pinned ? memory : pageable.data(), n * 4, cudaMemcpyHostToDevice));
    pageable.assign(n, 5.0f); // free for reuse all the same
    if (wait)
        CUDA_OK(cudaStreamSynchronize(nullptr));
    CUDA_OK(add(stream, y.data, x.data, 1.0f, n));
    CUDA_OK(cudaStreamSynchronize(stream));
    bool right = y.get()[0] == 2.0f;
    CHECK(x.get()[0] == 1.0f);
    CUDA_OK(cudaMemset(x.data, 0, n * 4));
    CUDA_OK(add(stream, y.data, x.data, 1.0f, n));
    CUDA_OK(cudaStreamSynchronize(stream));
    CHECK((y.get()[0] == 1.0f) == (flags == cudaStreamDefault));
    CUDA_OK(cudaStreamDestroy(stream));
    CUDA_OK(cudaFreeHost(memory));
    return right;
}

// Two OS threads, whose kernels run on the same fibers in turn.
static void test_threads()
{
    bool right[2] = {true, true};
    std::vector<std::thread> threads;
    for (bool &all_right : right)
        threads.emplace_back([&all_right] {
            for (int i = 0; i < 20; i++)
                all_right &= pipeline(true);
        });
    for (std::thread &thread : threads)
        thread.join();
    CHECK(right[0] && right[1]);
}

static void test_events()
{
    cudaStream_t stream = new_stream();
    cudaEvent_t start, end;
    CUDA_OK(cudaEventCreate(&start));
    CUDA_OK(cudaEventCreate(&end));
    device_array<float> x(std::vector<float>(n, 0.0f));
    CUDA_OK(cudaEventQuery(end)); // never recorded
    CUDA_OK(cudaEventRecord(start, stream));
    for (int i = 0; i < 40; i++)
        CUDA_OK(add(stream, x.data, x.data, 1.0f, n));
    CUDA_OK(cudaEventRecord(end, stream));
    float ms = -1.0f;
    CHECK(cudaEventElapsedTime(&ms, start, end) == cudaErrorNotReady);
    int polls = 0;
    while (cudaEventQuery(end) == cudaErrorNotReady)
        polls++;
    CHECK(polls > 0);
    CUDA_OK(cudaEventElapsedTime(&ms, start, end));
    CHECK(ms > 0.0f);
    CUDA_OK(cudaStreamQuery(stream));
    CHECK(x.get()[0] == 40.0f);
    CUDA_OK(cudaEventDestroy(start));
    CUDA_OK(cudaEventDestroy(end));
    CUDA_OK(cudaStreamDestroy(stream));
}

static void test_faults()
{
    void *memory;
    device_array<float> x(n);
    emulator_fail("cudaMalloc", 2, cudaErrorMemoryAllocation);
    CUDA_OK(cudaMalloc(&memory, 16));
    CUDA_OK(cudaFree(memory));
    CHECK(cudaMalloc(&memory, 16) == cudaErrorMemoryAllocation);
    CUDA_OK(cudaDeviceSynchronize());
    cudaGetLastError();
    emulator_fail("execute", 1, cudaErrorIllegalAddress); // reported where it is waited for
    CUDA_OK(add(nullptr, x.data, x.data, 1.0f, n));
    CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
    CHECK(cudaMalloc(&memory, 16) == cudaErrorIllegalAddress); // for ever
    CHECK(add(nullptr, x.data, x.data, 1.0f, n) == cudaErrorIllegalAddress);
    CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
    CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
    setenv("EMULATOR_FAIL", "cudaStreamSynchronize:1:719,cudaMalloc:1:2", 1);
    emulator_reset();
    CHECK(cudaMalloc(&memory, 16) == cudaErrorMemoryAllocation);
    CHECK(cudaStreamSynchronize(nullptr) == cudaErrorLaunchFailure);
    CHECK(emulator_calls("cudaMalloc") == 1);
    unsetenv("EMULATOR_FAIL");
    emulator_reset();
    CUDA_OK(cudaStreamSynchronize(nullptr));
}

static void test_devices()
{
    int count = -1, value = 0;
    cudaDeviceProp properties;
    setenv("EMULATOR_DEVICES", "0", 1);
    emulator_reset();
    CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice && count == 0);
    setenv("EMULATOR_DEVICES", "-1", 1);
    emulator_reset();
    CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
    setenv("EMULATOR_DEVICES", "2", 1);
    setenv("EMULATOR_CC", "8.6", 1);
    emulator_reset();
    CUDA_OK(cudaGetDeviceCount(&count));
    CHECK(count == 2 && cudaSetDevice(2) == cudaErrorInvalidDevice);
    CUDA_OK(cudaSetDevice(1));
    cudaStream_t stream = new_stream();
    CUDA_OK(cudaSetDevice(0));
    device_array<float> x(n);
    CHECK(add(stream, x.data, x.data, 1.0f, n) == cudaErrorInvalidResourceHandle);
    CUDA_OK(cudaStreamDestroy(stream));
    CUDA_OK(cudaGetDeviceProperties(&properties, 1));
    CHECK(!strcmp(properties.name, "Emulated GPU") &&
          properties.major * 10 + properties.minor == 86);
    CUDA_OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    CHECK(value == 99 << 10);
    CHECK(!strcmp(cudaGetErrorName(cudaErrorNoDevice), "cudaErrorNoDevice"));
    unsetenv("EMULATOR_DEVICES");
    unsetenv("EMULATOR_CC");
    emulator_reset();
}

// Copies and waits work from any device, but make a context where the thread is; launches do not.
static void test_current_device()
{
    setenv("EMULATOR_DEVICES", "3", 1);
    emulator_reset();
    int count;
    cudaDeviceProp properties;
    CUDA_OK(cudaGetDeviceCount(&count));
    CUDA_OK(cudaGetDeviceProperties(&properties, 1));
    CHECK(!emulator_has_context(0) && !emulator_has_context(1));
    CUDA_OK(cudaSetDevice(2));
    cudaStream_t stream = new_stream();
    {
        device_array<float> x(std::vector<float>(n, 1.0f));
        float *host = pinned(n);
        cudaGraph_t graph;
        cudaGraphExec_t executable;
        CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        CUDA_OK(add(stream, x.data, x.data, 1.0f, n));
        CUDA_OK(cudaStreamEndCapture(stream, &graph));
        CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
        CHECK(emulator_has_context(2) && !emulator_has_context(0));
        std::thread([&] {
            CHECK(cudaGraphLaunch(executable, stream) == cudaErrorInvalidResourceHandle);
            CUDA_OK(cudaMemcpyAsync(host, x.data, n * 4, cudaMemcpyDeviceToHost, stream));
            CUDA_OK(cudaStreamSynchronize(stream));
            CHECK(emulator_has_context(0) && host[0] == 1.0f);
            CUDA_OK(cudaSetDevice(2));
            CUDA_OK(cudaGraphLaunch(executable, stream));
            CUDA_OK(cudaStreamSynchronize(stream));
        }).join();
        CHECK(!emulator_has_context(1) && x.get()[0] == 2.0f);
        CUDA_OK(cudaGraphExecDestroy(executable));
        CUDA_OK(cudaGraphDestroy(graph));
        CUDA_OK(cudaFreeHost(host));
    }
    setenv("EMULATOR_ONLY_DEVICE", "2", 1);
    emulator_reset();
    CUDA_OK(cudaStreamSynchronize(stream));
    auto wait = [&] { std::thread([&] { cudaStreamSynchronize(stream); }).join(); };
    CHECK(dies(wait, "cudaStreamSynchronize makes a context on GPU 0"));
    CUDA_OK(cudaStreamDestroy(stream));
    unsetenv("EMULATOR_ONLY_DEVICE");
    unsetenv("EMULATOR_DEVICES");
    emulator_reset();
    CUDA_OK(cudaSetDevice(0));
}

void test_stream()
{
    CHECK(wrong_seeds(40, [] { return pipeline(true); }) == 0);
    CHECK(wrong_seeds(40, [] { return pipeline(false); }) > 2);
    CHECK(wrong_seeds(40, [] { return reused_source(true, true); }) == 0);
    CHECK(wrong_seeds(40, [] { return reused_source(true, false); }) > 2);
    CHECK(wrong_seeds(40, [] { return reused_source(false, false); }) == 0);
    CHECK(wrong_seeds(40, [] { return early_read(true); }) > 2);
    CHECK(wrong_seeds(40, [] { return early_read(false); }) == 0);
    CHECK(wrong_seeds(40, [] { return after_default(cudaStreamDefault); }) == 0);
    CHECK(wrong_seeds(40, [] { return after_default(cudaStreamNonBlocking); }) > 2);
    CHECK(wrong_seeds(40, [] { return after_upload(false, cudaStreamNonBlocking, false); }) == 40);
    CHECK(wrong_seeds(40, [] { return after_upload(false, cudaStreamNonBlocking, true); }) == 0);
    CHECK(wrong_seeds(40, [] { return after_upload(false, cudaStreamDefault, false); }) == 0);
    CHECK(wrong_seeds(40, [] { return after_upload(true, cudaStreamNonBlocking, false); }) == 0);
    emulator_seed(1);
    test_threads();
    test_events();
    test_faults();
    test_devices();
    test_current_device();
}
