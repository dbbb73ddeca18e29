#include "op_fixture.h"
#include "device_under_test.h"
#include "reference.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const enum precision precisions[] = {PRECISION_FP32, PRECISION_TF32, PRECISION_BF16,
                                            PRECISION_FP16, PRECISION_INT8};

void assert_ok(enum status status, const char *call, int line)
{
    if (status != STATUS_OK)
        fail_msg("line %d: %s: %s", line, call, status_detail(status));
}

double uniform(struct fixture *f)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(f->random >> 11) * 0x1p-53 * 2.0 - 1.0;
}

// Takes the next buffer: all of it and its guards poisoned.
static void *take_buffer(struct fixture *f, size_t before, size_t bytes, size_t after)
{
    struct buffer *buffer = &f->buffers[f->n_buffers++];
    size_t total = before + bytes + after;
    void *memory;
    OK(f->backend->ops->alloc(f->backend, total, &memory));
    *buffer = (struct buffer){memory, before, bytes, after};
    void *poison = malloc(total);
    assert_non_null(poison);
    memset(poison, 0xff, total);
    OK(f->backend->ops->upload(f->stream, memory, poison, total));
    OK(f->backend->ops->sync(f->stream));
    free(poison);
    return buffer->memory + before;
}

void *device_buffer(struct fixture *f, size_t bytes)
{
    return take_buffer(f, GUARD_BYTES, bytes, GUARD_BYTES);
}

// The allocation is a multiple of 256 bytes, which the emulator ends at a page that is out of
// bounds; the buffer ends there too, up to its alignment.
static void *input_buffer(struct fixture *f, size_t bytes)
{
    size_t after = -bytes % INPUT_ALIGNMENT;
    size_t before = GUARD_BYTES + -(bytes + after) % GUARD_BYTES;
    return take_buffer(f, before, bytes, after);
}

static void check_guard(const unsigned char *bytes, size_t count, const char *where)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != 0xff)
            fail_msg("written %s a buffer", where);
}

// Downloads the buffer that starts at `memory`, checks the guards of all and frees them.
static void fetch(struct fixture *f, const void *memory, void *out)
{
    for (int i = 0; i < f->n_buffers; i++) {
        const struct buffer *buffer = &f->buffers[i];
        size_t total = buffer->before + buffer->bytes + buffer->after;
        unsigned char *host = malloc(total);
        assert_non_null(host);
        OK(f->backend->ops->download(f->stream, host, buffer->memory, total));
        OK(f->backend->ops->sync(f->stream));
        check_guard(host, buffer->before, "before");
        check_guard(host + buffer->before + buffer->bytes, buffer->after, "after");
        if (buffer->memory + buffer->before == (const unsigned char *)memory)
            memcpy(out, host + buffer->before, buffer->bytes);
        free(host);
        f->backend->ops->free(f->backend, buffer->memory);
    }
    f->n_buffers = 0;
}

void *upload(struct fixture *f, const void *values, size_t bytes)
{
    void *memory = input_buffer(f, bytes);
    OK(f->backend->ops->upload(f->stream, memory, values, bytes));
    OK(f->backend->ops->sync(f->stream));
    return memory;
}

double *random_values(struct fixture *f, size_t count, double spread, bool activation)
{
    double *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        float value = (float)(uniform(f) * spread);
        values[i] = activation ? activation_round(f->backend->precision, value) : value;
    }
    return values;
}

static float *to_floats(const double *values, size_t count)
{
    float *floats = malloc(count * sizeof *floats);
    assert_non_null(floats);
    for (size_t i = 0; i < count; i++)
        floats[i] = (float)values[i];
    return floats;
}

void *encode(const struct fixture *f, const double *values, size_t count, bool activation)
{
    float *floats = to_floats(values, count);
    void *encoded = malloc(count * sizeof *floats);
    assert_non_null(encoded);
    activations_encode(activation ? f->backend->precision : PRECISION_FP32, floats, count, encoded);
    free(floats);
    return encoded;
}

void *upload_floats(struct fixture *f, const double *values, size_t count)
{
    void *floats = encode(f, values, count, false);
    void *memory = upload(f, floats, count * sizeof(float));
    free(floats);
    return memory;
}

