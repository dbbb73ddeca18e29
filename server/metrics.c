// DESIGN. One mutex guards everything: a request takes it a handful of times, for as long as it
// takes to bump some numbers. The text is written under it too, so that what it says fits together.

#include "metrics.h"
#include "memory.h"
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MAX_BUCKETS = 16,
    MAX_REQUEST_ROWS = 512, // routes x statuses that were seen
};

static const double seconds[] = {0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                 0.1,     0.25,   0.5,   1,      2.5,   5,    10};
static const double images[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
#define COUNT(array) (sizeof(array) / sizeof *(array))

struct histogram {
    const char *name, *help;
    const double *bounds;
    size_t n_bounds;
    uint64_t counts[MAX_BUCKETS]; // of each bound alone; the last one is beyond them all
    double sum;
};

enum { REQUEST_SECONDS = STAGES, BATCH_IMAGES, HISTOGRAMS };

static const struct histogram histograms[HISTOGRAMS] = {
    [STAGE_DECODE] = {"decode_seconds",
                      "Decoding of an image, without its resize.",
                      seconds,
                      COUNT(seconds),
                      {0},
                      0},
    [STAGE_QUEUE] =
        {"queue_seconds", "Time of an image in the queue.", seconds, COUNT(seconds), {0}, 0},
    [STAGE_INFER] = {"infer_seconds",
                     "Forward pass of the batch that an image was in.",
                     seconds,
                     COUNT(seconds),
                     {0},
                     0},
    [REQUEST_SECONDS] = {"request_seconds",
                         "From a request's headers to its answer.",
                         seconds,
                         COUNT(seconds),
                         {0},
                         0},
    [BATCH_IMAGES] = {"batch_images", "Images in a batch.", images, COUNT(images), {0}, 0},
};

struct metrics {
    pthread_mutex_t mutex; // guards all below
    struct histogram histograms[HISTOGRAMS];
    struct {
        const char *route;
        int status;
        uint64_t count;
    } requests[MAX_REQUEST_ROWS];
    size_t n_requests;
    uint64_t images[OUTCOMES];
    uint64_t batches[2]; // idle, full
    struct inference_statistics inferences;
};

enum status metrics_create(struct metrics **out)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    if (!metrics)
        return status_fail(STATUS_OUT_OF_MEMORY, "metrics: out of memory");
    memcpy(metrics->histograms, histograms, sizeof histograms);
    pthread_mutex_init(&metrics->mutex, NULL);
    *out = metrics;
    return STATUS_OK;
}

void metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return;
    pthread_mutex_destroy(&metrics->mutex);
    free(metrics);
}

static void observe(struct metrics *metrics, int histogram, double value)
{
    struct histogram *h = &metrics->histograms[histogram];
    size_t i = 0;
    while (i < h->n_bounds && value > h->bounds[i])
        i++;
    h->counts[i]++;
    h->sum += value;
}

static double in_seconds(int64_t ns)
{
    return (double)ns * 1e-9;
}

void metrics_count_request(struct metrics *metrics, const char *route, int status, int64_t ns)
{
    pthread_mutex_lock(&metrics->mutex);
    observe(metrics, REQUEST_SECONDS, in_seconds(ns));
    size_t i = 0;
    while (i < metrics->n_requests && (metrics->requests[i].status != status ||
                                       strcmp(metrics->requests[i].route, route) != 0))
        i++;
    if (i == metrics->n_requests && i < MAX_REQUEST_ROWS) {
        metrics->requests[i].route = route;
        metrics->requests[i].status = status;
        metrics->n_requests++;
    }
    if (i < MAX_REQUEST_ROWS)
        metrics->requests[i].count++;
    pthread_mutex_unlock(&metrics->mutex);
}

void metrics_count_images(struct metrics *metrics, enum outcome outcome, int count)
{
    if (count == 0)
        return;
    pthread_mutex_lock(&metrics->mutex);
    metrics->images[outcome] += (uint64_t)count;
    pthread_mutex_unlock(&metrics->mutex);
}

void metrics_observe(struct metrics *metrics, enum stage stage, int64_t ns)
{
    pthread_mutex_lock(&metrics->mutex);
    observe(metrics, (int)stage, in_seconds(ns));
    pthread_mutex_unlock(&metrics->mutex);
}

void metrics_count_batch(struct metrics *metrics, int count, bool full)
{
    pthread_mutex_lock(&metrics->mutex);
    observe(metrics, BATCH_IMAGES, count);
    metrics->batches[full]++;
    pthread_mutex_unlock(&metrics->mutex);
}

static void add_time(struct statistic *statistic, int64_t ns)
{
    statistic->count++;
    statistic->ns += (uint64_t)ns;
}

void metrics_time_batch(struct metrics *metrics, int count, int64_t ns)
{
    if (count > METRICS_MAX_BATCH)
        return;
    pthread_mutex_lock(&metrics->mutex);
    add_time(&metrics->inferences.batches[count], ns);
    pthread_mutex_unlock(&metrics->mutex);
}

