#pragma once
// What every .cu file needs from the device: shared memory by name, and the instructions that C++
// has no word for, one inline function each. tests/emulator/ supplies the same names to a host
// compiler (emulator.h, forced in front), so no kernel may contain inline assembly or ask for
// __CUDA_ARCH__ itself: this file decides what each architecture gets.
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// The block's dynamic shared memory as `type *name`, aligned to 128 bytes, uninitialised.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name)                                                                 \
    extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];                        \
    type *name = reinterpret_cast<type *>(dynamic_shared_memory)
#endif

#ifdef __CUDACC__

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// d (16x8, fp32) += a (16xk) . b (kx8), over the whole warp. With g = lane / 4 and t = lane % 4 a
// lane holds
//   d[0..3] = D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1]
//   16-bit, k16: a[0..3] = pairs A[g][2t], A[g+8][2t], A[g][2t+8], A[g+8][2t+8] (and the next k)
//                b0, b1  = pairs B[2t][g], B[2t+8][g]
//   16-bit, k8:  a[0..1] = pairs A[g][2t], A[g+8][2t]; b = pair B[2t][g]
static __device__ __forceinline__ void mma_m16n8k8_fp16(float (&d)[4], const uint32_t (&a)[2],
                                                        uint32_t b)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, "
                 "{%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}

template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1);

template <>
__device__ __forceinline__ void mma_m16n8k16<__half>(float (&d)[4], const uint32_t (&a)[4],
                                                     uint32_t b0, uint32_t b1)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, "
                 "%6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    // The fragments of k16 are those of its two halves, one after the other.
    mma_m16n8k8_fp16(d, {a[0], a[1]}, b0);
    mma_m16n8k8_fp16(d, {a[2], a[3]}, b1);
#endif
}

// sm_75 has no bf16: the backend refuses that precision there, the code only has to compile.
template <>
__device__ __forceinline__ void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4],
                                                            uint32_t b0, uint32_t b1)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, "
                 "%6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    __trap();
#endif
}

// Loads 8x8 matrices of 16-bit values from shared memory: lane i gives the address of row i % 8 of
// matrix i / 8 (16 bytes, 16-byte aligned); register j of a lane gets the pair [g][2t] of matrix j,
// with _trans the pair [2t][g].
static __device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Copies 16 bytes from global to shared memory past the registers; where not valid it writes zeros
// and reads nothing. A thread sees its copies after commit and wait, others after a barrier too.
// sm_75 copies at once.
static __device__ __forceinline__ void cp_async_16_or_zero(void *shared, const void *global,
                                                           bool valid)
{
#if __CUDA_ARCH__ >= 800
    int source_bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(source_bytes)
                 : "memory");
#else
    uint4 zero = {0, 0, 0, 0};
    *static_cast<uint4 *>(shared) = valid ? *static_cast<const uint4 *>(global) : zero;
#endif
}

static __device__ __forceinline__ void cp_async_commit()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `groups_left` of the thread's latest groups are still under way.
template <int groups_left> __device__ __forceinline__ void cp_async_wait()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#endif
}

static __device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif // __CUDACC__

// ---- the same on every compiler -----------------------------------------------------------------

static __device__ __forceinline__ float warp_sum(float value)
{
    for (int lanes = 16; lanes > 0; lanes /= 2)
        value += __shfl_xor_sync(~0u, value, lanes);
    return value;
}

static __device__ __forceinline__ float warp_max(float value)
{
    for (int lanes = 16; lanes > 0; lanes /= 2)
        value = fmaxf(value, __shfl_xor_sync(~0u, value, lanes));
    return value;
}

static __device__ __forceinline__ float to_float(float value)
{
    return value;
}

static __device__ __forceinline__ float to_float(__half value)
{
    return __half2float(value);
}

static __device__ __forceinline__ float to_float(__nv_bfloat16 value)
{
    return __bfloat162float(value);
}

static __device__ __forceinline__ void store1(float *to, float value)
{
    *to = value;
}

static __device__ __forceinline__ void store1(__half *to, float value)
{
    *to = __float2half_rn(value);
}

static __device__ __forceinline__ void store1(__nv_bfloat16 *to, float value)
{
    *to = __float2bfloat16_rn(value);
}

// Two values as one register of a 16-bit fragment, the first in the low half.
template <class T> __device__ __forceinline__ uint32_t pack2(float low, float high);

template <> __device__ __forceinline__ uint32_t pack2<__half>(float low, float high)
{
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

template <> __device__ __forceinline__ uint32_t pack2<__nv_bfloat16>(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

static __device__ __forceinline__ float4 load4(const float *from)
{
    return *reinterpret_cast<const float4 *>(from);
}

// Four values at once; `to` is aligned to four values.
static __device__ __forceinline__ void store4(float *to, float4 v)
{
    *reinterpret_cast<float4 *>(to) = v;
}

template <class T> static __device__ __forceinline__ void store4(T *to, float4 v)
{
    *reinterpret_cast<uint2 *>(to) = {pack2<T>(v.x, v.y), pack2<T>(v.z, v.w)};
}

// Eight values as fp32; `from` is aligned to 16 bytes.
static __device__ __forceinline__ void load8(float (&to)[8], const float *from)
{
    const float4 *quads = reinterpret_cast<const float4 *>(from);
    float4 a = quads[0], b = quads[1];
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
    to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}

template <class T> static __device__ __forceinline__ void load8(float (&to)[8], const T *from)
{
    uint4 raw = *reinterpret_cast<const uint4 *>(from);
    const T *values = reinterpret_cast<const T *>(&raw);
    for (int i = 0; i < 8; i++)
        to[i] = to_float(values[i]);
}
