// From encoded bytes to the model's crop (resize 256 bilinear, crop 224), exact and by fast
// decoding. Usage:
//   bench_decode FILE...
// Prints a JSON object a line, {"file", "mode", "decode_ms", "preprocess_ms", "total_ms"}, for each
// file and mode (exact, fast): CPU time of one thread, medians of many runs after a warm-up. Exact
// and fast runs alternate.

#include "preprocess.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MIN_RUNS = 21, MAX_RUNS = 1001, WARM_UP = 3 };
static const double seconds = 2; // for each file

struct times {
    double decode[MAX_RUNS], resize[MAX_RUNS], together[MAX_RUNS];
};

static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

static void run(const uint8_t *bytes, size_t length, bool fast, struct times *times, int index)
{
    static const struct preprocess recipe = {.resize = 256, .crop = 224};
    static uint8_t crop[224 * 224 * 3];
    struct image_limits limits = {
        .max_pixels = INT32_MAX, .apply_orientation = true, .fast_decode = fast};
    struct preprocessed done;
    double start = cpu_ms();
    enum status status = preprocess_bytes(&recipe, bytes, length, &limits, crop, &done);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_decode: %s\n", status_detail(status));
        exit(1);
    }
    times->together[index] = cpu_ms() - start;
    times->resize[index] = (double)done.resample_ns * 1e-6;
    times->decode[index] = times->together[index] - times->resize[index];
}

static void measure(const char *name, const uint8_t *bytes, size_t length)
{
    static struct times times[2];
    int runs = 0;
    for (int i = 0; i < WARM_UP; i++)
        run(bytes, length, i % 2, times, 0);
    double begin = cpu_ms();
    do {
        for (int fast = 0; fast < 2; fast++)
            run(bytes, length, fast, &times[fast], runs);
        runs++;
    } while (runs < MIN_RUNS || (runs < MAX_RUNS && cpu_ms() - begin < seconds * 1e3));
    for (int fast = 0; fast < 2; fast++)
        printf("{\"file\": \"%s\", \"mode\": \"%s\", \"decode_ms\": %.4f, "
               "\"preprocess_ms\": %.4f, \"total_ms\": %.4f}\n",
               name, fast ? "fast" : "exact", median(times[fast].decode, runs),
               median(times[fast].resize, runs), median(times[fast].together, runs));
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        uint8_t *bytes = malloc(1 << 28);
        if (!file || !bytes) {
            fprintf(stderr, "bench_decode: cannot read %s\n", argv[i]);
            return 1;
        }
        measure(argv[i], bytes, fread(bytes, 1, 1 << 28, file));
        fclose(file);
        free(bytes);
    }
    return argc > 1 ? 0 : 2;
}
