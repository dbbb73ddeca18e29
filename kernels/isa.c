// The instruction sets that the kernels are compiled for, and which of them this processor runs.

#include "kernels.h"
#include <string.h>

#define CPU_KERNELS(isa)                                                                           \
    {                                                                                              \
        patches_cpu_##isa, layernorm_cpu_##isa, linear_cpu_##isa, packed_bytes_cpu_##isa,          \
            pack_cpu_##isa, attention_cpu_##isa, attention_scratch_cpu_##isa, peak_cpu_##isa       \
    }

#ifdef __x86_64__
static bool runs_v3(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

static bool runs_v4(void)
{
    return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool runs_v4_bf16(void)
{
    return runs_v4() && __builtin_cpu_supports("avx512bf16") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

static bool runs_everywhere(void)
{
    return true;
}

// The best first.
static const struct cpu_isa isas[] = {
#ifdef __x86_64__
    {"v4_bf16", runs_v4_bf16, true, CPU_KERNELS(v4_bf16)},
    {"v4", runs_v4, false, CPU_KERNELS(v4)},
    {"v3", runs_v3, false, CPU_KERNELS(v3)},
#endif
    {"generic", runs_everywhere, false, CPU_KERNELS(generic)},
};

const struct cpu_isa *cpu_isa_find(const char *name)
{
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        if ((!name || strcmp(name, isas[i].name) == 0) && isas[i].runs_here())
            return &isas[i];
    return NULL;
}
