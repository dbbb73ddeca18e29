#pragma once
// What the server counts of itself, and its text for Prometheus. Any thread.

#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What becomes of an image that was received: their sum is the number of images.
enum outcome {
    OUTCOME_OK,
    OUTCOME_BAD_IMAGE, // cannot be decoded, is too large or of a kind that we do not know
    OUTCOME_REJECTED,  // its request was refused whole
    OUTCOME_EXPIRED,
    OUTCOME_CANCELLED,
    OUTCOME_FAILED, // by us or by the device
    OUTCOMES
};

enum stage { STAGE_DECODE, STAGE_QUEUE, STAGE_INFER, STAGES };

// What the moment of the scrape knows.
struct gauges {
    int queue_images, inflight_requests;
    int64_t inflight_bytes, device_memory_bytes;
    bool ready;
    const char *version, *device, *precision, *model; // "" before they are known
};

// Requests with images, as the Open Inference Protocol counts them: how many, and their time.
struct statistic {
    uint64_t count, ns;
};

struct inference_times {
    int64_t total_ns, queue_ns, input_ns, infer_ns;
};

enum { METRICS_MAX_BATCH = 4096 }; // the most that --max-batch can be

// Of every protocol; a batch is counted where it ran without a failure.
struct inference_statistics {
    // success: every image was classified. The stages are of these requests alone: the longest of
    // a request's images in the queue and in the device, the sum of them in decoding and resize.
    struct statistic success, fail, queue, compute_input, compute_infer;
    int64_t last_ms; // of the last success, since the epoch; 0: none
    struct statistic batches[METRICS_MAX_BATCH + 1]; // by their size
};

struct metrics;

enum status metrics_create(struct metrics **metrics) CHECKED;
void metrics_free(struct metrics *metrics);

// A request was answered. The route is a text that lives for ever.
void metrics_count_request(struct metrics *metrics, const char *route, int http_status, int64_t ns);
void metrics_count_images(struct metrics *metrics, enum outcome outcome, int count);
// One image has been through a stage.
void metrics_observe(struct metrics *metrics, enum stage stage, int64_t ns);
// A batch has run. full: it was as large as batches may be; else it was all that waited.
void metrics_count_batch(struct metrics *metrics, int images, bool full);

// That batch ran, in so much time.
void metrics_time_batch(struct metrics *metrics, int images, int64_t ns);

// The images of a request have been through the engine, or were refused.
void metrics_count_inference(struct metrics *metrics, bool success,
                             const struct inference_times *times);
void metrics_read_inferences(struct metrics *metrics, struct inference_statistics *statistics);

// The whole exposition, malloc'ed, zero-terminated; it belongs to the caller.
enum status metrics_write(struct metrics *metrics, const struct gauges *gauges,
                          char **text) CHECKED;
