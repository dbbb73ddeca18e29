#pragma once
// From "--device" to a backend. The CUDA backend is a module beside the executable,
// vitserve_cuda.so, loaded only when it is wanted: who has no GPU does not pay for its libraries.

#include "backend.h"

enum device { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };

// threads: of the CPU backend, 0 for all cores.
// DEVICE_AUTO takes the GPU where there is one that works and falls back to the CPU, saying why in
// the log; DEVICE_CUDA fails with STATUS_UNSUPPORTED_DEVICE, the detail saying why.
enum status device_open(enum device device, enum precision precision, int threads,
                        struct backend **backend) CHECKED;
