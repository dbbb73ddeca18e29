// Kernel launches and the attributes of kernels.
#include "trace.h"

namespace emulator
{

// By kernel, where cudaFuncSetAttribute has set it.
static std::map<const void *, int> shared_limits;

// The blocks that are run: all of the grid, or its first and last ones.
static uint64_t blocks_to_run(dim3 grid)
{
    uint64_t all = uint64_t(grid.x) * grid.y * grid.z, ends = current_settings().blocks;
    return ends && ends < (all + 1) / 2 ? 2 * ends : all;
}

static std::shared_ptr<block> block_of(const kernel &launched, uint64_t i)
{
    dim3 grid = launched.grid;
    uint64_t all = uint64_t(grid.x) * grid.y * grid.z, run = blocks_to_run(grid);
    if (i >= run / 2)
        i += all - run;
    return start_block(launched, {unsigned(i % grid.x), unsigned(i / grid.x % grid.y),
                                  unsigned(i / grid.x / grid.y)});
}

static void draw_order(const kernel &launched, progress &at)
{
    if (at.order.empty())
        shuffle_order(at.order, blocks_to_run(launched.grid));
}

// Some blocks, one at least, get as far as their grid_wait(), and see the memory as it is before
// the next step of the work that the kernel overlaps. Hardware lets them start when all blocks of a
// kernel have called grid_launch_dependents() or exited; here that is taken for done at any time,
// because the former may come at any time and the latter makes nothing visible.
static bool begin_kernel(const kernel &launched, progress &at)
{
    constexpr size_t most = 4; // enough to show; each keeps a stack per thread
    draw_order(launched, at);
    size_t room = std::min(most, at.order.size()) - at.early.size();
    size_t count = at.early.empty() ? 1 + random_below(room) : random_below(room + 1);
    for (; count; count--) {
        at.early.push_back(block_of(launched, at.order[at.early.size()]));
        run_block(*at.early.back(), true);
    }
    for (const std::shared_ptr<block> &early : at.early)
        if (!lets_dependents_start(*early))
            return false;
    return true;
}

static bool run_kernel(const kernel &launched, progress &at)
{
    draw_order(launched, at);
    size_t blocks = at.order.size();
    size_t end = at.position + 1 + random_below(blocks - at.position);
    for (; at.position < end; at.position++) {
        bool is_early = at.position < at.early.size();
        run_block(is_early ? *at.early[at.position] : *block_of(launched, at.order[at.position]),
                  false);
        if (is_early)
            at.early[at.position] = nullptr;
    }
    return at.position == blocks;
}

static cudaError_t check_launch(const cudaLaunchConfig_t &c, const void *function, bool *overlaps)
{
    uint64_t threads = uint64_t(c.blockDim.x) * c.blockDim.y * c.blockDim.z;
    if (threads == 0 || threads > 1024 || c.blockDim.z > 64)
        return cudaErrorInvalidConfiguration;
    if (!c.gridDim.x || !c.gridDim.y || !c.gridDim.z || c.gridDim.x > 0x7fffffff ||
        c.gridDim.y > 65535 || c.gridDim.z > 65535)
        return cudaErrorInvalidConfiguration;
    auto limit = shared_limits.find(function);
    if (c.dynamicSmemBytes > size_t(limit == shared_limits.end() ? 48 << 10 : limit->second))
        return cudaErrorInvalidValue;
    for (unsigned i = 0; i < c.numAttrs; i++)
        if (c.attrs[i].id == cudaLaunchAttributeProgrammaticStreamSerialization)
            *overlaps |= c.attrs[i].val.programmaticStreamSerializationAllowed != 0;
        else if (c.attrs[i].id != cudaLaunchAttributePriority)
            return cudaErrorNotSupported;
    return cudaSuccess;
}

cudaError_t launch_kernel(const cudaLaunchConfig_t *config, size_t argument_bytes,
                          kernel &&launched)
{
    return call("cudaLaunchKernelEx", [&] {
        if (argument_bytes > 32764)
            return cudaErrorInvalidValue;
        cudaError_t error = check_launch(*config, launched.function, &launched.overlaps);
        if (error == cudaSuccess)
            error = check_stream(config->stream);
        if (error == cudaSuccess && resolve(config->stream)->device != current_device())
            error = cudaErrorInvalidResourceHandle;
        if (error != cudaSuccess)
            return error;
        launched.grid = config->gridDim;
        launched.block = config->blockDim;
        launched.shared_bytes = config->dynamicSmemBytes;
        auto shared = std::make_shared<const kernel>(std::move(launched));
        auto step = [shared](progress &at) {
            return trace_kernel(*shared, [&] { return run_kernel(*shared, at); });
        };
        work run(step, true);
        if (shared->overlaps && !tracing())
            run.begin = [shared](progress &at) { return begin_kernel(*shared, at); };
        return enqueue(config->stream, std::move(run));
    });
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute which, int value)
{
    int limit;
    cudaError_t error =
        cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, current_device());
    if (error != cudaSuccess)
        return error;
    return call(__func__, [&] {
        if (which == cudaFuncAttributePreferredSharedMemoryCarveout)
            return cudaSuccess;
        if (which != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > limit)
            return cudaErrorInvalidValue;
        shared_limits[function] = value;
        return cudaSuccess;
    });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *function)
{
    return call(__func__, [&] {
        *attributes = {};
        attributes->maxThreadsPerBlock = 1024;
        attributes->numRegs = 32;
        attributes->binaryVersion = attributes->ptxVersion = current_settings().capability;
        auto limit = shared_limits.find(function);
        attributes->maxDynamicSharedSizeBytes =
            limit == shared_limits.end() ? 48 << 10 : limit->second;
        return cudaSuccess;
    });
}
