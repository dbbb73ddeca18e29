#include "inference.h"
#include "clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Waits for a turn to decode.
static enum status take_turn(struct engine *engine, int64_t deadline_ns)
{
    const struct timespec until = {.tv_sec = deadline_ns / 1000000000,
                                   .tv_nsec = deadline_ns % 1000000000};
    while (sem_clockwait(&engine->decoders, CLOCK_MONOTONIC, &until) != 0)
        if (errno == ETIMEDOUT)
            return status_fail(STATUS_DEADLINE, "the time ran out before the image was decoded");
    return STATUS_OK;
}

static enum status decode(struct engine *engine, int64_t deadline_ns, const struct upload *image,
                          struct result *result, uint8_t *pixels)
{
    const struct config *config = engine->config;
    struct image_limits limits = {.max_pixels = config->max_pixels,
                                  .apply_orientation = config->exif_orientation != 0,
                                  .fast_decode = config->fast_decode != 0};
    enum status status = take_turn(engine, deadline_ns);
    if (status != STATUS_OK) {
        result_fail(result, status);
        return status;
    }
    status = result_prepare(result, image->bytes, image->length, &limits,
                            &engine->model->entry->preprocess, pixels);
    sem_post(&engine->decoders);
    metrics_observe(engine->metrics, STAGE_DECODE, result->decode_ns);
    return status;
}

enum status inference_prepare(struct engine *engine, int64_t deadline_ns,
                              const struct upload *image, struct trace *trace,
                              struct result *result, uint8_t *pixels)
{
    enum status status = STATUS_OK;
    snprintf(result->name, sizeof result->name, "%s", image->name);
    if (image->cropped) {
        memcpy(pixels, image->bytes, image->length);
        result->width = result->height = engine->model->entry->dims.S;
    } else {
        status = decode(engine, deadline_ns, image, result, pixels);
    }
    trace->decode_ns += result->decode_ns;
    trace->preprocess_ns += result->preprocess_ns;
    return status;
}

static void note_times(struct engine *engine, const struct job *job, struct trace *trace)
{
    metrics_observe(engine->metrics, STAGE_QUEUE, job->queued_ns);
    metrics_observe(engine->metrics, STAGE_INFER, job->infer_ns);
    trace->queue_ns = job->queued_ns > trace->queue_ns ? job->queued_ns : trace->queue_ns;
    trace->infer_ns = job->infer_ns > trace->infer_ns ? job->infer_ns : trace->infer_ns;
    trace->batch = job->batch > trace->batch ? job->batch : trace->batch;
}

enum outcome inference_outcome(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return OUTCOME_OK;
    case STATUS_BAD_IMAGE:
    case STATUS_IMAGE_TOO_LARGE:
    case STATUS_UNSUPPORTED_IMAGE:
        return OUTCOME_BAD_IMAGE;
    case STATUS_QUEUE_FULL:
    case STATUS_TOO_MANY_IMAGES:
    case STATUS_DRAINING:
        return OUTCOME_REJECTED;
    case STATUS_DEADLINE:
        return OUTCOME_EXPIRED;
    case STATUS_CANCELLED:
        return OUTCOME_CANCELLED;
    default:
        return OUTCOME_FAILED;
    }
}

static void run_jobs(struct engine *engine, const struct upload *images, struct trace *trace,
                     struct inference *inference)
{
    for (int i = 0; i < inference->count; i++)
        if (inference_prepare(engine, inference->ticket.client.deadline_ns, &images[i], trace,
                              &inference->results[i], inference->jobs[i]->pixels) == STATUS_OK)
            queue_submit(inference->jobs[i]);
    ticket_wait(&inference->ticket);
    for (int i = 0; i < inference->count; i++) {
        struct result *result = &inference->results[i];
        const struct job *job = inference->jobs[i];
        if (result->status == STATUS_OK && job->status == STATUS_OK) {
            result->logits = job->logits;
            note_times(engine, job, trace);
        } else if (result->status == STATUS_OK) {
            result_fail(result, job->status);
        }
        trace->images[inference_outcome(result->status)]++;
    }
}

static enum status reserve(struct engine *engine, const struct client *client, int count,
                           struct inference *inference)
{
    inference->count = count;
    inference->results = calloc((size_t)count, sizeof *inference->results);
    inference->jobs = calloc((size_t)count, sizeof *inference->jobs);
    if (!inference->results || !inference->jobs)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    return queue_reserve(engine->queue, client, count, inference->jobs, &inference->ticket);
}

static void release_memory(struct inference *inference)
{
    free(inference->jobs);
    free(inference->results);
    *inference = (struct inference){0};
}

enum status inference_run(struct engine *engine, const struct client *client,
                          const struct upload *images, int count, struct trace *trace,
                          struct inference *inference)
{
    int64_t start = clock_ns();
    *inference = (struct inference){0};
    enum status status = reserve(engine, client, count, inference);
    bool success = status == STATUS_OK;
    if (status == STATUS_OK) {
        run_jobs(engine, images, trace, inference);
        for (int i = 0; i < count; i++)
            success = success && inference->results[i].status == STATUS_OK;
    } else {
        trace->images[inference_outcome(status)] += count;
        release_memory(inference);
    }
    metrics_count_inference(
        engine->metrics, success,
        &(struct inference_times){.total_ns = clock_ns() - start,
                                  .queue_ns = trace->queue_ns,
                                  .input_ns = trace->decode_ns + trace->preprocess_ns,
                                  .infer_ns = trace->infer_ns});
    return status;
}

void inference_release(struct inference *inference)
{
    if (inference->count > 0)
        ticket_release(&inference->ticket);
    release_memory(inference);
}
