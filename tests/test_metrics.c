// server/metrics.c: what the text says of what was counted, from many threads too.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "metrics.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct gauges some = {.queue_images = 3,
                                   .inflight_requests = 2,
                                   .inflight_bytes = INT64_C(5000000000),
                                   .device_memory_bytes = INT64_C(6000000000),
                                   .ready = true,
                                   .version = "1.2.3",
                                   .device = "cpu",
                                   .precision = "bf16",
                                   .model = "tiny"};

static struct metrics *create(void)
{
    struct metrics *metrics = NULL;
    assert_int_equal(metrics_create(&metrics), STATUS_OK);
    return metrics;
}

static char *write_text(struct metrics *metrics)
{
    char *text = NULL;
    assert_int_equal(metrics_write(metrics, &some, &text), STATUS_OK);
    return text;
}

// The text holds this line as a whole.
static void expect_line(const char *text, const char *line)
{
    char whole[256];
    snprintf(whole, sizeof whole, "\n%s\n", line);
    if (!strstr(text, whole))
        fail_msg("no line \"%s\" in:\n%s", line, text);
}

// The value of the line that begins with this name and labels.
static double value_of(const char *text, const char *series)
{
    char start[256];
    snprintf(start, sizeof start, "\n%s ", series);
    const char *at = strstr(text, start);
    if (!at)
        fail_msg("no \"%s\" in:\n%s", series, text);
    return strtod(at + strlen(start), NULL);
}

static void nothing_yet(void **state)
{
    (void)state;
    struct metrics *metrics = create();
    char *text = write_text(metrics);
    expect_line(text, "vitserve_images_total{outcome=\"ok\"} 0");
    expect_line(text, "vitserve_images_total{outcome=\"cancelled\"} 0");
    expect_line(text, "vitserve_batches_total{reason=\"full\"} 0");
    expect_line(text, "vitserve_infer_seconds_bucket{le=\"+Inf\"} 0");
    expect_line(text, "vitserve_infer_seconds_sum 0");
    expect_line(text, "vitserve_infer_seconds_count 0");
    expect_line(text, "vitserve_queue_images 3");
    expect_line(text, "vitserve_inflight_requests 2");
    expect_line(text, "vitserve_inflight_bytes 5000000000");
    expect_line(text, "vitserve_device_memory_bytes 6000000000");
    expect_line(text, "vitserve_ready 1");
    expect_line(text, "vitserve_build_info{version=\"1.2.3\",device=\"cpu\",precision=\"bf16\","
                      "model=\"tiny\"} 1");
    assert_null(strstr(text, "vitserve_requests_total{"));
    assert_int_equal(text[strlen(text) - 1], '\n');
    free(text);
    metrics_free(metrics);
    metrics_free(NULL);
}

static void counters(void **state)
{
    (void)state;
    struct metrics *metrics = create();
    metrics_count_request(metrics, "/classify", 200, 1000);
    metrics_count_request(metrics, "/classify", 200, 1000);
    metrics_count_request(metrics, "/classify", 413, 1000);
    metrics_count_request(metrics, "other", 404, 1000);
    metrics_count_images(metrics, OUTCOME_OK, 7);
    metrics_count_images(metrics, OUTCOME_OK, 0);
    metrics_count_images(metrics, OUTCOME_BAD_IMAGE, 6);
    metrics_count_images(metrics, OUTCOME_REJECTED, 5);
    metrics_count_images(metrics, OUTCOME_EXPIRED, 2);
    metrics_count_images(metrics, OUTCOME_CANCELLED, 3);
    metrics_count_batch(metrics, 4, true);
    metrics_count_batch(metrics, 3, false);
    metrics_count_batch(metrics, 1, false);
    char *text = write_text(metrics);
    expect_line(text, "vitserve_requests_total{path=\"/classify\",status=\"200\"} 2");
    expect_line(text, "vitserve_requests_total{path=\"/classify\",status=\"413\"} 1");
    expect_line(text, "vitserve_requests_total{path=\"other\",status=\"404\"} 1");
    expect_line(text, "vitserve_request_seconds_count 4");
    expect_line(text, "vitserve_images_total{outcome=\"ok\"} 7");
    expect_line(text, "vitserve_images_total{outcome=\"bad_image\"} 6");
    expect_line(text, "vitserve_images_total{outcome=\"rejected\"} 5");
    expect_line(text, "vitserve_images_total{outcome=\"expired\"} 2");
    expect_line(text, "vitserve_images_total{outcome=\"cancelled\"} 3");
    expect_line(text, "vitserve_images_total{outcome=\"failed\"} 0");
    expect_line(text, "vitserve_batches_total{reason=\"full\"} 1");
    expect_line(text, "vitserve_batches_total{reason=\"idle\"} 2");
    expect_line(text, "vitserve_batch_images_sum 8");
    expect_line(text, "vitserve_batch_images_count 3");
    expect_line(text, "vitserve_batch_images_bucket{le=\"1\"} 1");
    expect_line(text, "vitserve_batch_images_bucket{le=\"2\"} 1");
    expect_line(text, "vitserve_batch_images_bucket{le=\"4\"} 3");
    free(text);
    metrics_free(metrics);
}

