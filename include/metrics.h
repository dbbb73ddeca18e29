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

// The whole exposition, malloc'ed, zero-terminated; it belongs to the caller.
enum status metrics_write(struct metrics *metrics, const struct gauges *gauges,
                          char **text) CHECKED;
