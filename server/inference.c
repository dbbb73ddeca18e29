#include "inference.h"
#include "clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct decode_request decode_request_of(const struct engine *engine,
                                               const struct client *client)
{
    const struct config *config = engine->config;
    const int64_t pixels = config->max_request_pixels;
    return (struct decode_request){.client = *client,
                                   .max_pixels = pixels ? pixels : 4 * config->max_pixels};
}

static enum status decode(struct engine *engine, const struct upload *image,
                          struct image_guard *guard, struct result *result, uint8_t *pixels)
{
    const struct config *config = engine->config;
    struct image_limits limits = {.max_pixels = config->max_pixels,
                                  .apply_orientation = config->exif_orientation != 0,
                                  .fast_decode = config->fast_decode != 0,
                                  .guard = guard};
    enum status status = result_prepare(result, image->bytes, image->length, &limits,
                                        &engine->model->entry->preprocess, pixels);
    metrics_observe(engine->metrics, STAGE_DECODE, result->decode_ns);
    return status;
}

static enum status decode_in_turn(struct engine *engine, const struct client *client,
                                  const struct upload *image, struct result *result,
                                  uint8_t *pixels)
{
    struct decode_request request = decode_request_of(engine, client);
    struct turn turn;
    enum status status = turn_take(decoders_turns(engine->decoders), &request, &turn);
    if (status != STATUS_OK) {
        result_fail(result, status);
        return status;
    }
    status = decode(engine, image, &turn.guard, result, pixels);
    turn_give(&turn);
    return status;
}

static void set_name(struct result *result, const struct upload *image)
{
    snprintf(result->name, sizeof result->name, "%s", image->name);
}

static void add_times(const struct result *result, struct trace *trace)
{
    trace->decode_ns += result->decode_ns;
    trace->preprocess_ns += result->preprocess_ns;
}

enum status inference_prepare(struct engine *engine, const struct client *client,
                              const struct upload *image, struct trace *trace,
                              struct result *result, uint8_t *pixels)
{
    enum status status = STATUS_OK;
    set_name(result, image);
    if (image->cropped) {
        memcpy(pixels, image->bytes, image->length);
        result->width = result->height = engine->model->entry->dims.S;
    } else {
        status = decode_in_turn(engine, client, image, result, pixels);
    }
    add_times(result, trace);
    return status;
}

// The images of one request, decoded side by side.
struct group {
    struct engine *engine;
    const struct upload *images;
    struct inference *inference;
};

// On any thread: touches what belongs to image i alone.
static void prepare_one(void *context, int i, struct image_guard *guard, enum status turn)
{
    const struct group *group = context;
    struct result *result = &group->inference->results[i];
    struct job *job = group->inference->jobs[i];
    set_name(result, &group->images[i]);
    if (turn != STATUS_OK)
        result_fail(result, turn);
    else if (decode(group->engine, &group->images[i], guard, result, job->pixels) == STATUS_OK)
        queue_submit(job);
}

// What fails the request as a whole is returned.
static enum status prepare_all(struct engine *engine, const struct upload *images,
                               struct trace *trace, struct inference *inference)
{
    const struct client *client = &inference->ticket.client;
    int count = inference->count;
    if (count > 1 && !images[0].cropped) { // all are, or none
        struct group group = {engine, images, inference};
        struct decode_request request = decode_request_of(engine, client);
        decoders_run(engine->decoders, &request, count, prepare_one, &group);
        for (int i = 0; i < count; i++)
            add_times(&inference->results[i], trace);
        return decode_request_check(&request);
    }
    for (int i = 0; i < count; i++)
        if (inference_prepare(engine, client, &images[i], trace, &inference->results[i],
                              inference->jobs[i]->pixels) == STATUS_OK)
            queue_submit(inference->jobs[i]);
    return STATUS_OK;
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

static enum status run_jobs(struct engine *engine, const struct upload *images, struct trace *trace,
                            struct inference *inference)
{
    enum status prepared = prepare_all(engine, images, trace, inference);
    ticket_wait(&inference->ticket);
    if (prepared != STATUS_OK)
        return prepared;
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
    return STATUS_OK;
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

static enum status run(struct engine *engine, const struct client *client,
                       const struct upload *images, int count, struct trace *trace,
                       struct inference *inference)
{
    enum status status = reserve(engine, client, count, inference);
    if (status != STATUS_OK) {
        release_memory(inference);
        return status;
    }
    status = run_jobs(engine, images, trace, inference);
    if (status != STATUS_OK)
        inference_release(inference);
    return status;
}

enum status inference_run(struct engine *engine, const struct client *client,
                          const struct upload *images, int count, struct trace *trace,
                          struct inference *inference)
{
    int64_t start = clock_ns();
    *inference = (struct inference){0};
    enum status status = run(engine, client, images, count, trace, inference);
    bool success = status == STATUS_OK;
    for (int i = 0; i < inference->count; i++)
        success = success && inference->results[i].status == STATUS_OK;
    if (status != STATUS_OK)
        trace->images[inference_outcome(status)] += count;
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
