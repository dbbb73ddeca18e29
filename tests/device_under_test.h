#pragma once
// Which backend a test program runs on, from its only argument: cpu, cuda, or cpu:ISA for the
// kernels of one instruction set (cpu:generic, cpu:v3, cpu:v4, cpu:v4_bf16).

#include "backend.h"
#include <stdbool.h>

// 0 where there is such a device; else the program's exit code: 2 for a wrong argument, 77 where
// the device is not here, after a line that says so.
int choose_device(int argc, char **argv);

bool on_cpu(void);
enum status open_device(enum precision precision, int threads, struct backend **backend) CHECKED;
