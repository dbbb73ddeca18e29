// One batch of each size through a model on the GPU, and nothing else: what there is for
// EMULATOR_TRACE to see is the work that the server's worker would enqueue. model.py runs it.
// Usage: count_work MODEL BATCH...

#include "catalog.h"
#include "device.h"
#include "vit.h"
#include "weights.h"
#include <stdio.h>
#include <stdlib.h>

static enum status run_batches(struct vit_run *run, const struct vit_dims *dims, char **batches)
{
    uint8_t *pixels = calloc((size_t)dims->S * (size_t)dims->S, 3);
    enum status status = STATUS_OK;
    if (!pixels)
        status = status_fail(STATUS_OUT_OF_MEMORY, "no memory for a picture");
    for (; *batches && status == STATUS_OK; batches++) {
        int batch = atoi(*batches);
        const float *logits;
        for (int i = 0; i < batch && status == STATUS_OK; i++)
            status = vit_set_image(run, i, pixels);
        if (status == STATUS_OK)
            status = vit_forward(run, batch, &logits);
    }
    free(pixels);
    return status;
}

static enum status run_model(const struct catalog_entry *entry, struct backend *backend,
                             char **batches)
{
    int largest = 1;
    for (char **batch = batches; *batch; batch++)
        largest = atoi(*batch) > largest ? atoi(*batch) : largest;
    struct weights *random;
    struct vit_weights weights;
    struct vit_run *run = NULL;
    TRY(weights_open_random(1, &random));
    enum status status =
        vit_weights_load(backend, &entry->dims, &entry->preprocess, random, &weights);
    weights_close(random);
    TRY(status);
    status = vit_run_create(&entry->dims, &weights, largest, &run);
    if (status == STATUS_OK)
        status = run_batches(run, &entry->dims, batches);
    vit_run_free(run);
    vit_weights_release(&weights);
    return status;
}

static enum status count(const char *model, char **batches)
{
    struct catalog *catalog;
    const struct catalog_entry *entry;
    struct backend *backend;
    TRY(catalog_open(&catalog));
    enum status status = catalog_find(catalog, model, &entry);
    if (status == STATUS_OK)
        status = device_open(DEVICE_CUDA, PRECISION_BF16, 1, &backend);
    if (status == STATUS_OK) {
        status = run_model(entry, backend, batches);
        backend->ops->destroy(backend);
    }
    catalog_close(catalog);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL BATCH...\n", argv[0]);
        return 2;
    }
    enum status status = count(argv[1], argv + 2);
    if (status != STATUS_OK)
        fprintf(stderr, "%s\n", status_detail(status));
    return status != STATUS_OK;
}