void *upload_activations(struct fixture *f, const double *values, size_t count)
{
    void *encoded = encode(f, values, count, true);
    void *memory = upload(f, encoded, count * f->backend->activation_bytes);
    free(encoded);
    return memory;
}

// Aligned as a model's weights are. pack() gets the values unrounded: it is to round as round()
// does.
void *upload_weight(struct fixture *f, enum weight_kind kind, double *values, int N, int K)
{
    size_t count = (size_t)N * (size_t)K, bytes;
    float *floats = to_floats(values, count), *rounded = to_floats(values, count);
    f->backend->ops->round(f->backend, kind, N, K, rounded);
    for (size_t i = 0; i < count; i++)
        values[i] = (double)rounded[i];
    OK(f->backend->ops->packed_bytes(f->backend, kind, N, K, &bytes));
    void *memory = take_buffer(f, GUARD_BYTES, bytes, 0);
    OK(f->backend->ops->pack(f->backend, kind, N, K, floats, memory));
    free(floats);
    free(rounded);
    return memory;
}

// What tensor cores lose in a sum of K products whose results reach `largest`. They never round to
// nearest: they add 4 (tf32) to 16 products at a time to the running sum S, cut each addend below
// the last bit of the largest, and cut the new S to fp32, an ulp of at most 2^-23 S. A cut loses
// half an ulp on average, always towards zero, and S is about half of `largest` on its way there.
// For 8 products that makes 1/4 ulp of `largest` for S and as much again for its addends, which
// have one more bit but are several; for 4 twice as much. One ulp for 8 products allows for all of
// it and for another order of the sum, and is 2^-13 of `largest` at K = 8192, where rounding a bf16
// takes 2^-9.
double tensor_core_loss(const struct fixture *f, int K)
{
    bool tensor_cores = !on_cpu() && f->backend->precision != PRECISION_FP32;
    return tensor_cores ? K / 8.0 * 0x1p-23 : 0.0;
}

void compare(struct fixture *f, const char *name, const float *got, const double *plain,
             const double *exact, size_t count, bool activation, double loss)
{
    double worst = 0.0, yardstick = 0.0, largest = 0.0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(got[i]))
            fail_msg("%s: value %zu of %zu was never written", name, i, count);
        double p = activation ? activation_round(f->backend->precision, (float)plain[i]) : plain[i];
        worst = fmax(worst, fabs((double)got[i] - exact[i]));
        yardstick = fmax(yardstick, fabs(p - exact[i]));
        largest = fmax(largest, fabs(exact[i]));
    }
    // TF32 rounds what it multiplies to 11 bits, which the plain fp32 implementation does not.
    if (f->backend->precision == PRECISION_TF32)
        yardstick = fmax(yardstick, largest * 0x1p-10);
    double bound = 2.0 * yardstick + largest * (0x1p-24 + loss);
    if (worst > bound)
        fail_msg("%s: worst error %g, bound %g, of a plain implementation %g", name, worst, bound,
                 yardstick);
}

float *fetch_values(struct fixture *f, const void *memory, size_t count, bool activation)
{
    size_t bytes = activation ? f->backend->activation_bytes : sizeof(float);
    void *raw = malloc(count * bytes);
    float *values = malloc(count * sizeof *values);
    assert_non_null(raw);
    assert_non_null(values);
    fetch(f, memory, raw);
    activations_decode(activation ? f->backend->precision : PRECISION_FP32, raw, count, values);
    free(raw);
    return values;
}

double *zeros(size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

void for_each_precision(void (*check)(struct fixture *f))
{
    int runs = 0;
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        struct fixture f = {.random = 1};
        if (open_device(precisions[i], 0, &f.backend) != STATUS_OK)
            continue;
        assert_int_equal(f.backend->precision, precisions[i]);
        OK(f.backend->ops->stream_create(f.backend, &f.stream));
        check(&f);
        f.backend->ops->stream_free(f.stream);
        f.backend->ops->destroy(f.backend);
        runs++;
    }
    assert_true(runs > 0);
}
