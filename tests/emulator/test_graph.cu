// Stream capture and the replay of graphs.
#include "check.h"

static __global__ void axpy_kernel(float *y, const float *x, float a, int n)
{
    int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        y[i] += a * x[i];
}

static cudaError_t axpy(cudaStream_t stream, float *y, const float *x, float a, int n)
{
    cudaLaunchConfig_t config = launch_config((n + 31) / 32, 32, 0, stream);
    return cudaLaunchKernelEx(&config, axpy_kernel, y, x, a, n);
}

constexpr int n = 100;

struct setup {
    cudaStream_t main, side;
    cudaEvent_t forked, joined;
    device_array<float> x, y, z;
    setup() : x(std::vector<float>(n, 1.0f)), y(std::vector<float>(n, 0.0f)), z(n)
    {
        CUDA_OK(cudaStreamCreateWithFlags(&main, cudaStreamNonBlocking));
        CUDA_OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
        CUDA_OK(cudaEventCreateWithFlags(&forked, cudaEventDisableTiming));
        CUDA_OK(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming));
    }
    ~setup()
    {
        CUDA_OK(cudaStreamDestroy(main));
        CUDA_OK(cudaStreamDestroy(side));
        CUDA_OK(cudaEventDestroy(forked));
        CUDA_OK(cudaEventDestroy(joined));
        cudaGetLastError();
    }
};

// z = 0 on the side while y += x, then y += 10 z + x... the side's part only when it is awaited.
static cudaError_t capture(setup &s, bool wait, bool join, cudaGraph_t *graph)
{
    float factor = 10.0f;
    CUDA_OK(cudaStreamBeginCapture(s.main, cudaStreamCaptureModeThreadLocal));
    CUDA_OK(cudaEventRecord(s.forked, s.main));
    CUDA_OK(cudaStreamWaitEvent(s.side, s.forked, 0));
    CUDA_OK(cudaMemsetAsync(s.z.data, 0, n * sizeof(float), s.side));
    CUDA_OK(axpy(s.side, s.z.data, s.x.data, 2.0f, n));
    CUDA_OK(cudaEventRecord(s.joined, s.side));
    CUDA_OK(axpy(s.main, s.y.data, s.x.data, 1.0f, n));
    if (wait)
        CUDA_OK(cudaStreamWaitEvent(s.main, s.joined, 0));
    CUDA_OK(axpy(s.main, s.y.data, s.z.data, factor, n));
    factor = 0.0f; // captured by value
    if (join)
        CUDA_OK(cudaStreamWaitEvent(s.main, s.joined, 0));
    return cudaStreamEndCapture(s.main, graph);
}

static bool replays(bool wait)
{
    setup s;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CUDA_OK(capture(s, wait, true, &graph));
    CHECK(s.y.get()[0] == 0.0f); // nothing has run yet
    size_t nodes = 0;
    CUDA_OK(cudaGraphGetNodes(graph, nullptr, &nodes));
    CHECK(nodes == 4);
    CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
    CUDA_OK(cudaGraphDestroy(graph));
    CUDA_OK(cudaGraphLaunch(executable, s.main));
    CUDA_OK(cudaStreamSynchronize(s.main));
    bool right = s.y.get()[n - 1] == 1.0f + 10.0f * 2.0f;
    std::vector<float> other(n, 3.0f);
    CUDA_OK(cudaMemcpy(s.x.data, other.data(), n * sizeof(float), cudaMemcpyHostToDevice));
    CUDA_OK(cudaStreamSynchronize(nullptr));
    CUDA_OK(cudaGraphLaunch(executable, s.main));
    CUDA_OK(cudaGraphLaunch(executable, s.side)); // of one graph: in order all the same
    CUDA_OK(cudaGraphExecDestroy(executable));
    CUDA_OK(cudaDeviceSynchronize());
    return right && s.y.get()[0] == 21.0f + 2 * (3.0f + 10.0f * 6.0f);
}

static void test_illegal()
{
    setup s;
    cudaGraph_t graph;
    void *memory;
    CHECK(capture(s, false, false, &graph) == cudaErrorStreamCaptureUnjoined && !graph);
    CUDA_OK(cudaStreamBeginCapture(s.main, cudaStreamCaptureModeGlobal));
    CHECK(cudaMalloc(&memory, 16) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(s.main, &graph) == cudaErrorStreamCaptureInvalidated);
    CUDA_OK(cudaStreamBeginCapture(s.main, cudaStreamCaptureModeRelaxed));
    CUDA_OK(cudaMalloc(&memory, 16));
    CUDA_OK(cudaFree(memory));
    CHECK(cudaStreamSynchronize(s.main) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(s.main, &graph) == cudaErrorStreamCaptureInvalidated);
    CUDA_OK(cudaStreamBeginCapture(s.main, cudaStreamCaptureModeGlobal));
    CUDA_OK(cudaEventRecord(s.forked, s.side)); // outside the capture
    CHECK(cudaStreamWaitEvent(s.main, s.forked, 0) == cudaErrorStreamCaptureIsolation);
    CHECK(cudaStreamEndCapture(s.main, &graph) == cudaErrorStreamCaptureInvalidated);
    CUDA_OK(cudaStreamBeginCapture(s.main, cudaStreamCaptureModeGlobal));
    CUDA_OK(cudaEventRecord(s.forked, s.main));
    CHECK(cudaEventSynchronize(s.forked) == cudaErrorCapturedEvent);
    CHECK(cudaStreamEndCapture(s.side, &graph) == cudaErrorIllegalState);
    CUDA_OK(cudaStreamEndCapture(s.main, &graph));
    CUDA_OK(cudaGraphDestroy(graph));
    CUDA_OK(cudaStreamSynchronize(s.main));
    cudaGetLastError();
}

void test_graph()
{
    CHECK(wrong_seeds(20, [] { return replays(true); }) == 0);
    CHECK(wrong_seeds(20, [] { return replays(false); }) > 2);
    emulator_seed(1);
    test_illegal();
}
