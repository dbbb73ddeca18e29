// How kernels are run: ahead of the one before, in part, and twice alike by the same seed.
#include "check.h"

enum early { WAIT_FIRST, READ_EARLY, WRITE_EARLY, WAIT_LAST };

constexpr int blocks = 6, threads = 64, n = blocks * threads;

static __global__ void add_kernel(int *out, const int *in)
{
    int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    out[i] = in[i] + 1;
}

// The next kernel: z = y + 1, and x = 100, where the one before is y = x + 1.
static __global__ void next_kernel(early what, bool trigger, int *z, int *x, const int *y)
{
    __shared__ int kept[threads];
    int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    kept[threadIdx.x] = i;
    if (trigger)
        grid_launch_dependents();
    if (what == WAIT_FIRST || what == WRITE_EARLY) {
        if (what == WRITE_EARLY)
            x[i] = 100;
        grid_wait();
    }
    int value = y[i] + 1;
    if (what == READ_EARLY)
        grid_wait();
    z[kept[threadIdx.x]] = value;
    x[i] = 100;
    if (what == WAIT_LAST)
        grid_wait();
}

static cudaLaunchConfig_t overlapping(cudaStream_t stream)
{
    static cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = launch_config(blocks, threads, 0, stream);
    config.attrs = &overlap;
    config.numAttrs = 1;
    return config;
}

struct chain {
    cudaStream_t stream;
    device_array<int> x, y, z, w;
    chain()
        : x(std::vector<int>(n, 1)), y(std::vector<int>(n, -1)), z(std::vector<int>(n, -1)),
          w(std::vector<int>(n, -1))
    {
        CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    }
    ~chain()
    {
        CUDA_OK(cudaStreamDestroy(stream));
    }
    void before()
    {
        cudaLaunchConfig_t config = launch_config(blocks, threads, 0, stream);
        CUDA_OK(cudaLaunchKernelEx(&config, add_kernel, y.data, x.data));
    }
    void next(early what, bool trigger, device_array<int> &out, const device_array<int> &in)
    {
        cudaLaunchConfig_t config = overlapping(stream);
        CUDA_OK(cudaLaunchKernelEx(&config, next_kernel, what, trigger, out.data, x.data, in.data));
    }
    bool is(const device_array<int> &array, int value)
    {
        CUDA_OK(cudaStreamSynchronize(stream));
        return array.get() == std::vector<int>(n, value);
    }
};

static bool overlaps(early what)
{
    chain c;
    c.before();
    c.next(what, false, c.z, c.y);
    return c.is(c.y, 2) && c.is(c.z, 3);
}

static bool overlaps_in_graph(early what)
{
    chain c;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CUDA_OK(cudaStreamBeginCapture(c.stream, cudaStreamCaptureModeThreadLocal));
    c.before();
    c.next(what, false, c.z, c.y);
    CUDA_OK(cudaStreamEndCapture(c.stream, &graph));
    CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
    CUDA_OK(cudaGraphLaunch(executable, c.stream));
    bool right = c.is(c.y, 2) && c.is(c.z, 3);
    CUDA_OK(cudaGraphExecDestroy(executable));
    CUDA_OK(cudaGraphDestroy(graph));
    return right;
}

// What is not a kernel is not overlapped.
static bool overlaps_fill(early what)
{
    chain c;
    CUDA_OK(cudaMemsetAsync(c.y.data, 0, n * sizeof(int), c.stream));
    c.next(what, false, c.z, c.y);
    return c.is(c.z, 1);
}

// The third kernel reads what the first has written. It starts early only if the second says so.
static bool overlaps_two(bool trigger)
{
    chain c;
    c.before();
    c.next(WAIT_FIRST, trigger, c.z, c.y);
    c.next(READ_EARLY, false, c.w, c.y);
    return c.is(c.z, 3) && c.is(c.w, 3);
}

