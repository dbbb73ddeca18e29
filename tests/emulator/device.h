#pragma once
// What the emulator's own files know of each other. Everything here is guarded by `mutex`, which an
// API call holds from its first line to its last: kernels and copies run inside such calls.
#include "emulator.h"
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <vector>

// The bounds of all static shared arrays, by shared.ld.
extern char emulator_shared_begin[] __attribute__((visibility("hidden")));
extern char emulator_shared_end[] __attribute__((visibility("hidden")));

namespace emulator
{

extern std::mutex mutex;

// -- settings.cpp: random choices, faults, the last error -----------------------------------------

uint64_t random_below(uint64_t bound); // 0 <= result < bound
bool one_in(unsigned n);
void shuffle_order(std::vector<uint32_t> &order, size_t n);
uint64_t seed();

enum class heuristic { smooth, rough, none };

struct settings {
    int devices, capability; // 90 for 9.0
    size_t memory_bytes;
    emulator::heuristic heuristic; // of cublasLt
    int library;                   // the build of cublasLt
    int only_device;               // where contexts may be made; -1: anywhere
    uint64_t blocks;               // of a grid, only as many first and last ones; 0: all
    bool races;                    // checked
};
const settings &current_settings();

// The injected error of this call, 0 for none. Counts the call.
int fault(const char *call);
bool sticky(cudaError_t error);
// The error that lost the device; cudaSuccess while it lives.
cudaError_t device_error(int device);
void lose_device(int device, cudaError_t error);
int current_device();
// What a call does that needs a context: it makes one on the current device, as the runtime does.
void enter_device(const char *call);
cudaError_t remember(cudaError_t error); // as the thread's last error
// Whether there is a device at all.
cudaError_t check_driver();

// Runs one API call: lock, fault, lost device, context, body, last error.
template <class F> cudaError_t call(const char *name, F body);
template <class F> cudaError_t call_without_context(const char *name, F body);

// -- memory.cpp -----------------------------------------------------------------------------------

struct allocation {
    char *memory;
    size_t bytes;
    int device; // -1: pinned host memory
};
// The allocation in which [p, p + bytes) lies, or nullptr.
const allocation *find_allocation(const void *p, size_t bytes);
bool in_device_memory(const void *p, size_t bytes);
// Device memory is out of the host's reach (under ASan) except between these.
void open_device(int device);
void close_device();
void check_gaps(int device); // fails where work has written between allocations
// Both ends of a huge area, all of others.
void fill(void *memory, int value, size_t bytes);
long live_allocations();

// -- stream.cpp -----------------------------------------------------------------------------------

struct block; // block.h

// Where one execution of a piece of work has got to; all zero at its start.
struct progress {
    size_t position = 0;
    std::vector<uint32_t> order;
    std::vector<progress> nodes;
    std::vector<std::shared_ptr<block>> early; // in grid_wait(), or ready to go on from there
};

// A piece of work does one step at a call and returns true when that was the last: other streams
// may run between steps.
struct work {
    using function = std::function<bool(progress &)>;
    function step;
    // Of a kernel launched to overlap: lets some of its blocks run up to their grid_wait() while
    // the work before it still runs. True when they let their own dependents start too.
    function begin;
    bool is_kernel = false; // or a matrix product: what a kernel may be launched to overlap

    work() = default;
    template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, work>>>
    work(F &&run, bool is_a_kernel = false) : step(std::forward<F>(run)), is_kernel(is_a_kernel)
    {
    }
    bool operator()(progress &at) const
    {
        return step(at);
    }
};

struct operation {
    work run;
    std::vector<std::shared_ptr<operation>> after;
    progress at;
    bool done = false;
    bool late = false; // runs when nothing else can
    std::chrono::steady_clock::time_point done_at;
};
using operation_ref = std::shared_ptr<operation>;

struct node {
    work run;
    std::vector<size_t> after; // indices of earlier nodes
};
using nodes_ref = std::shared_ptr<const std::vector<node>>;
struct capture; // graph.cpp

// Either runs the work later or, on a capturing stream, records it.
cudaError_t enqueue(cudaStream_t stream, work run, operation_ref *enqueued = nullptr,
                    bool late = false);
void append(cudaStream_t stream, const operation_ref &added); // not capturing
// cudaSuccess, or why this handle cannot be used.
cudaError_t check_stream(cudaStream_t stream);
cudaStream_t resolve(cudaStream_t stream); // the default stream for its special handles
// Some stream's next step, of late work only if nothing else can run; false: nothing can.
bool step_one(bool late_too = true);
void wait_for(const operation_ref &operation);
void wait_for_device(int device);
long live_streams();
long live_events(); // event.cpp

// -- graph.cpp ------------------------------------------------------------------------------------

void capture_add(cudaStream_t stream, work run);
// A stream that waits for an event recorded in a capture joins the capture.
cudaError_t capture_join(cudaStream_t stream, cudaEvent_t event);
void capture_record(cudaStream_t stream, cudaEvent_t event);
void invalidate(capture *captured);
// Calls that a capture in progress forbids break it and return cudaErrorStreamCaptureUnsupported.
cudaError_t check_unsafe();
cudaError_t check_not_capturing(cudaStream_t stream);
bool legacy_stream_forbidden(); // a capture that could not see work on the default stream
long live_graphs();

// -- block.cpp ------------------------------------------------------------------------------------

// A block not yet run; it lives no longer than the kernel.
std::shared_ptr<block> start_block(const kernel &launched, uint3 index);
// Runs it to its end or, held, as far as it gets without passing a grid_wait().
void run_block(block &b, bool held);
bool lets_dependents_start(const block &b);
// "kernel, block, thread" for messages; empty outside a kernel.
std::string position();
void require(int capability, const char *instruction);
bool in_shared_memory(const void *p, size_t bytes);
float half_to_float(uint16_t bits);

long live_cublaslt(); // cublaslt.cpp

} // namespace emulator

struct CUstream_st {
    int device = 0;
    unsigned flags = 0;
    bool destroyed = false; // freed when its work is done
    std::deque<emulator::operation_ref> queue;
    emulator::operation_ref last; // the latest enqueued, done or not
    std::shared_ptr<emulator::capture> captured;
    std::vector<size_t> frontier; // the captured nodes that the next one comes after
};

struct CUevent_st {
    int device = 0;
    unsigned flags = 0;
    emulator::operation_ref recorded;
    std::shared_ptr<emulator::capture> captured; // recorded in a capture: joins it
    std::vector<size_t> frontier;
};

template <class F> cudaError_t emulator::call_without_context(const char *name, F body)
{
    std::lock_guard<std::mutex> guard(mutex);
    cudaError_t error = static_cast<cudaError_t>(fault(name));
    if (error == cudaSuccess)
        error = check_driver();
    else if (sticky(error))
        lose_device(current_device(), error);
    if (error == cudaSuccess)
        error = device_error(current_device());
    if (error == cudaSuccess)
        error = body();
    close_device();
    return remember(error);
}

template <class F> cudaError_t emulator::call(const char *name, F body)
{
    return call_without_context(name, [&] {
        enter_device(name);
        return body();
    });
}
