#pragma once
// What of this machine is ours to use. A container sees every core and all of the memory of its
// host, whatever it may take of them: threads and batches are sized by what this finds.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct machine {
    int online;           // cores
    int allowed;          // of these, the ones that the affinity leaves to this process
    double quota;         // CPUs that the control groups leave to it; 0: no quota
    int cores;            // to plan with, by all of the above; at least 1
    int64_t memory_bytes; // that the control groups leave to it, or else all there is
    bool memory_limited;
};

// Never fails: what cannot be found out is no bound. Reads a few small files.
void machine_read(struct machine *machine);

// The cores of machine_read() alone.
int machine_cores(void);

// The part of machine_read() that is not a system call. online, allowed and memory_bytes are given,
// /proc and /sys are those under `root`, "" for the real ones.
void machine_bound(struct machine *machine, const char *root);

// "2 of 64 cores by quota, 4096 MiB of memory by limit"
void machine_describe(const struct machine *machine, char *text, size_t size);
