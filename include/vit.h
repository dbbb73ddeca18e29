#pragma once
// The Vision Transformer of Dosovitskiy et al. (2021, arXiv 2010.11929) as torchvision lays it out:
// pre-norm encoder, class token, exact GELU. Written once, over the op table of backend.h.

#include "vit_weights.h"

// Floating-point operations of one image through the whole network (2 per multiply-add).
int64_t vit_flops(const struct vit_dims *dims);

// What a run takes of the backend's memory for each image of its largest batch.
int64_t vit_image_bytes(const struct vit_dims *dims, struct backend *backend);

// Activations for up to max_batch images, and the stream they are computed on: one per worker.
// The weights are shared by all runs of a device and outlive them.
struct vit_run;

enum status vit_run_create(const struct vit_dims *dims, const struct vit_weights *weights,
                           int max_batch, struct vit_run **run) CHECKED;
void vit_run_free(struct vit_run *run);

// Makes everything that the first batches would otherwise have to: forward() of any batch allocates
// nothing from then on. `pixels` is an image like any other.
enum status vit_run_warm_up(struct vit_run *run, const uint8_t *pixels) CHECKED;

// Image `index` of the next batch: (S, S, 3) uint8, which must stay as it is until vit_forward()
// returns.
enum status vit_set_image(struct vit_run *run, int index, const uint8_t *pixels) CHECKED;

// Runs the first `batch` images; *logits is (batch, K) on the host, valid until the next call.
enum status vit_forward(struct vit_run *run, int batch, const float **logits) CHECKED;

// When the run last made progress: clock_ns() of its latest op. Any thread.
int64_t vit_run_beat_ns(const struct vit_run *run);

// The arithmetic limit of the run's device, measured now: operations per second.
enum status vit_run_peak(struct vit_run *run, double *flops) CHECKED;
