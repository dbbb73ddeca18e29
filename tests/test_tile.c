// kernels/tile.c in fp32: whatever its shape, a tile's sums are one chain of multiply-adds in the
// order of k, to the bit: fused where the instruction set can, and never where it cannot. This is
// why an image's answer does not depend on what shares its batch.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "kernels.h"
#include <math.h>
#include <string.h>

enum { LANES = 197, ROWS = 8, MOST_COLUMNS = 4 * 16 };

static float a[ROWS][LANES], b[LANES][MOST_COLUMNS];

static void fill(float *values, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525 + 1013904223;
        values[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

static float chain(int row, int column, bool fuses)
{
    float sum = 0.0f;
    for (int k = 0; k < LANES; k++) {
        volatile float product = a[row][k] * b[k][column]; // kept apart from the addition
        sum = fuses ? fmaf(a[row][k], b[k][column], sum) : sum + product;
    }
    return sum;
}

static void check_shape(void (*tile_cpu)(enum dot dot, const struct tile *tile), int rows,
                        int vectors, int vector_floats, bool fuses)
{
    float out[ROWS][MOST_COLUMNS];
    tile_cpu(DOT_FP32, &(struct tile){.out = out,
                                      .a = a,
                                      .b = b,
                                      .out_stride = sizeof *out,
                                      .a_stride = sizeof *a,
                                      .b_stride = sizeof *b,
                                      .a_step = sizeof **a,
                                      .lanes = LANES,
                                      .rows = rows,
                                      .vectors = vectors});
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < vectors * vector_floats; n++) {
            float expected = chain(r, n, fuses);
            if (memcmp(&out[r][n], &expected, sizeof expected) != 0)
                fail_msg("%d x %d: sum %d, %d is %a, not %a", rows, vectors, r, n,
                         (double)out[r][n], (double)expected);
        }
}

static void test_every_shape(void **state)
{
    (void)state;
    static const struct {
        const char *isa;
        void (*tile_cpu)(enum dot dot, const struct tile *tile);
        int sums, vector_floats;
        bool fuses;
    } tiles[] = {
#ifdef __x86_64__
        {"v4_bf16", tile_cpu_v4_bf16, 24, 16, true},
        {"v4", tile_cpu_v4, 24, 16, true},
        {"v3", tile_cpu_v3, 12, 8, true},
        {"generic", tile_cpu_generic, 12, 4, false},
#else
        {"generic", tile_cpu_generic, 12, 4, true},
#endif
    };
    fill(*a, sizeof a / sizeof **a, 1);
    fill(*b, sizeof b / sizeof **b, 2);
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        if (!cpu_isa_find(tiles[i].isa))
            continue;
        for (int rows = 1; rows <= ROWS; rows++)
            for (int vectors = 1; vectors <= 4 && rows * vectors <= tiles[i].sums; vectors++)
                check_shape(tiles[i].tile_cpu, rows, vectors, tiles[i].vector_floats,
                            tiles[i].fuses);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_shape)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
