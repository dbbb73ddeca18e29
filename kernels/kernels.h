#pragma once
// Private to the CPU backend: its ops, and what one file of them knows of another.

#include "backend.h"

// oneDNN's side of the linear layers: engine, compiled primitives, scratch. One per stream; the
// packing functions may share one among threads that take turns.
struct linear_cpu;

enum status linear_cpu_create(struct linear_cpu **linear) CHECKED;
void linear_cpu_free(struct linear_cpu *linear);
enum status linear_cpu_packed_bytes(struct linear_cpu *linear, int N, int K, size_t *bytes) CHECKED;
enum status linear_cpu_pack(struct linear_cpu *linear, int N, int K, const float *values,
                            void *packed) CHECKED;
enum status linear_cpu(struct linear_cpu *linear, const struct linear_args *args) CHECKED;

// The ops in plain C are compiled once per instruction set (CMakeLists.txt names them); cpu.c
// takes the best table that the processor can run.
struct cpu_kernels {
    void (*patches)(const struct embed_args *args);
    void (*layernorm)(const struct layernorm_args *args);
    void (*attention)(const struct attention_args *args, float *scratch);
    double (*peak)(int64_t rounds); // multiply-adds on one core; returns the operations done
};

// Floats of scratch that attention wants for each thread: the keys of a head, transposed, and the
// queries, scores and sums of the four tokens in work.
static inline size_t attention_cpu_scratch(const struct attention_args *args)
{
    size_t T = (size_t)args->T, HS = (size_t)args->HS;
    return HS * T + 4 * (T + 2 * HS);
}

#define CPU_KERNEL_JOIN(name, isa) name##_##isa
#define CPU_KERNEL_NAME(name, isa) CPU_KERNEL_JOIN(name, isa)
#define CPU_KERNEL(name)           CPU_KERNEL_NAME(name, CPU_ISA)

// CPU_ISA is the suffix of the set that a file is being compiled for.
#define CPU_KERNELS_DECLARE(isa)                                                                   \
    void patches_cpu_##isa(const struct embed_args *args);                                         \
    void layernorm_cpu_##isa(const struct layernorm_args *args);                                   \
    void attention_cpu_##isa(const struct attention_args *args, float *scratch);                   \
    double peak_cpu_##isa(int64_t rounds)

CPU_KERNELS_DECLARE(generic);
CPU_KERNELS_DECLARE(v3);
CPU_KERNELS_DECLARE(v4);
