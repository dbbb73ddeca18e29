#pragma once
// What a test may ask of the emulated GPU. C and C++; functions are safe from any thread.
//
// Environment, read at the first call and again by emulator_reset():
//   EMULATOR_SEED       of every random choice (default 1); printed when a program fails
//   EMULATOR_DEVICES    number of GPUs (default 1); 0: cudaErrorNoDevice; -1: no driver at all
//   EMULATOR_CC         compute capability (default 9.0)
//   EMULATOR_MEMORY_MB  memory of each GPU (default 8192)
//   EMULATOR_HEURISTIC  of cublasLt: rough (default), also results that fail or are none; smooth,
//                       only good ones; none, no result at all
//   EMULATOR_LIBRARY    the build of cublasLt (default 1): no other takes its algorithms
//   EMULATOR_ONLY_DEVICE
//                       a context on any other GPU ends the program
//   EMULATOR_BLOCKS     n: run only the first n and the last n blocks of each grid (default 0:
//   all).
//                       For index arithmetic past 2^31: with buffers of that size, of which only
//                       the touched pages cost memory, set it for the test's own ctest entry and
//                       compare the outputs of those blocks
//   EMULATOR_RACES      0: do not look for races in shared memory (default 1)
//   EMULATOR_TRACE      file for a line of JSON for each kernel, product, copy and fill that the
//                       device comes to; read once. Kernels do not overlap then
//   EMULATOR_TRACE_RUN  with a trace: kernels run in the first so many launches of graphs alone,
//                       and no product is computed (default: everything is)
//   EMULATOR_FAIL       CALL:NTH:ERROR[,...], as if by emulator_fail()
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Makes the nth `call` from now on (1: the next) return `error`, a cudaError_t or, for cublasLt's
// functions, a cublasStatus_t. The name "execute" stands for work on the device: the nth piece of
// work executed from now fails, and what synchronises next reports it. An error that the driver
// calls sticky (cudaErrorIllegalAddress and its like) loses the device until emulator_reset().
void emulator_fail(const char *call, int nth, int error);

// How many times `call` has been made since the last reset.
long emulator_calls(const char *call);

// Whether a call has made a context on this GPU: each that needs one does, on the thread's current
// device, whatever device its stream or memory belongs to.
int emulator_has_context(int device);

// Forgets faults, counts, contexts and lost devices; reads the environment again. Memory and
// streams stay.
void emulator_reset(void);

// Restarts the random choices.
void emulator_seed(uint64_t seed);

// Allocations, streams, events, graphs and cublasLt objects that nobody has freed yet.
long emulator_live(void);

#ifdef __cplusplus
}
#endif
