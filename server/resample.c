// Compiled once per instruction set, RESAMPLE_ISA being its suffix. A weighted sum of pixels side
// by side would need as many shuffles as multiplications, so the columns pass turns a strip of rows
// by 90 degrees first: what is summed then lies in vectors, one sample of each row, just as in the
// rows pass. Bound by the multiplications for large pictures, by the loads for small ones.

#include "resample.h"
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { HALF = 1 << (RESAMPLE_BITS - 1) };
typedef uint8_t tile_row __attribute__((vector_size(RESAMPLE_ROWS)));

// A vector of LANES sums. widen() is what compilers fail to see in a loop: bytes to 32 bits in one
// instruction. narrow() clamps to 0..255.
#if defined(__AVX512F__) && defined(__AVX512BW__)
enum { LANES = 16 };
typedef __m512i sums;

static inline sums widen(const uint8_t *input)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)input));
}

static inline sums multiply_add(sums sum, sums input, int32_t weight)
{
    return _mm512_add_epi32(sum, _mm512_mullo_epi32(input, _mm512_set1_epi32(weight)));
}

static inline void narrow(sums sum, uint8_t *output)
{
    sum = _mm512_max_epi32(
        _mm512_srai_epi32(_mm512_add_epi32(sum, _mm512_set1_epi32(HALF)), RESAMPLE_BITS),
        _mm512_setzero_si512());
    _mm_storeu_si128((void *)output, _mm512_cvtusepi32_epi8(sum));
}
#elif defined(__AVX2__)
enum { LANES = 8 };
typedef __m256i sums;

static inline sums widen(const uint8_t *input)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)input));
}

static inline sums multiply_add(sums sum, sums input, int32_t weight)
{
    return _mm256_add_epi32(sum, _mm256_mullo_epi32(input, _mm256_set1_epi32(weight)));
}

static inline void narrow(sums sum, uint8_t *output)
{
    sum = _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(HALF)), RESAMPLE_BITS);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    _mm_storel_epi64((void *)output, _mm_packus_epi16(words, words));
}
#else
enum { LANES = 1 };
typedef int32_t sums;

static inline sums widen(const uint8_t *input)
{
    return *input;
}

static inline sums multiply_add(sums sum, sums input, int32_t weight)
{
    return sum + input * weight;
}

static inline void narrow(sums sum, uint8_t *output)
{
    sum = (sum + HALF) >> RESAMPLE_BITS;
    *output = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}
#endif

// RESAMPLE_LANES sums of `count` inputs that are `step` bytes apart, rounded to 8 bits.
static inline void weigh(const int32_t *weights, int count, const uint8_t *restrict input,
                         size_t step, uint8_t *restrict output)
{
    enum { VECTORS = RESAMPLE_LANES / LANES };
    sums sum[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        sum[v] = (sums){0};
    for (int j = 0; j < count; j++, input += step)
        for (int v = 0; v < VECTORS; v++)
            sum[v] = multiply_add(sum[v], widen(input + v * LANES), weights[j]);
    for (int v = 0; v < VECTORS; v++)
        narrow(sum[v], output + v * LANES);
}

// Each round moves the top bit of the row's number to the bottom of the column's and the top bit
// of that to the bottom of the row's: after four of them they have changed places.
static inline void interleave(const tile_row tile[RESAMPLE_ROWS], tile_row out[RESAMPLE_ROWS])
{
    for (int i = 0; i < RESAMPLE_ROWS / 2; i++) {
        out[2 * i] = __builtin_shufflevector(tile[i], tile[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4,
                                             20, 5, 21, 6, 22, 7, 23);
        out[2 * i + 1] = __builtin_shufflevector(tile[i], tile[i + 8], 8, 24, 9, 25, 10, 26, 11, 27,
                                                 12, 28, 13, 29, 14, 30, 15, 31);
    }
}

// Transposes RESAMPLE_ROWS bytes of as many rows, from byte x on.
static inline void turn_tile(const uint8_t *const *rows, size_t x, uint8_t *out, size_t out_step)
{
    tile_row tile[RESAMPLE_ROWS], turned[RESAMPLE_ROWS];
    for (int y = 0; y < RESAMPLE_ROWS; y++)
        memcpy(&tile[y], rows[y] + x, sizeof(tile_row));
    interleave(tile, turned);
    interleave(turned, tile);
    interleave(tile, turned);
    interleave(turned, tile);
    for (size_t y = 0; y < RESAMPLE_ROWS; y++)
        memcpy(out + y * out_step, &tile[y], sizeof(tile_row));
}

// turned: (bytes, RESAMPLE_ROWS), rounded up to whole tiles.
static void turn_rows(const uint8_t *const *rows, size_t bytes, uint8_t *turned)
{
    size_t x = 0;
    for (; bytes - x >= sizeof(tile_row); x += sizeof(tile_row))
        turn_tile(rows, x, turned + x * RESAMPLE_ROWS, RESAMPLE_ROWS);
    if (x == bytes)
        return;
    // The rows may end where their memory ends.
    uint8_t rest[RESAMPLE_ROWS][sizeof(tile_row)] = {0};
    const uint8_t *rest_rows[RESAMPLE_ROWS];
    for (int y = 0; y < RESAMPLE_ROWS; y++) {
        memcpy(rest[y], rows[y] + x, bytes - x);
        rest_rows[y] = rest[y];
    }
    turn_tile(rest_rows, 0, turned + x * RESAMPLE_ROWS, RESAMPLE_ROWS);
}

static void columns(const struct taps *taps, int outputs, const uint8_t *const *rows, int width,
                    uint8_t *turned, uint8_t *narrowed, uint8_t *output, size_t stride)
{
    turn_rows(rows, (size_t)width * 3, turned);
    for (int i = 0; i < outputs; i++)
        weigh(taps->weights + (size_t)i * taps->stride, taps->count[i],
              turned + (size_t)taps->first[i] * RESAMPLE_LANES, RESAMPLE_LANES,
              narrowed + (size_t)i * RESAMPLE_LANES);
    const uint8_t *narrowed_rows[RESAMPLE_ROWS];
    for (size_t x = 0; x < (size_t)outputs * 3; x += sizeof(tile_row)) {
        for (size_t y = 0; y < RESAMPLE_ROWS; y++)
            narrowed_rows[y] = narrowed + (x + y) * RESAMPLE_ROWS;
        turn_tile(narrowed_rows, 0, output + x, stride);
    }
}

static void rows(const int32_t *weights, int count, const uint8_t *input, size_t stride,
                 uint8_t *output)
{
    for (size_t x = 0; x < stride; x += RESAMPLE_LANES)
        weigh(weights, count, input + x, stride, output + x);
}

#define JOIN(name, isa)          name##_##isa
#define JOIN_EXPANDED(name, isa) JOIN(name, isa)

const struct resample JOIN_EXPANDED(resample, RESAMPLE_ISA) = {columns, rows};
