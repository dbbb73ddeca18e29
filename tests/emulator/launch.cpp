// Kernel launches and the attributes of kernels.
#include "device.h"

namespace emulator
{

// By kernel, where cudaFuncSetAttribute has set it.
static std::map<const void *, int> shared_limits;

static bool run_kernel(const kernel &launched, progress &at)
{
    size_t blocks = size_t(launched.grid.x) * launched.grid.y * launched.grid.z;
    if (at.position == 0)
        shuffle_order(at.order, blocks);
    size_t end = at.position + 1 + random_below(blocks - at.position);
    for (; at.position < end; at.position++) {
        unsigned i = at.order[at.position];
        dim3 grid = launched.grid;
        run_block(launched, {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y});
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

cudaError_t launch_kernel(const cudaLaunchConfig_t *config, const void *function,
                          size_t argument_bytes, kernel &&launched)
{
    return call("cudaLaunchKernelEx", [&] {
        if (argument_bytes > 32764)
            return cudaErrorInvalidValue;
        cudaError_t error = check_launch(*config, function, &launched.overlaps);
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
        return enqueue(config->stream, [shared](progress &at) { return run_kernel(*shared, at); });
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
