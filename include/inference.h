#pragma once
// Images on their way through the engine, whatever protocol brought them: slots are reserved before
// anything is decoded, each image is decoded into its slot and queued while others are decoded, and
// all of them are waited for. The images of a request are decoded side by side (decoders.h).

#include "body.h"
#include "decoders.h"
#include "model.h"
#include "queue.h"
#include "result.h"
#include "trace.h"

// What all requests share. It outlives them.
struct engine {
    const struct config *config;
    const struct model *model;
    struct queue *queue;
    struct metrics *metrics;
    struct decoders *decoders;
    int max_batch;
};

struct inference {
    struct result *results; // (count)
    struct job **jobs;      // (count)
    struct ticket ticket;
    int count;
};

// An image that cannot be classified fails in its result alone; what fails the request as a whole
// is returned, and leaves *inference empty. The results' logits live until inference_release(). The
// trace gets the images and their times.
// STATUS_QUEUE_FULL, STATUS_TOO_MANY_IMAGES, STATUS_DRAINING, STATUS_DEVICE_FAILED; where the
// images have too many pixels together, STATUS_IMAGE_TOO_LARGE.
enum status inference_run(struct engine *engine, const struct client *client,
                          const struct upload *images, int count, struct trace *trace,
                          struct inference *inference) CHECKED;
void inference_release(struct inference *inference);

// What becomes of an image that ends with this status.
enum outcome inference_outcome(enum status status);

// Decodes one image to the model's (S, S, 3) crop, as long as the client waits; a failure is
// recorded in the result too. The trace gets its times.
enum status inference_prepare(struct engine *engine, const struct client *client,
                              const struct upload *image, struct trace *trace,
                              struct result *result, uint8_t *pixels) CHECKED;
