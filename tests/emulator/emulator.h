#pragma once
// A GPU on the host: forced in front of a .cu file (g++ -include emulator.h -x c++) it supplies
// what the device compiler knows by itself, so that the file compiles unchanged and runs on the
// CPU. Types and prototypes are the toolkit's own: a wrong signature cannot hide. The runtime's and
// cublasLt's functions are defined at link time (memory.cpp, stream.cpp, graph.cpp, cublaslt.cpp).
//
// A block's threads are fibers of one OS thread; see block.cpp for the order in which they run and
// race.cpp for how a missing barrier shows.
// Every collective carries the place of its call (__builtin_LINE as a default argument), by which a
// divergent barrier is told from a reached one and named in the message.
//
// What a .cu file must keep to:
// - launch with cudaLaunchKernelEx only; no <<< >>>, no cudaLaunchKernel;
// - inline assembly, __CUDA_ARCH__ and __CUDACC__ only in cuda.cuh, whose wrappers ptx.h provides;
// - dynamic shared memory by DYNAMIC_SHARED(type, name);
// - no static local variables but __shared__ ones, unless const or initialised with other than
//   zero: shared.ld takes them all for shared memory and the emulator fills it with NaN;
// - every thread of a block reaches every __syncthreads(), also where the hardware would forgive
//   those that have exited; a warp's collective names lanes that take part in it.
#include "control.h"
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

// The linker gathers the static shared arrays (shared.ld): they are NaN before each block.
#undef __shared__
#define __shared__                 static
#define DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emulator::dynamic_shared())

#define __launch_bounds__(...) // not checked: it bounds registers, which the host has not

extern uint3 threadIdx, blockIdx; // set whenever a fiber or a block starts to run
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulator
{

struct place {
    const char *file;
    int line;
};

// Gets a pointer per lane (null outside the mask) when all lanes of the mask have arrived.
using combine_fn = void (*)(void *const lanes[32], unsigned mask);

void *dynamic_shared();
void barrier(place where);
void order_warp(void *const lanes[32], unsigned mask); // what __syncwarp combines
void atomic_access(void *p, size_t bytes);
// Waits until every lane of the mask is here with the same name; the last to arrive calls combine.
// With same_place they must also have come from the same line, as mma and ldmatrix demand.
void collective(const char *name, unsigned mask, void *operand, combine_fn combine, place where,
                bool same_place);
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned lane();

struct kernel {
    std::string name; // as written at the launch
    place where;
    const void *function;
    dim3 grid, block;
    size_t shared_bytes;
    bool overlaps;              // programmatic dependent launch: each block must call grid_wait()
    std::function<void()> body; // one thread of it
};
cudaError_t launch_kernel(const cudaLaunchConfig_t *config, size_t argument_bytes,
                          kernel &&launched);

// The arguments are converted and copied at the launch, as the toolkit's template does it.
template <class... P, class... A>
cudaError_t launch(place where, const char *text, const cudaLaunchConfig_t *config,
                   void (*function)(P...), A &&...arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "wrong number of kernel arguments");
    static_assert((std::is_convertible_v<A &&, P> && ...), "wrong type of kernel argument");
    static_assert((std::is_trivially_destructible_v<P> && ...),
                  "kernel arguments are copied as bytes");
    static_assert(!(std::is_reference_v<P> || ...), "a kernel cannot take host references");
    std::tuple<P...> values(static_cast<P>(std::forward<A>(arguments))...);
    const void *address = reinterpret_cast<const void *>(function);
    kernel launched = {text, where, address, {},
                       {},   0,     false,   [=] { std::apply(function, values); }};
    return launch_kernel(config, (0 + ... + sizeof(P)), std::move(launched));
}

struct exchange {
    const void *value;
    void *result;
    unsigned source, size;
};
void combine_exchange(void *const lanes[32], unsigned mask);

template <class T>
T shuffle(const char *name, unsigned mask, T value, unsigned source, bool inside, place where)
{
    static_assert(std::is_trivially_destructible_v<T>); // __nv_bfloat162 is no more than that
    static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
    T result = value;
    exchange mine = {&value, &result, inside ? source : lane(), sizeof(T)};
    collective(name, mask, &mine, combine_exchange, where, false);
    return result;
}

// What all lanes of the mask contribute, to each of them.
enum class vote { ballot, add, min, max, bit_and, bit_or };
uint64_t reduce(const char *name, vote how, unsigned mask, int64_t value, place where);

} // namespace emulator

#define EMULATOR_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define cudaLaunchKernelEx(...)                                                                    \
    emulator::launch(emulator::place{__FILE__, __LINE__}, #__VA_ARGS__, __VA_ARGS__)

// The toolkit has these two for nvcc only.
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*function)(P...), cudaFuncAttribute which, int value)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(function), which, value);
}
template <class... P>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, void (*function)(P...))
{
    return cudaFuncGetAttributes(attributes, reinterpret_cast<const void *>(function));
}

inline void __syncthreads(EMULATOR_PLACE)
{
    emulator::barrier({file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_PLACE)
{
    emulator::collective("__syncwarp", mask, nullptr, emulator::order_warp, {file, line}, false);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap()
{
    emulator::fail("__trap()");
}

template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32, EMULATOR_PLACE)
{
    unsigned lane = emulator::lane(), first = lane & ~(width - 1u);
    return emulator::shuffle("__shfl_sync", mask, v, first + (source & (width - 1)), true,
                             {file, line});
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32, EMULATOR_PLACE)
{
    unsigned lane = emulator::lane(), source = lane ^ lanes;
    return emulator::shuffle("__shfl_xor_sync", mask, v, source,
                             source < (lane & ~(width - 1u)) + width, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, EMULATOR_PLACE)
{
    unsigned lane = emulator::lane();
    return emulator::shuffle("__shfl_up_sync", mask, v, lane - delta,
                             (lane & (width - 1u)) >= delta, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, EMULATOR_PLACE)
{
    unsigned lane = emulator::lane();
    return emulator::shuffle("__shfl_down_sync", mask, v, lane + delta,
                             (lane & (width - 1u)) + delta < unsigned(width), {file, line});
}

#define EMULATOR_REDUCE(name, type, how)                                                           \
    inline type name(unsigned mask, type value, EMULATOR_PLACE)                                    \
    {                                                                                              \
        return type(                                                                               \
            emulator::reduce(#name, emulator::vote::how, mask, int64_t(value), {file, line}));     \
    }
EMULATOR_REDUCE(__reduce_add_sync, int, add)
EMULATOR_REDUCE(__reduce_add_sync, unsigned, add)
EMULATOR_REDUCE(__reduce_min_sync, int, min)
EMULATOR_REDUCE(__reduce_min_sync, unsigned, min)
EMULATOR_REDUCE(__reduce_max_sync, int, max)
EMULATOR_REDUCE(__reduce_max_sync, unsigned, max)
EMULATOR_REDUCE(__reduce_and_sync, unsigned, bit_and)
EMULATOR_REDUCE(__reduce_or_sync, unsigned, bit_or)
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_PLACE)
{
    return emulator::reduce("__ballot_sync", emulator::vote::ballot, mask, predicate != 0,
                            {file, line});
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_PLACE)
{
    return emulator::reduce("__any_sync", emulator::vote::ballot, mask, predicate != 0,
                            {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_PLACE)
{
    return emulator::reduce("__all_sync", emulator::vote::ballot, mask, predicate != 0,
                            {file, line}) == mask;
}

#include "intrinsics.h"
#include "ptx.h"