void metrics_count_inference(struct metrics *metrics, bool success,
                             const struct inference_times *times)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&metrics->mutex);
    struct inference_statistics *inferences = &metrics->inferences;
    add_time(success ? &inferences->success : &inferences->fail, times->total_ns);
    if (success) {
        add_time(&inferences->queue, times->queue_ns);
        add_time(&inferences->compute_input, times->input_ns);
        add_time(&inferences->compute_infer, times->infer_ns);
        inferences->last_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    }
    pthread_mutex_unlock(&metrics->mutex);
}

void metrics_read_inferences(struct metrics *metrics, struct inference_statistics *statistics)
{
    pthread_mutex_lock(&metrics->mutex);
    *statistics = metrics->inferences;
    pthread_mutex_unlock(&metrics->mutex);
}

// ---- the exposition (Prometheus text format 0.0.4) ----------------------------------------------

static void write_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP vitserve_%s %s\n# TYPE vitserve_%s %s\n", name, help, name, type);
}

static void write_histogram(FILE *out, const struct histogram *h)
{
    uint64_t sum = 0;
    write_head(out, h->name, "histogram", h->help);
    for (size_t i = 0; i < h->n_bounds; i++) {
        sum += h->counts[i];
        fprintf(out, "vitserve_%s_bucket{le=\"%g\"} %" PRIu64 "\n", h->name, h->bounds[i], sum);
    }
    sum += h->counts[h->n_bounds];
    fprintf(out, "vitserve_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", h->name, sum);
    fprintf(out, "vitserve_%s_sum %.9g\nvitserve_%s_count %" PRIu64 "\n", h->name, h->sum, h->name,
            sum);
}

static void write_counters(FILE *out, const struct metrics *metrics)
{
    static const char *const outcomes[OUTCOMES] = {[OUTCOME_OK] = "ok",
                                                   [OUTCOME_BAD_IMAGE] = "bad_image",
                                                   [OUTCOME_REJECTED] = "rejected",
                                                   [OUTCOME_EXPIRED] = "expired",
                                                   [OUTCOME_CANCELLED] = "cancelled",
                                                   [OUTCOME_FAILED] = "failed"};
    write_head(out, "requests_total", "counter", "Requests answered, by route and HTTP status.");
    for (size_t i = 0; i < metrics->n_requests; i++)
        fprintf(out, "vitserve_requests_total{path=\"%s\",status=\"%d\"} %" PRIu64 "\n",
                metrics->requests[i].route, metrics->requests[i].status,
                metrics->requests[i].count);
    write_head(out, "images_total", "counter", "Images received, by what became of them.");
    for (int i = 0; i < OUTCOMES; i++)
        fprintf(out, "vitserve_images_total{outcome=\"%s\"} %" PRIu64 "\n", outcomes[i],
                metrics->images[i]);
    write_head(out, "batches_total", "counter",
               "Batches run: full ones, and those taken because the device was idle.");
    fprintf(out, "vitserve_batches_total{reason=\"full\"} %" PRIu64 "\n", metrics->batches[1]);
    fprintf(out, "vitserve_batches_total{reason=\"idle\"} %" PRIu64 "\n", metrics->batches[0]);
}

static void write_gauge(FILE *out, const char *name, const char *help, int64_t value)
{
    write_head(out, name, "gauge", help);
    fprintf(out, "vitserve_%s %" PRId64 "\n", name, value);
}

static void write_gauges(FILE *out, const struct gauges *gauges)
{
    write_gauge(out, "queue_images", "Images that have a slot: in decoding, waiting or in a batch.",
                gauges->queue_images);
    write_gauge(out, "inflight_requests", "Requests in work, this one not counted.",
                gauges->inflight_requests);
    write_gauge(out, "inflight_bytes", "Memory of the request bodies in work.",
                gauges->inflight_bytes);
    write_gauge(out, "ready", "1 when /readyz answers 200.", gauges->ready);
    write_gauge(out, "device_memory_bytes", "Memory of the weights on each device.",
                gauges->device_memory_bytes);
    write_head(out, "build_info", "gauge", "Always 1; the labels say what runs.");
    fprintf(out,
            "vitserve_build_info{version=\"%s\",device=\"%s\",precision=\"%s\",model=\"%s\"} 1\n",
            gauges->version, gauges->device, gauges->precision, gauges->model);
}

enum status metrics_write(struct metrics *metrics, const struct gauges *gauges, char **text)
{
    size_t length;
    FILE *out = memory_open(text, &length);
    if (!out)
        return memory_check("metrics", STATUS_OUT_OF_MEMORY);
    pthread_mutex_lock(&metrics->mutex);
    write_counters(out, metrics);
    for (int i = 0; i < HISTOGRAMS; i++)
        write_histogram(out, &metrics->histograms[i]);
    pthread_mutex_unlock(&metrics->mutex);
    write_gauges(out, gauges);
    fclose(out);
    enum status status = memory_check("metrics", STATUS_OK);
    if (status != STATUS_OK)
        free(*text);
    return status;
}
