#pragma once
// A model ready to run: its catalogue entry, class names, device and the weights on it.

#include "catalog.h"
#include "config.h"
#include "vit.h"

struct model {
    struct catalog *catalog;
    const struct catalog_entry *entry;
    struct labels *labels;
    struct backend *backend;
    struct vit_weights weights;
    const char *weights_source; // "file" or "random"
};

// Everything from the configuration's --model, --weights, --random-weights, --labels, --device and
// --precision. On failure nothing is left open.
enum status model_open(const struct config *config, struct model *model) CHECKED;
void model_close(struct model *model);

const char *precision_name(enum precision precision);

// Runs batches of 1, 2, 4, ... and returns the largest that took less than 250 ms, at most 256:
// the default of --max-batch. Also warms the device up.
enum status model_measure_batch(struct model *model, int *max_batch) CHECKED;