// A value on a bound is in its bucket; one beyond them all in +Inf alone.
static void buckets(void **state)
{
    (void)state;
    const int64_t ms = 1000000;
    struct metrics *metrics = create();
    metrics_observe(metrics, STAGE_QUEUE, 0);
    metrics_observe(metrics, STAGE_QUEUE, ms / 4);
    metrics_observe(metrics, STAGE_QUEUE, ms / 4 + 1);
    metrics_observe(metrics, STAGE_QUEUE, 10000 * ms);
    metrics_observe(metrics, STAGE_QUEUE, 10001 * ms);
    metrics_observe(metrics, STAGE_DECODE, 3 * ms);
    char *text = write_text(metrics);
    expect_line(text, "vitserve_queue_seconds_bucket{le=\"0.00025\"} 2");
    expect_line(text, "vitserve_queue_seconds_bucket{le=\"0.0005\"} 3");
    expect_line(text, "vitserve_queue_seconds_bucket{le=\"5\"} 3");
    expect_line(text, "vitserve_queue_seconds_bucket{le=\"10\"} 4");
    expect_line(text, "vitserve_queue_seconds_bucket{le=\"+Inf\"} 5");
    expect_line(text, "vitserve_queue_seconds_count 5");
    assert_float_equal(value_of(text, "vitserve_queue_seconds_sum"), 20.0015, 1e-5);
    expect_line(text, "vitserve_decode_seconds_bucket{le=\"0.0025\"} 0");
    expect_line(text, "vitserve_decode_seconds_bucket{le=\"0.005\"} 1");
    expect_line(text, "vitserve_decode_seconds_count 1");
    expect_line(text, "vitserve_infer_seconds_count 0");
    free(text);
    metrics_free(metrics);
}

// Thirty routes, each with every status of the table, are more than there are.
static void rows_for_all_routes(void **state)
{
    (void)state;
    static char routes[30][8];
    static const int statuses[] = {200, 400, 401, 404, 405, 408, 413, 415, 429, 500, 503, 504};
    enum { STATUSES = sizeof statuses / sizeof *statuses };
    struct metrics *metrics = create();
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 30 * STATUSES; i++) {
            snprintf(routes[i / STATUSES], sizeof *routes, "/%d", i / STATUSES);
            metrics_count_request(metrics, routes[i / STATUSES], statuses[i % STATUSES], 0);
        }
    char *text = write_text(metrics), line[128];
    for (int i = 0; i < 30 * STATUSES; i++) {
        snprintf(line, sizeof line, "vitserve_requests_total{path=\"/%d\",status=\"%d\"} 2",
                 i / STATUSES, statuses[i % STATUSES]);
        expect_line(text, line);
    }
    free(text);
    metrics_free(metrics);
}

// More than anybody has, which cost their rows alone.
static void rows_without_end(void **state)
{
    (void)state;
    struct metrics *metrics = create();
    for (int status = 1000; status < 3000; status++)
        metrics_count_request(metrics, "/classify", status, 0);
    metrics_count_request(metrics, "/classify", 1000, 0);
    metrics_count_request(metrics, "/classify", 2999, 0);
    char *text = write_text(metrics);
    expect_line(text, "vitserve_requests_total{path=\"/classify\",status=\"1000\"} 2");
    expect_line(text, "vitserve_request_seconds_count 2002");
    expect_line(text, "vitserve_images_total{outcome=\"ok\"} 0");
    expect_line(text, "vitserve_batches_total{reason=\"idle\"} 0");
    assert_null(strstr(text, "status=\"2999\""));
    free(text);
    metrics_free(metrics);
}

static void expect_statistic(const struct statistic *statistic, uint64_t count, uint64_t ns)
{
    assert_int_equal(statistic->count, count);
    assert_int_equal(statistic->ns, ns);
}

