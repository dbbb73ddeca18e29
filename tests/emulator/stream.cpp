// Streams: queues of work, and who runs next.
//
// DESIGN. Enqueuing only enqueues. Work runs when somebody waits, and now and then at an enqueue or
// a query: each time one stream, drawn at random among those whose first operation may run, does
// one step of it. So whatever the program has not ordered, by stream or event, happens in any order
// and a kernel's blocks interleave with the work of other streams. Late work comes last of all.
// Work is done on the caller's thread, under the emulator's mutex.
//
// The device has a clock of its own, so that what a program decides by measured times is a function
// of the seed too. (Between OS threads the order is the system's: their runs are not repeatable.)
#include "crash.h"
#include "device.h"

namespace emulator
{

static std::vector<cudaStream_t> streams; // in the order of creation: addresses would be a chance
static std::chrono::steady_clock::time_point now_on_device;

// The legacy default stream of each device.
static cudaStream_t default_stream(int device)
{
    static std::map<int, CUstream_st> defaults;
    cudaStream_t stream = &defaults[device];
    stream->device = device;
    return stream;
}

cudaStream_t resolve(cudaStream_t stream)
{
    return !stream || stream == cudaStreamLegacy ? default_stream(current_device()) : stream;
}

cudaError_t check_stream(cudaStream_t stream)
{
    if (!stream || stream == cudaStreamLegacy)
        return legacy_stream_forbidden() ? cudaErrorStreamCaptureImplicit : cudaSuccess;
    bool known = std::find(streams.begin(), streams.end(), stream) != streams.end();
    bool usable = known && !stream->destroyed;
    return usable ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

// The default stream waits for the blocking streams and they for it.
static void order_with_default(cudaStream_t stream, operation &added)
{
    cudaStream_t main = default_stream(stream->device);
    if (stream != main) {
        if (!(stream->flags & cudaStreamNonBlocking) && main->last)
            added.after.push_back(main->last);
        return;
    }
    for (cudaStream_t other : streams)
        if (other->device == main->device && !(other->flags & cudaStreamNonBlocking) && other->last)
            added.after.push_back(other->last);
}

void append(cudaStream_t stream, const operation_ref &added)
{
    order_with_default(stream, *added);
    stream->queue.push_back(added);
    stream->last = added;
    if (one_in(8))
        for (uint64_t steps = random_below(5); steps && step_one(false);)
            steps--;
}

cudaError_t enqueue(cudaStream_t stream, work run, operation_ref *enqueued, bool late)
{
    cudaError_t error = check_stream(stream);
    if (error != cudaSuccess)
        return error;
    stream = resolve(stream);
    if (stream->captured) {
        capture_add(stream, std::move(run));
        return cudaSuccess;
    }
    operation_ref added = std::make_shared<operation>();
    added->run = std::move(run);
    added->late = late;
    append(stream, added);
    if (enqueued)
        *enqueued = added;
    return cudaSuccess;
}

static bool may_run(const operation &next)
{
    for (const operation_ref &before : next.after)
        if (!before->done)
            return false;
    return true;
}

static bool may_run(cudaStream_t stream, bool late)
{
    const std::deque<operation_ref> &queue = stream->queue;
    return !queue.empty() && queue.front()->late == late && may_run(*queue.front());
}

// Kernels launched to overlap begin while the work before them runs.
static void begin_dependents(const std::deque<operation_ref> &queue)
{
    constexpr size_t most = 4; // of a long row of kernels that all let the next one start
    for (size_t i = 1; i < std::min(most, queue.size()); i++) {
        operation &next = *queue[i];
        if (!queue[i - 1]->run.is_kernel || !next.run.begin || !may_run(next) ||
            !next.run.begin(next.at))
            return;
    }
}

static void run_step(cudaStream_t stream)
{
    operation_ref now = stream->queue.front();
    bool done = true; // a lost device does nothing more
    now_on_device += std::chrono::nanoseconds(1000 + random_below(1000));
    if (device_error(stream->device) == cudaSuccess) {
        open_device(stream->device);
        crash_reports reported;
        begin_dependents(stream->queue);
        done = now->run(now->at);
    }
    if (!done)
        return;
    check_gaps(stream->device);
    cudaError_t error = static_cast<cudaError_t>(fault("execute"));
    if (error != cudaSuccess)
        lose_device(stream->device, error);
    now->done = true;
    now->done_at = now_on_device;
    now->after.clear();
    now->run = {};
    now->at = {};
    stream->queue.pop_front();
}

static void remove(cudaStream_t stream)
{
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
}

static std::vector<cudaStream_t> ready_streams(bool late)
{
    std::vector<cudaStream_t> ready;
    for (int device = 0; device < current_settings().devices; device++)
        if (may_run(default_stream(device), late))
            ready.push_back(default_stream(device));
    for (cudaStream_t stream : streams)
        if (may_run(stream, late))
            ready.push_back(stream);
    return ready;
}

bool step_one(bool late_too)
{
    std::vector<cudaStream_t> ready = ready_streams(false);
    if (ready.empty() && late_too)
        ready = ready_streams(true);
    if (ready.empty())
        return false;
    cudaStream_t stream = ready[random_below(ready.size())];
    run_step(stream);
    if (stream->destroyed && stream->queue.empty())
        remove(stream);
    return true;
}

void wait_for(const operation_ref &operation)
{
    while (operation && !operation->done)
        if (!step_one())
            fail("a wait that nothing can end");
}

void wait_for_device(int device)
{
    std::vector<operation_ref> all = {default_stream(device)->last};
    for (cudaStream_t stream : streams)
        if (stream->device == device)
            all.push_back(stream->last);
    for (const operation_ref &operation : all)
        wait_for(operation);
}

long live_streams()
{
    long live = 0;
    for (cudaStream_t stream : streams)
        live += !stream->destroyed;
    return live;
}

static cudaError_t create_stream(cudaStream_t *stream, unsigned flags)
{
    if (!stream || flags & ~cudaStreamNonBlocking)
        return cudaErrorInvalidValue;
    *stream = new CUstream_st;
    (*stream)->device = current_device();
    (*stream)->flags = flags;
    streams.push_back(*stream);
    return cudaSuccess;
}

static cudaError_t check_idle(cudaStream_t stream)
{
    cudaError_t error = check_stream(stream);
    return error == cudaSuccess ? check_not_capturing(stream) : error;
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return call(__func__, [&] { return create_stream(stream, cudaStreamDefault); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return call(__func__, [&] { return create_stream(stream, flags); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int)
{
    return call(__func__, [&] { return create_stream(stream, flags); });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    return call(__func__, [&] {
        *least = 0;
        *greatest = -5;
        return cudaSuccess;
    });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return call(__func__, [&] {
        cudaError_t error = stream ? check_stream(stream) : cudaErrorInvalidResourceHandle;
        if (error != cudaSuccess || stream == cudaStreamLegacy)
            return cudaErrorInvalidResourceHandle;
        if (stream->captured)
            invalidate(stream->captured.get());
        stream->destroyed = true;
        if (stream->queue.empty())
            remove(stream);
        return cudaSuccess;
    });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return call(__func__, [&] {
        cudaError_t error = check_idle(stream);
        if (error != cudaSuccess)
            return error;
        stream = resolve(stream);
        wait_for(stream->last);
        return device_error(stream->device);
    });
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    return call(__func__, [&] {
        cudaError_t error = check_idle(stream);
        if (error != cudaSuccess)
            return error;
        stream = resolve(stream);
        step_one();
        error = device_error(stream->device);
        return error == cudaSuccess && !stream->queue.empty() ? cudaErrorNotReady : error;
    });
}

cudaError_t cudaDeviceSynchronize(void)
{
    return call(__func__, [&] {
        cudaError_t error = check_unsafe();
        if (error != cudaSuccess)
            return error;
        wait_for_device(current_device());
        return device_error(current_device());
    });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data)
{
    return call(__func__, [&] {
        return enqueue(stream, [=](progress &) {
            function(data);
            return true;
        });
    });
}
