// vitserve classify: pictures from files, no server.

#include "commands.h"
#include "model.h"
#include "postprocess.h"
#include "result.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct session {
    const struct config *config;
    struct model model;
    struct vit_run *run;
    uint8_t *pixels; // (max_batch, S, S, 3)
    struct result *results;
    int max_batch, top_k;
    int failed; // images
};

// The whole file as memory; *bytes is NULL for an empty one.
static enum status map_file(const char *path, const uint8_t **bytes, size_t *length)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum status status = STATUS_OK;
    *bytes = NULL;
    if (fd < 0 || fstat(fd, &info) != 0)
        status = status_fail(STATUS_IO, "%s", strerror(errno));
    else if (!S_ISREG(info.st_mode))
        status = status_fail(STATUS_IO, "not a file");
    *length = status == STATUS_OK ? (size_t)info.st_size : 0;
    if (*length > 0) {
        void *map = mmap(NULL, *length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            status = status_fail(STATUS_IO, "%s", strerror(errno));
        else
            *bytes = map;
    }
    if (fd >= 0)
        close(fd);
    return status;
}

static enum status prepare_file(struct session *session, const char *path, struct result *result,
                                uint8_t *pixels)
{
    struct image_limits limits = {.max_pixels = session->config->max_pixels,
                                  .apply_orientation = session->config->exif_orientation != 0,
                                  .fast_decode = session->config->fast_decode != 0};
    const uint8_t *bytes;
    size_t length;
    *result = (struct result){0};
    snprintf(result->name, sizeof result->name, "%s", path);
    enum status status = map_file(path, &bytes, &length);
    if (status != STATUS_OK) {
        result_fail(result, status);
        return status;
    }
    status =
        result_prepare(result, bytes, length, &limits, &session->model.entry->preprocess, pixels);
    if (bytes)
        munmap((void *)(uintptr_t)bytes, length);
    return status;
}

static void print_table(const struct session *session, const struct result *result)
{
    if (result->status != STATUS_OK) {
        printf("%s: %s\n", result->name, result->detail);
        return;
    }
    struct prediction *top = calloc((size_t)session->top_k, sizeof *top);
    if (!top)
        return;
    printf("%s (%d x %d)\n", result->name, result->width, result->height);
    postprocess_top_k(result->logits, session->model.entry->dims.K, session->top_k, top);
    for (int i = 0; i < session->top_k; i++)
        printf("  %6.2f %%  %s (%d)\n", 100.0 * (double)top[i].probability,
               labels_name(session->model.labels, top[i].class_index), top[i].class_index);
    free(top);
}

static enum status print_json(const struct session *session, const struct result *result)
{
    char *text;
    enum status status;
    TRY(answer_write(&(struct answer_options){.entry = session->model.entry,
                                              .labels = session->model.labels,
                                              .top_k = session->top_k,
                                              .logits = session->config->logits != 0},
                     result, 1, &status, &text));
    puts(text);
    free(text);
    return STATUS_OK;
}

// Classifies the `count` <= max_batch files as one batch, and prints them in order.
static enum status classify_batch(struct session *session, int count, char **paths)
{
    size_t bytes = (size_t)session->model.entry->dims.S * (size_t)session->model.entry->dims.S * 3;
    const float *logits = NULL;
    int batch = 0;
    for (int i = 0; i < count; i++) {
        uint8_t *pixels = session->pixels + bytes * (size_t)batch;
        if (prepare_file(session, paths[i], &session->results[i], pixels) == STATUS_OK)
            TRY(vit_set_image(session->run, batch++, pixels));
        else
            session->failed++;
    }
    if (batch > 0)
        TRY(vit_forward(session->run, batch, &logits));
    for (int i = 0; i < count; i++) {
        struct result *result = &session->results[i];
        if (result->status == STATUS_OK) {
            result->logits = logits;
            logits += session->model.entry->dims.K;
        }
        if (session->config->json)
            TRY(print_json(session, result));
        else
            print_table(session, result);
    }
    return STATUS_OK;
}

static enum status open_session(struct session *session)
{
    const struct config *config = session->config;
    TRY(model_open(config, &session->model));
    const struct vit_dims *dims = &session->model.entry->dims;
    session->max_batch = config->max_batch > 0 ? (int)config->max_batch : 8;
    session->top_k = config->top_k < dims->K ? (int)config->top_k : dims->K;
    session->results = calloc((size_t)session->max_batch, sizeof *session->results);
    session->pixels = calloc((size_t)session->max_batch, (size_t)dims->S * (size_t)dims->S * 3);
    if (!session->results || !session->pixels)
        return status_fail(STATUS_OUT_OF_MEMORY, "classify: out of memory");
    return vit_run_create(dims, &session->model.replicas[0].weights, session->max_batch,
                          &session->run);
}

int classify_main(const struct config *config, int count, char **paths)
{
    if (count == 0)
        return exit_code(status_fail(STATUS_USAGE, "classify: no image given"));
    struct session session = {.config = config};
    enum status status = open_session(&session);
    for (int i = 0; i < count && status == STATUS_OK; i += session.max_batch) {
        int batch = count - i < session.max_batch ? count - i : session.max_batch;
        status = classify_batch(&session, batch, paths + i);
    }
    int code = status != STATUS_OK ? exit_code(status) : session.failed ? EXIT_FAILED : EXIT_OK;
    vit_run_free(session.run);
    free(session.pixels);
    free(session.results);
    model_close(&session.model);
    return code;
}
