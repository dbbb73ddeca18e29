// Copies and fills. Pinned memory is read and written when the copy's turn comes; pageable memory
// as documented: as a source it is staged before the call returns, as a target the call waits.
//
// cudaMemcpy from pageable memory and cudaMemset return before they have written to the device.
// Only what the legacy stream orders comes after that, and here everything else comes before.
#include "trace.h"

namespace emulator
{

struct transfer {
    char *to;
    const char *from;
    size_t to_pitch, from_pitch, width, height;
};

// From the first to the last byte touched.
static size_t extent(size_t pitch, const transfer &t)
{
    return t.height ? pitch * (t.height - 1) + t.width : 0;
}

static bool run_transfer(const transfer &t)
{
    trace_copy(t.to, t.from, t.width * t.height);
    for (size_t row = 0; row < t.height; row++)
        memmove(t.to + row * t.to_pitch, t.from + row * t.from_pitch, t.width);
    return true;
}

enum class where { device, pinned, pageable };

static where whereabouts(const void *p)
{
    const allocation *a = find_allocation(p, 1);
    return !a ? where::pageable : a->device >= 0 ? where::device : where::pinned;
}

// Whether the addresses are where the kind says, and the allocations large enough.
static bool fits(const transfer &t, cudaMemcpyKind kind)
{
    bool to_device = whereabouts(t.to) == where::device;
    bool from_device = whereabouts(t.from) == where::device;
    if (kind != cudaMemcpyDefault &&
        (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) ||
         from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice)))
        return false;
    return (whereabouts(t.to) == where::pageable || find_allocation(t.to, extent(t.to_pitch, t))) &&
           (whereabouts(t.from) == where::pageable ||
            find_allocation(t.from, extent(t.from_pitch, t)));
}

static cudaError_t copy_async(const transfer &t, cudaMemcpyKind kind, cudaStream_t stream,
                              bool late = false)
{
    if (t.width == 0 || t.height == 0)
        return check_stream(stream);
    if (t.width > t.to_pitch || t.width > t.from_pitch || !fits(t, kind))
        return cudaErrorInvalidValue;
    cudaError_t error = check_stream(stream);
    if (error != cudaSuccess)
        return error;
    bool captured = resolve(stream)->captured != nullptr;
    if (whereabouts(t.from) == where::pageable && !captured) {
        auto staged = std::make_shared<std::vector<char>>(t.from, t.from + extent(t.from_pitch, t));
        transfer from_staged = t;
        from_staged.from = staged->data();
        auto run = [from_staged, staged](progress &) { return run_transfer(from_staged); };
        return enqueue(stream, run, nullptr, late);
    }
    operation_ref enqueued;
    error = enqueue(
        stream, [t](progress &) { return run_transfer(t); }, &enqueued);
    if (whereabouts(t.to) == where::pageable && !captured)
        wait_for(enqueued);
    return error;
}

static cudaError_t fill_async(void *memory, int value, size_t bytes, cudaStream_t stream,
                              bool late = false)
{
    if (!in_device_memory(memory, bytes))
        return cudaErrorInvalidValue;
    auto run = [=](progress &) {
        if (trace_fill(bytes))
            fill(memory, value, bytes);
        return true;
    };
    return enqueue(stream, run, nullptr, late);
}

static cudaError_t wait_for_legacy(cudaError_t error)
{
    if (error == cudaSuccess) {
        wait_for(resolve(nullptr)->last);
        error = device_error(resolve(nullptr)->device);
    }
    return error;
}

static cudaError_t copy(const transfer &t, cudaMemcpyKind kind)
{
    cudaError_t error = wait_for_legacy(check_stream(nullptr));
    if (error == cudaSuccess)
        error = copy_async(t, kind, nullptr, true);
    bool staged = whereabouts(t.from) == where::pageable && whereabouts(t.to) == where::device;
    return staged ? error : wait_for_legacy(error);
}

static transfer flat(void *to, const void *from, size_t bytes)
{
    return {static_cast<char *>(to), static_cast<const char *>(from), bytes, bytes, bytes, 1};
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return call(__func__, [&] { return copy_async(flat(to, from, bytes), kind, stream); });
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    return call(__func__, [&] {
        transfer t = {static_cast<char *>(to),
                      static_cast<const char *>(from),
                      to_pitch,
                      from_pitch,
                      width,
                      height};
        return copy_async(t, kind, stream);
    });
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    return call(__func__, [&] { return copy(flat(to, from, bytes), kind); });
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    return call(__func__, [&] { return fill_async(memory, value, bytes, stream); });
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    return call(__func__, [&] { return fill_async(memory, value, bytes, nullptr, true); });
}
