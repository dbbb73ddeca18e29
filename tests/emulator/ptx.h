#pragma once
// The instructions that kernels/cuda.cuh wraps in inline assembly, under the same names, by the
// fragment maps of the PTX ISA: a wrong index in a kernel gives wrong numbers. The bodies are in
// ptx.cpp. Each checks that the emulated device has the instruction.

namespace emulator
{
enum class element { bf16, fp16 };
void mma_m16n8(element type, int k, float *d, const uint32_t *a, const uint32_t *b, place where);
void ldmatrix_x4(bool transposed, uint32_t *registers, const void *row, place where);
void cp_async(void *shared, const void *global, unsigned bytes, unsigned source_bytes, place where);
void cp_async_commit();
void cp_async_wait(unsigned groups_left);
void grid_wait();
void grid_launch_dependents();

template <class T> struct element_of;
template <> struct element_of<__nv_bfloat16> {
    static constexpr element value = element::bf16;
};
template <> struct element_of<__half> {
    static constexpr element value = element::fp16;
};
} // namespace emulator

template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMULATOR_PLACE)
{
    uint32_t b[2] = {b0, b1};
    emulator::mma_m16n8(emulator::element_of<T>::value, 16, d, a, b, {file, line});
}
inline void mma_m16n8k8_fp16(float (&d)[4], const uint32_t (&a)[2], uint32_t b, EMULATOR_PLACE)
{
    emulator::mma_m16n8(emulator::element::fp16, 8, d, a, &b, {file, line});
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, EMULATOR_PLACE)
{
    emulator::ldmatrix_x4(false, r, row, {file, line});
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, EMULATOR_PLACE)
{
    emulator::ldmatrix_x4(true, r, row, {file, line});
}

inline void cp_async_16_or_zero(void *shared, const void *global, bool valid, EMULATOR_PLACE)
{
    emulator::cp_async(shared, global, 16, valid ? 16 : 0, {file, line});
}
inline void cp_async_commit()
{
    emulator::cp_async_commit();
}
template <int groups_left> void cp_async_wait()
{
    emulator::cp_async_wait(groups_left);
}

inline float exp2_approx(float x)
{
    return exp2f(x);
}
// Programmatic dependent launch. cuda.cuh gains these two with the first kernel that uses them.
inline void grid_wait()
{
    emulator::grid_wait();
}
inline void grid_launch_dependents()
{
    emulator::grid_launch_dependents();
}

// Kernels pass shared memory by pointer to the wrappers above; an address in 32 bits is only good
// for comparing.
inline size_t __cvta_generic_to_shared(const void *p)
{
    return reinterpret_cast<size_t>(p);
}