static void test_overlaps()
{
    CHECK(wrong_seeds(20, [] { return overlaps(WAIT_FIRST); }) == 0);
    CHECK(wrong_seeds(20, [] { return overlaps_in_graph(WAIT_FIRST); }) == 0);
    for (early what : {READ_EARLY, WRITE_EARLY, WAIT_LAST}) {
        CHECK(wrong_seeds(20, [=] { return overlaps(what); }) >
              15); // if not done before the launch
        CHECK(wrong_seeds(20, [=] { return overlaps_in_graph(what); }) == 20);
        CHECK(wrong_seeds(20, [=] { return overlaps_fill(what); }) == 0);
    }
    CHECK(wrong_seeds(20, [] { return overlaps_two(false); }) == 0);
    CHECK(wrong_seeds(20, [] { return overlaps_two(true); }) > 10);
    emulator_seed(1);
    CHECK(dies(
        [] {
            chain c;
            cudaLaunchConfig_t config = overlapping(c.stream);
            cudaLaunchKernelEx(&config, add_kernel, c.y.data, c.x.data);
            cudaStreamSynchronize(c.stream);
        },
        "never calls grid_wait()"));
}

// -- a part of the blocks -------------------------------------------------------------------------

static __global__ void log_kernel(unsigned *log)
{
    unsigned entry = atomicAdd(log, 1u) + 1;
    log[entry] = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
}

static std::vector<unsigned> blocks_run(dim3 grid)
{
    device_array<unsigned> log(std::vector<unsigned>(20, 0));
    cudaLaunchConfig_t config = launch_config(grid, 1);
    CUDA_OK(cudaLaunchKernelEx(&config, log_kernel, log.data));
    std::vector<unsigned> run = log.get();
    run.assign(run.begin() + 1, run.begin() + 1 + run[0]);
    std::sort(run.begin(), run.end());
    return run;
}

static void test_blocks()
{
    with_environment("EMULATOR_BLOCKS", "2", [] {
        using numbers = std::vector<unsigned>;
        CHECK(blocks_run(1000) == (numbers{0, 1, 998, 999}));
        CHECK(blocks_run(dim3(1 << 20, 60, 65)) == (numbers{0, 1, 4089446398, 4089446399}));
        CHECK(blocks_run(5) == (numbers{0, 1, 3, 4}));
        CHECK(blocks_run(4).size() == 4 && blocks_run(3).size() == 3 && blocks_run(1).size() == 1);
    });
    CHECK(blocks_run(12).size() == 12);
}

// -- the same seed, the same run ------------------------------------------------------------------

struct history {
    std::vector<unsigned> log;
    float ms;
};

static history run_two_streams(cudaStream_t a, cudaStream_t b)
{
    device_array<unsigned> log(std::vector<unsigned>(40, 0));
    cudaEvent_t start, end;
    CUDA_OK(cudaEventCreate(&start));
    CUDA_OK(cudaEventCreate(&end));
    emulator_seed(3);
    CUDA_OK(cudaEventRecord(start, a));
    for (int i = 0; i < 2; i++)
        for (cudaStream_t stream : {a, b}) {
            cudaLaunchConfig_t config = launch_config(8, 1, 0, stream);
            CUDA_OK(cudaLaunchKernelEx(&config, log_kernel, log.data));
        }
    CUDA_OK(cudaEventRecord(end, a));
    CUDA_OK(cudaDeviceSynchronize());
    history run = {log.get(), 0.0f};
    CUDA_OK(cudaEventElapsedTime(&run.ms, start, end));
    CUDA_OK(cudaEventDestroy(start));
    CUDA_OK(cudaEventDestroy(end));
    return run;
}

static void test_same_seed()
{
    cudaStream_t streams[8];
    history runs[4];
    for (cudaStream_t &stream : streams)
        CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int i = 0; i < 4; i++) {
        runs[i] = run_two_streams(streams[0], streams[1]);
        CHECK(runs[i].log == runs[0].log && runs[i].ms == runs[0].ms && runs[i].ms > 0.0f);
        // The next two lie elsewhere: mostly where the first and the last of these did.
        CUDA_OK(cudaStreamDestroy(streams[0]));
        CUDA_OK(cudaStreamDestroy(streams[7 - i]));
        std::copy(streams + 1, streams + 7 - i, streams);
        CUDA_OK(cudaStreamCreateWithFlags(&streams[6 - i], cudaStreamNonBlocking));
    }
    for (int i = 0; i < 4; i++)
        CUDA_OK(cudaStreamDestroy(streams[i]));
}

void test_overlap()
{
    test_overlaps();
    test_blocks();
    test_same_seed();
}
