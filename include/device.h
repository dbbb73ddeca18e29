#pragma once
// From "--device" to a backend. The CUDA backend is a module beside the executable,
// vitserve_cuda.so, loaded only when it is wanted: who has no GPU does not pay for its libraries.

#include "backend.h"

enum device {
    DEVICE_AUTO,
    DEVICE_CPU,
    DEVICE_CUDA,     // the first GPU
    DEVICE_CUDA_ALL, // every GPU
    DEVICE_GPU,      // DEVICE_GPU + n: GPU n
};

enum { DEVICE_MAX_GPUS = 16 };

// How many backends a choice means: the number of GPUs for DEVICE_CUDA_ALL (at most
// DEVICE_MAX_GPUS), else 1.
enum status device_count(enum device device, int *count) CHECKED;

// Any choice but DEVICE_CUDA_ALL. threads: of the CPU backend, 0 for the cores of machine.h.
// DEVICE_AUTO takes the GPU where there is one that works and falls back to the CPU, saying why in
// the log; the others fail with STATUS_UNSUPPORTED_DEVICE, the detail saying why.
enum status device_open(enum device device, enum precision precision, int threads,
                        struct backend **backend) CHECKED;