// Of what fails, the time as a whole is counted, and nothing else.
static void inferences(void **state)
{
    (void)state;
    static struct inference_statistics seen;
    const struct inference_times first = {1000, 200, 30, 4}, second = {5000, 600, 70, 8};
    struct metrics *metrics = create();
    metrics_count_inference(metrics, false, &first);
    metrics_read_inferences(metrics, &seen);
    expect_statistic(&seen.success, 0, 0);
    expect_statistic(&seen.fail, 1, 1000);
    expect_statistic(&seen.queue, 0, 0);
    expect_statistic(&seen.compute_input, 0, 0);
    expect_statistic(&seen.compute_infer, 0, 0);
    assert_int_equal(seen.last_ms, 0);

    const time_t before = time(NULL);
    metrics_count_inference(metrics, true, &first);
    metrics_count_inference(metrics, true, &second);
    metrics_read_inferences(metrics, &seen);
    expect_statistic(&seen.success, 2, 6000);
    expect_statistic(&seen.fail, 1, 1000);
    expect_statistic(&seen.queue, 2, 800);
    expect_statistic(&seen.compute_input, 2, 100);
    expect_statistic(&seen.compute_infer, 2, 12);
    assert_in_range(seen.last_ms, (before - 1) * 1000, (time(NULL) + 1) * 1000);

    const int64_t last = seen.last_ms;
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    metrics_count_inference(metrics, false, &second);
    metrics_read_inferences(metrics, &seen);
    expect_statistic(&seen.fail, 2, 6000);
    assert_int_equal(seen.last_ms, last);
    metrics_free(metrics);
}

// By their size, up to the largest that there can be.
static void times_of_batches(void **state)
{
    (void)state;
    static struct inference_statistics seen;
    struct metrics *metrics = create();
    metrics_time_batch(metrics, 1, 10);
    metrics_time_batch(metrics, 1, 15);
    metrics_time_batch(metrics, METRICS_MAX_BATCH, 70);
    metrics_time_batch(metrics, METRICS_MAX_BATCH + 1, 80);
    metrics_read_inferences(metrics, &seen);
    uint64_t batches = 0;
    for (int i = 0; i <= METRICS_MAX_BATCH; i++)
        batches += seen.batches[i].count;
    assert_int_equal(batches, 3);
    expect_statistic(&seen.batches[1], 2, 25);
    expect_statistic(&seen.batches[METRICS_MAX_BATCH], 1, 70);
    metrics_free(metrics);
}

enum { THREADS = 4, ROUNDS = 2000 };

static void *count_all(void *argument)
{
    struct metrics *metrics = argument;
    for (int i = 0; i < ROUNDS; i++) {
        metrics_count_request(metrics, i % 2 ? "/classify" : "/model", 200, i);
        metrics_count_images(metrics, (enum outcome)(i % OUTCOMES), 1);
        metrics_observe(metrics, STAGE_INFER, i * 1000);
        metrics_count_batch(metrics, 1, i % 2);
        if (i % 100 == 0) {
            char *text = write_text(metrics);
            // The text is of one moment.
            double full = value_of(text, "vitserve_batches_total{reason=\"full\"}");
            double idle = value_of(text, "vitserve_batches_total{reason=\"idle\"}");
            assert_true(value_of(text, "vitserve_batch_images_count") == full + idle);
            free(text);
        }
    }
    return NULL;
}

static void many_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    struct metrics *metrics = create();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_all, metrics), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    char *text = write_text(metrics);
    const double total = THREADS * ROUNDS;
    static const char *const halves[] = {
        "vitserve_requests_total{path=\"/classify\",status=\"200\"}",
        "vitserve_requests_total{path=\"/model\",status=\"200\"}",
        "vitserve_batches_total{reason=\"full\"}",
        "vitserve_batches_total{reason=\"idle\"}",
    };
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        assert_true(value_of(text, halves[i]) == total / 2);
    double images = 0;
    for (const char *at = text; (at = strstr(at, "\nvitserve_images_total{")); at++)
        images += strtod(strchr(at, ' ') + 1, NULL);
    assert_true(images == total);
    assert_true(value_of(text, "vitserve_infer_seconds_count") == total);
    assert_true(value_of(text, "vitserve_request_seconds_count") == total);
    assert_true(value_of(text, "vitserve_batch_images_sum") == total);
    free(text);
    metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_yet),      cmocka_unit_test(counters),
        cmocka_unit_test(buckets),          cmocka_unit_test(rows_for_all_routes),
        cmocka_unit_test(rows_without_end), cmocka_unit_test(inferences),
        cmocka_unit_test(times_of_batches), cmocka_unit_test(many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
