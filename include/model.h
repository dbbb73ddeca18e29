#pragma once
// A model ready to run: its catalogue entry, class names, device and the weights on it.

#include "catalog.h"
#include "config.h"
#include "queue.h"
#include "vit.h"

// One device with the weights on it.
struct replica {
    struct backend *backend;
    struct vit_weights weights;
};

struct model {
    struct catalog *catalog;
    const struct catalog_entry *entry;
    struct labels *labels;
    struct replica replicas[DEVICE_MAX_GPUS];
    int n_replicas;             // at least 1; all of one kind, so the first speaks for them
    const char *weights_source; // "file", "built-in" or "random"
};

// Everything from the configuration's --model, --weights, --random-weights, --labels, --device and
// --precision. On failure nothing is left open.
enum status model_open(const struct config *config, struct model *model) CHECKED;
void model_close(struct model *model);

const char *precision_name(enum precision precision);

// The default of --max-queue, in batches.
enum { QUEUED_BATCHES = 4 };

// The largest batch that leaves three quarters of the memory to the weights, the bodies and the
// pictures that are being decoded; at most 256. A batch is weighed with the slots of its queue, and
// with its activations where the host's memory holds them.
int model_largest_batch(const struct model *model, int64_t memory_bytes);

// Runs batches of 1, 2, 4, ... and makes `max`, the default of --max-batch, the largest that took
// less than 250 ms, at most model_largest_batch() of this machine; `bulk` is model_choose_bulk()'s.
// Also warms the device up.
enum status model_measure_batch(struct model *model, struct batch_sizes *batch) CHECKED;

// The smallest batch that makes 95 % of the images/s of the best: a larger one only keeps others
// waiting, and on a CPU its activations leave the caches. ns (sizes): what batches of 1, 2, 4, ...
// take; at least one.
int model_choose_bulk(const int64_t *ns, int sizes);
