#pragma once
// A backend under test and the buffers of one case on it. Whatever fails ends the cmocka test.
//
// Buffers start as NaN between guard words. Of one that is only read the end is the allocation's
// end, so that a device that watches over allocations (the emulator, compute-sanitizer) sees what
// is read past it.

#include "backend.h"
#include <stdbool.h>

enum { GUARD_BYTES = 256, INPUT_ALIGNMENT = 16 };

// One backend and its stream, and every buffer of the case in work.
struct fixture {
    struct backend *backend;
    struct stream *stream;
    struct buffer {
        unsigned char *memory;
        size_t before, bytes, after; // guard, buffer, guard
    } buffers[16];
    int n_buffers;
    uint64_t random;
};

#define OK(call) assert_ok(call, #call, __LINE__)
void assert_ok(enum status status, const char *call, int line);

// Runs `check` on each precision that the device has.
void for_each_precision(void (*check)(struct fixture *f));

double uniform(struct fixture *f); // -1 to 1
double *zeros(size_t count);
// Random values of the given spread, rounded as activations are if `activation`.
double *random_values(struct fixture *f, size_t count, double spread, bool activation);

// Device memory that an op writes.
void *device_buffer(struct fixture *f, size_t bytes);
// Device memory that ops only read.
void *upload(struct fixture *f, const void *values, size_t bytes);
void *upload_floats(struct fixture *f, const double *values, size_t count);
void *upload_activations(struct fixture *f, const double *values, size_t count);
// A packed weight; `values` become what the backend rounds them to.
void *upload_weight(struct fixture *f, enum weight_kind kind, double *values, int N, int K);
// What is at `memory`, fp32 or activations, to be freed. Checks the guards of every buffer and
// frees them all.
float *fetch_values(struct fixture *f, const void *memory, size_t count, bool activation);

// Values on the host in the type of activations, to be freed.
void *encode(const struct fixture *f, const double *values, size_t count, bool activation);

// The part of the largest result that tensor cores may lose in sums of K products.
double tensor_core_loss(const struct fixture *f, int K);

// Fails unless the worst error of `got` is at most twice that of `plain`, which is rounded to the
// output's type first, and `loss` of the largest result.
void compare(struct fixture *f, const char *name, const float *got, const double *plain,
             const double *exact, size_t count, bool activation, double loss);
