#include "model.h"
#include "clock.h"
#include "machine.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *precision_name(enum precision precision)
{
    static const char *const names[] = {"auto", "fp32", "tf32", "bf16", "fp16", "int8", "fp8"};
    return names[precision];
}

// NAME.safetensors in --weights-dir, "~/" being the home directory; NAME.pth if only that is there.
static enum status find_weights(const struct config *config, char *path, size_t size)
{
    static const char *const ends[] = {"safetensors", "pth"};
    const char *home = getenv("HOME"), *dir = config->weights_dir, *slash = "";
    if (strncmp(dir, "~/", 2) == 0 && home) {
        dir += 2;
        slash = "/";
    } else {
        home = "";
    }
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        snprintf(path, size, "%s%s%s/%s.%s", home, slash, dir, config->model, ends[i]);
        if (access(path, R_OK) == 0)
            return STATUS_OK;
    }
    return status_fail(STATUS_IO,
                       "no weights for %s: looked for %s%s%s/%s.safetensors and %s.pth; give "
                       "--weights FILE, or --random-weights SEED to try it without",
                       config->model, home, slash, dir, config->model, config->model);
}

static enum status open_weights(const struct config *config, const struct catalog_entry *entry,
                                struct weights **weights)
{
    if (*config->random_weights) {
        char *end;
        errno = 0;
        uint64_t seed = strtoull(config->random_weights, &end, 10);
        if (*end || errno || *config->random_weights < '0' || *config->random_weights > '9')
            return status_fail(STATUS_USAGE,
                               "--random-weights: \"%s\" is not a whole number from 0 to 2^64 - 1",
                               config->random_weights);
        return weights_open_random(seed, weights);
    }
    if (*config->weights)
        return weights_open(config->weights, weights);
    if (entry->weights)
        return weights_open_memory(entry->name, entry->weights,
                                   (size_t)(entry->weights_end - entry->weights), weights);
    char path[4096];
    TRY(find_weights(config, path, sizeof path));
    return weights_open(path, weights);
}

static enum status load_replica(const struct config *config, struct model *model,
                                struct weights *weights)
{
    enum device device = (enum device)config->device;
    if (device == DEVICE_CUDA_ALL)
        device = DEVICE_GPU + (enum device)model->n_replicas;
    struct replica *replica = &model->replicas[model->n_replicas++];
    TRY(device_open(device, (enum precision)config->precision, (int)config->threads,
                    &replica->backend));
    return vit_weights_load(replica->backend, &model->entry->dims, &model->entry->preprocess,
                            weights, &replica->weights);
}

static enum status load(const struct config *config, struct model *model)
{
    int count;
    struct weights *weights;
    TRY(catalog_open(&model->catalog));
    TRY(catalog_find(model->catalog, config->model, &model->entry));
    TRY(labels_open(model->entry, *config->labels ? config->labels : NULL, &model->labels));
    TRY(device_count((enum device)config->device, &count));
    TRY(open_weights(config, model->entry, &weights));
    model->weights_source = weights_source(weights);
    enum status status = STATUS_OK;
    for (int i = 0; i < count && status == STATUS_OK; i++)
        status = load_replica(config, model, weights);
    weights_close(weights);
    return status;
}

enum status model_open(const struct config *config, struct model *model)
{
    *model = (struct model){0};
    enum status status = load(config, model);
    if (status != STATUS_OK)
        model_close(model);
    return status;
}

void model_close(struct model *model)
{
    for (int i = 0; i < model->n_replicas; i++) {
        struct replica *replica = &model->replicas[i];
        vit_weights_release(&replica->weights);
        if (replica->backend)
            replica->backend->ops->destroy(replica->backend);
    }
    labels_close(model->labels);
    catalog_close(model->catalog);
    *model = (struct model){0};
}

// Time of a forward pass over `batch` images of any content: the shortest of those that fit into 20
// ms. The first of a size may compile, tune and allocate, so one that is slow is not believed
// before a second.
static enum status time_batch(struct vit_run *run, int batch, int64_t slow_ns, int64_t *shortest_ns)
{
    const int64_t enough_ns = 20 * 1000000, start = clock_ns();
    const float *logits;
    *shortest_ns = INT64_MAX;
    for (int64_t begun = start, passes = 1;; passes++) {
        TRY(vit_forward(run, batch, &logits));
        int64_t now = clock_ns(), ns = now - begun;
        *shortest_ns = ns < *shortest_ns ? ns : *shortest_ns;
        if (now - start >= enough_ns && (ns < slow_ns || passes > 1))
            return STATUS_OK;
        begun = now;
    }
}

int model_choose_bulk(const int64_t *ns, int sizes)
{
    double best = 0.0;
    for (int i = 0; i < sizes; i++)
        best = fmax(best, (double)(1 << i) / (double)ns[i]);
    int chosen = 0;
    while ((double)(1 << chosen) / (double)ns[chosen] < 0.95 * best)
        chosen++;
    return 1 << chosen;
}

static enum status measure(struct vit_run *run, const uint8_t *pixels, int largest,
                           struct batch_sizes *batch)
{
    const int64_t limit_ns = 250 * 1000000;
    int64_t ns[32];
    int sizes = 0;
    for (int i = 0; i < largest; i++)
        TRY(vit_set_image(run, i, pixels));
    for (int size = 1; size <= largest; size *= 2) {
        TRY(time_batch(run, size, limit_ns / 2, &ns[sizes]));
        if (sizes > 0 && ns[sizes] >= limit_ns)
            break;
        if (2 * ns[sizes++] >= limit_ns)
            break;
    }
    *batch = (struct batch_sizes){1 << (sizes - 1), model_choose_bulk(ns, sizes)};
    return STATUS_OK;
}

int model_largest_batch(const struct model *model, int64_t memory_bytes)
{
    enum { LARGEST = 256 };
    const struct vit_dims *dims = &model->entry->dims;
    struct backend *backend = model->replicas[0].backend;
    int64_t slot = (int64_t)dims->S * dims->S * 3 + dims->K * (int64_t)sizeof(float);
    int64_t image = QUEUED_BATCHES * slot;
    image += backend->host_memory ? vit_image_bytes(dims, backend) : 0;
    int largest = LARGEST;
    while (largest > 1 && largest * image > memory_bytes / 4)
        largest /= 2;
    return largest;
}

enum status model_measure_batch(struct model *model, struct batch_sizes *batch)
{
    struct machine machine;
    machine_read(&machine);
    int largest = model_largest_batch(model, machine.memory_bytes);
    struct vit_run *run;
    size_t side = (size_t)model->entry->dims.S;
    uint8_t *pixels = calloc(side * side, 3);
    if (!pixels)
        return status_fail(STATUS_OUT_OF_MEMORY, "warm-up: out of memory");
    enum status status =
        vit_run_create(&model->entry->dims, &model->replicas[0].weights, largest, &run);
    if (status == STATUS_OK) {
        status = measure(run, pixels, largest, batch);
        vit_run_free(run);
    }
    free(pixels);
    return status;
}
