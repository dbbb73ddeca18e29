// vitserve classify: pictures from files, no server. A batch is decoded by several threads, runs,
// and is printed, before the next one is looked at.

#include "clock.h"
#include "commands.h"
#include "decoders.h"
#include "model.h"
#include "pictures.h"
#include "postprocess.h"
#include "result.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct session {
    const struct config *config;
    struct pictures pictures;
    struct model model;
    struct vit_run *run;
    uint8_t *pixels; // (max_batch, S, S, 3)
    struct result *results;
    struct decoders *decoders;
    int max_batch, top_k;
    bool json;

    char **paths; // of the batch that is being decoded
    int batch;

    bool progress; // shown on standard error
    int64_t start_ns;
    size_t failed;        // images
    char first_fail[600]; // "NAME: detail"
};

static void prepare_file(struct session *session, const char *path, struct image_guard *guard,
                         struct result *result, uint8_t *pixels)
{
    struct image_limits limits = {.max_pixels = session->config->max_pixels,
                                  .apply_orientation = session->config->exif_orientation != 0,
                                  .fast_decode = session->config->fast_decode != 0,
                                  .guard = guard};
    struct mapping file;
    *result = (struct result){0};
    snprintf(result->name, sizeof result->name, "%s", path);
    enum status status = picture_map(path, &file);
    if (status != STATUS_OK) {
        result_fail(result, status);
        return;
    }
    status = result_prepare(result, file.bytes, file.length, &limits,
                            &session->model.entry->preprocess, pixels);
    mapping_close(&file);
}

static void prepare_one(void *context, int i, struct image_guard *guard, enum status turn)
{
    struct session *session = context;
    size_t side = (size_t)session->model.entry->dims.S, bytes = side * side * 3;
    (void)turn; // nobody's time runs out here
    prepare_file(session, session->paths[i], guard, &session->results[i],
                 session->pixels + bytes * (size_t)i);
}

// A file's name can hold anything, a terminal shall not obey it.
static void print_text(const char *text)
{
    for (; *text; text++)
        putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

static enum status print_table(const struct session *session, const struct result *result)
{
    print_text(result->name);
    if (result->status != STATUS_OK) {
        fputs(": ", stdout);
        print_text(result->detail);
        putchar('\n');
        return STATUS_OK;
    }
    const int K = session->model.entry->dims.K;
    struct prediction *top = calloc((size_t)session->top_k, sizeof *top);
    if (!top)
        return status_fail(STATUS_OUT_OF_MEMORY, "classify: out of memory");
    printf(" (%d x %d)\n", result->width, result->height);
    postprocess_top_k(result->logits, K, session->top_k, top);
    const int width = snprintf(NULL, 0, "%d", K - 1); // of the largest class
    for (int i = 0; i < session->top_k; i++) {
        printf("  %6.2f %%  %*d  ", 100.0 * (double)top[i].probability, width, top[i].class_index);
        print_text(labels_name(session->model.labels, top[i].class_index));
        putchar('\n');
    }
    free(top);
    return STATUS_OK;
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

static void count_failure(struct session *session, const struct result *result)
{
    if (session->failed++ == 0)
        snprintf(session->first_fail, sizeof session->first_fail, "%s: %s", result->name,
                 result->detail);
}

static void hide_progress(const struct session *session)
{
    if (session->progress)
        fputs("\r\033[K", stderr);
}

static void show_progress(const struct session *session, size_t done)
{
    double seconds = (double)(clock_ns() - session->start_ns) * 1e-9;
    if (session->progress)
        fprintf(stderr, "\r%zu/%zu images, %.0f/s\033[K", done, session->pictures.count,
                (double)done / seconds);
}

static enum status print_batch(struct session *session, const float *logits)
{
    for (int i = 0; i < session->batch; i++) {
        struct result *result = &session->results[i];
        if (result->status == STATUS_OK) {
            result->logits = logits;
            logits += session->model.entry->dims.K;
        } else {
            count_failure(session, result);
        }
        TRY(session->json ? print_json(session, result) : print_table(session, result));
    }
    if (fflush(stdout) != 0 || ferror(stdout))
        return status_fail(STATUS_IO, "standard output: %s", strerror(errno));
    return STATUS_OK;
}

// Classifies the `batch` <= max_batch files, and prints them in order.
static enum status classify_batch(struct session *session, int batch, char **paths)
{
    size_t side = (size_t)session->model.entry->dims.S, bytes = side * side * 3;
    const float *logits = NULL;
    int good = 0;
    session->paths = paths;
    session->batch = batch;
    struct decode_request patient = {.client = {.deadline_ns = INT64_MAX}, .max_pixels = INT64_MAX};
    decoders_run(session->decoders, &patient, batch, prepare_one, session);
    for (int i = 0; i < batch; i++)
        if (session->results[i].status == STATUS_OK)
            TRY(vit_set_image(session->run, good++, session->pixels + bytes * (size_t)i));
    if (good > 0)
        TRY(vit_forward(session->run, good, &logits));
    hide_progress(session);
    return print_batch(session, logits);
}

static enum status open_session(struct session *session, int count, char **words)
{
    const struct config *config = session->config;
    session->json = config->json || !isatty(STDOUT_FILENO);
    TRY(pictures_init(&session->pictures, count, words));
    TRY(model_open(config, &session->model));
    TRY(decoders_create((int)config->decode_threads, config->max_decode_bytes, &session->decoders));
    const struct vit_dims *dims = &session->model.entry->dims;
    session->max_batch = config->max_batch > 0 ? (int)config->max_batch : 8;
    session->top_k = config->top_k < dims->K ? (int)config->top_k : dims->K;
    session->results = calloc((size_t)session->max_batch, sizeof *session->results);
    session->pixels = calloc((size_t)session->max_batch, (size_t)dims->S * (size_t)dims->S * 3);
    if (!session->results || !session->pixels)
        return status_fail(STATUS_OUT_OF_MEMORY, "classify: out of memory");
    session->progress =
        isatty(STDERR_FILENO) && session->pictures.count > (size_t)session->max_batch;
    session->start_ns = clock_ns();
    return vit_run_create(dims, &session->model.replicas[0].weights, session->max_batch,
                          &session->run);
}

static enum status classify_all(struct session *session)
{
    size_t count = session->pictures.count;
    for (size_t done = 0; done < count;) {
        size_t left = count - done;
        int batch = left < (size_t)session->max_batch ? (int)left : session->max_batch;
        TRY(classify_batch(session, batch, session->pictures.paths + done));
        done += (size_t)batch;
        if (done < count)
            show_progress(session, done);
    }
    if (session->failed > 0)
        return status_fail(STATUS_IO, "%zu of %zu images failed, the first: %s", session->failed,
                           count, session->first_fail);
    return STATUS_OK;
}

int classify_main(const struct config *config, int count, char **words)
{
    if (count == 0)
        return exit_code(status_fail(STATUS_USAGE, "classify: no image given"));
    struct session session = {.config = config};
    enum status status = open_session(&session, count, words);
    if (status == STATUS_OK)
        status = classify_all(&session);
    if (status != STATUS_OK)
        hide_progress(&session);
    int code = status == STATUS_OK ? EXIT_OK : exit_code(status);
    decoders_free(session.decoders);
    vit_run_free(session.run);
    free(session.pixels);
    free(session.results);
    model_close(&session.model);
    pictures_release(&session.pictures);
    return code;
}
