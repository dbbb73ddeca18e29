// Events: a mark in a stream, for which the host or another stream can wait.
#include "device.h"

namespace emulator
{

static std::set<cudaEvent_t> events;

long live_events()
{
    return long(events.size());
}

} // namespace emulator

using namespace emulator;

static cudaError_t create_event(cudaEvent_t *event, unsigned flags)
{
    unsigned known = cudaEventBlockingSync | cudaEventDisableTiming;
    if (!event || flags & ~known)
        return cudaErrorInvalidValue;
    *event = new CUevent_st;
    (*event)->device = current_device();
    (*event)->flags = flags;
    events.insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return call(__func__, [&] { return create_event(event, cudaEventDefault); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    return call(__func__, [&] { return create_event(event, flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return call(__func__, [&] {
        if (!events.erase(event))
            return cudaErrorInvalidResourceHandle;
        delete event;
        return cudaSuccess;
    });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return call(__func__, [&] {
        cudaError_t error = check_stream(stream);
        if (error == cudaSuccess && !events.count(event))
            error = cudaErrorInvalidResourceHandle;
        if (error == cudaSuccess && event->device != resolve(stream)->device)
            error = cudaErrorInvalidResourceHandle;
        if (error != cudaSuccess)
            return error;
        capture_record(resolve(stream), event);
        if (event->captured)
            return cudaSuccess;
        return enqueue(
            stream, [](progress &) { return true; }, &event->recorded);
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    return call(__func__, [&] {
        cudaError_t error = check_stream(stream);
        if (error == cudaSuccess && !events.count(event))
            error = cudaErrorInvalidResourceHandle;
        if (error != cudaSuccess)
            return error;
        stream = resolve(stream);
        if (event->captured || stream->captured)
            return capture_join(stream, event);
        if (!event->recorded)
            return cudaSuccess;
        operation_ref wait = std::make_shared<operation>();
        wait->run = [](progress &) { return true; };
        wait->after.push_back(event->recorded);
        append(stream, wait);
        return cudaSuccess;
    });
}

static cudaError_t check_event(cudaEvent_t event)
{
    if (!events.count(event))
        return cudaErrorInvalidResourceHandle;
    return event->captured ? cudaErrorCapturedEvent : cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return call(__func__, [&] {
        cudaError_t error = check_event(event);
        if (error != cudaSuccess)
            return error;
        wait_for(event->recorded);
        return device_error(event->device);
    });
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return call(__func__, [&] {
        cudaError_t error = check_event(event);
        if (error == cudaSuccess)
            error = check_unsafe();
        if (error != cudaSuccess)
            return error;
        step_one();
        error = device_error(event->device);
        bool pending = event->recorded && !event->recorded->done;
        return error == cudaSuccess && pending ? cudaErrorNotReady : error;
    });
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    return call(__func__, [&] {
        cudaError_t error = check_event(start);
        if (error == cudaSuccess)
            error = check_event(end);
        if (error != cudaSuccess)
            return error;
        bool timed = !((start->flags | end->flags) & cudaEventDisableTiming);
        if (!timed || !start->recorded || !end->recorded)
            return cudaErrorInvalidResourceHandle;
        if (!start->recorded->done || !end->recorded->done)
            return cudaErrorNotReady;
        *ms = std::chrono::duration<float, std::milli>(end->recorded->done_at -
                                                       start->recorded->done_at)
                  .count();
        return cudaSuccess;
    });
}
