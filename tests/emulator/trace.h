#pragma once
// EMULATOR_TRACE (control.h): what the device was given to do, in the order in which it came to it.
// Guarded by `mutex`, as everything here.
#include "device.h"
#include "gemm.h"

namespace emulator
{

bool tracing();

// One step of a kernel, by `run`; with a trace all of them, or none where EMULATOR_TRACE_RUN spares
// it, and then its line. No kernel begins early then: what it touches would be the other's.
bool trace_kernel(const kernel &launched, const std::function<bool()> &run);
// These write a line, where there is a trace, and return whether the work itself is to be done.
bool trace_product(const gemm &g, float beta);
bool trace_fill(size_t bytes);
void trace_copy(const void *to, const void *from, size_t bytes);

// Launches of graphs are numbered from 1, as they are enqueued. Lines written while `traced_graph`
// lives carry its number.
long trace_graph_number();
class traced_graph
{
  public:
    explicit traced_graph(long number);
    ~traced_graph();
};

// What the running kernel does: arithmetic of the tensor cores, and accesses to any memory. Under a
// sanitizer, where the compiler does not report those, the lines have no bytes.
void trace_mma(int k); // one m16n8 product of a warp
extern bool marking;   // whether some thread's accesses are of interest
void mark_access(const void *p, size_t bytes, bool reads);

} // namespace emulator
