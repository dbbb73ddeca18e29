#pragma once
// Device functions that touch one thread only. Approximate ones are computed exactly: a kernel must
// hold its error bound with better arithmetic too.
// Plain loads and stores stand for the cached and streaming ones; atomics are plain, because one
// fiber runs at a time, and only told apart for the sake of the race detector.

template <class T> T __ldg(const T *p)
{
    return *p;
}
template <class T> T __ldcs(const T *p)
{
    return *p;
}
template <class T> T __ldcg(const T *p)
{
    return *p;
}
template <class T> T __ldca(const T *p)
{
    return *p;
}
template <class T> void __stcs(T *p, T value)
{
    *p = value;
}
template <class T> void __stcg(T *p, T value)
{
    *p = value;
}

#define EMULATOR_ATOMIC inline __attribute__((no_sanitize("thread")))
#define EMULATOR_ATOMICS(type)                                                                     \
    EMULATOR_ATOMIC type atomicAdd(type *p, type value)                                            \
    {                                                                                              \
        emulator::atomic_access(p, sizeof *p);                                                     \
        type old = *p;                                                                             \
        *p = old + value;                                                                          \
        return old;                                                                                \
    }                                                                                              \
    EMULATOR_ATOMIC type atomicExch(type *p, type value)                                           \
    {                                                                                              \
        emulator::atomic_access(p, sizeof *p);                                                     \
        type old = *p;                                                                             \
        *p = value;                                                                                \
        return old;                                                                                \
    }
#define EMULATOR_INTEGER_ATOMICS(type)                                                             \
    EMULATOR_ATOMICS(type)                                                                         \
    EMULATOR_ATOMIC type atomicMax(type *p, type value)                                            \
    {                                                                                              \
        emulator::atomic_access(p, sizeof *p);                                                     \
        type old = *p;                                                                             \
        *p = old < value ? value : old;                                                            \
        return old;                                                                                \
    }
EMULATOR_ATOMICS(float)
EMULATOR_INTEGER_ATOMICS(int)
EMULATOR_INTEGER_ATOMICS(unsigned)
EMULATOR_INTEGER_ATOMICS(unsigned long long)

inline float rsqrtf(float x)
{
    return float(1.0 / std::sqrt(double(x)));
}
inline float __frsqrt_rn(float x)
{
    return rsqrtf(x);
}
inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
inline float __fdividef(float x, float y)
{
    return x / y;
}
inline float __fdiv_rn(float x, float y)
{
    return x / y;
}
inline float __expf(float x)
{
    return expf(x);
}
inline float __logf(float x)
{
    return logf(x);
}
inline float __saturatef(float x)
{
    return x > 0.0f ? std::min(x, 1.0f) : 0.0f;
}
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fsub_rn(float a, float b)
{
    return a - b;
}

namespace emulator
{
template <class To, class From> To bits_as(From from)
{
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace emulator
inline unsigned __float_as_uint(float x)
{
    return emulator::bits_as<unsigned>(x);
}
inline int __float_as_int(float x)
{
    return emulator::bits_as<int>(x);
}
inline float __uint_as_float(unsigned x)
{
    return emulator::bits_as<float>(x);
}
inline float __int_as_float(int x)
{
    return emulator::bits_as<float>(x);
}

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz(unsigned(x)) : 32;
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
    return unsigned((uint64_t(a) * b) >> 32);
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector)
{
    uint64_t bytes = uint64_t(high) << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned pick = selector >> (4 * i), byte = unsigned(bytes >> (8 * (pick & 7))) & 0xff;
        if (pick & 8)
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}

inline int min(int a, int b)
{
    return a < b ? a : b;
}
inline int max(int a, int b)
{
    return a > b ? a : b;
}
inline unsigned min(unsigned a, unsigned b)
{
    return a < b ? a : b;
}
inline unsigned max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}
inline long min(long a, long b)
{
    return a < b ? a : b;
}
inline long max(long a, long b)
{
    return a > b ? a : b;
}
inline float min(float a, float b)
{
    return fminf(a, b);
}
inline float max(float a, float b)
{
    return fmaxf(a, b);
}
