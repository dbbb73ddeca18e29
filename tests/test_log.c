// server/log.c: whatever a client sends, a line stays one line, JSON stays valid JSON in UTF-8, and
// the fields after it are all there.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "log.h"
#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static FILE *captured; // what standard error has been since start_capture()
static int real_stderr;

static int start_capture(void **state)
{
    (void)state;
    captured = tmpfile();
    real_stderr = dup(STDERR_FILENO);
    return captured && real_stderr >= 0 && dup2(fileno(captured), STDERR_FILENO) >= 0 ? 0 : -1;
}

static int stop_capture(void **state)
{
    (void)state;
    log_set(LOG_INFO, LOG_TEXT);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    fclose(captured);
    return 0;
}

// What was logged since the last call; it lives until the next.
static const char *logged(void)
{
    static char text[1 << 20];
    rewind(captured);
    size_t length = fread(text, 1, sizeof text - 1, captured);
    text[length] = '\0';
    assert_int_equal(ftruncate(fileno(captured), 0), 0);
    lseek(fileno(captured), 0, SEEK_SET);
    return text;
}

// The one line that was logged, without its end.
static const char *logged_line(void)
{
    char *text = (char *)(uintptr_t)logged(), *end = strchr(text, '\n');
    assert_non_null(end);
    assert_string_equal(end, "\n");
    *end = '\0';
    return text;
}

static json_t *logged_object(void)
{
    const char *line = logged_line();
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    if (!object)
        fail_msg("not JSON: %s", line);
    return object;
}

static void expect_text(const json_t *object, const char *name, const char *expected)
{
    const char *text = json_string_value(json_object_get(object, name));
    assert_non_null(text);
    assert_string_equal(text, expected);
}

static void expect_number(const json_t *object, const char *name, double expected)
{
    const json_t *number = json_object_get(object, name);
    assert_true(json_is_number(number));
    assert_float_equal(json_number_value(number), expected, 1e-9);
}

static const struct log_request classified = {.id = "id-1",
                                              .method = "POST",
                                              .path = "/classify",
                                              .code = "",
                                              .http_status = 200,
                                              .images = 2,
                                              .batch = 3,
                                              .bytes_in = 1000,
                                              .bytes_out = 500,
                                              .read_ns = 1000000,
                                              .decode_ns = 2000000,
                                              .preprocess_ns = 3000000,
                                              .queue_ns = 4000000,
                                              .infer_ns = 5000000,
                                              .total_ns = 15001000};

static struct log_request with_path(const char *path)
{
    struct log_request request = classified;
    request.path = path;
    return request;
}

// ---- what a line says ---------------------------------------------------------------------------

static void a_request_in_text(void **state)
{
    (void)state;
    log_set(LOG_INFO, LOG_TEXT);
    log_request(&classified);
    const char *line = logged_line();
    assert_int_equal(strspn(line, "0123456789-T:.Z"), strlen("2026-11-23T08:18:35.123Z"));
    assert_string_equal(strchr(line, ' '),
                        " info request_id=id-1 method=POST path=/classify status=200 bytes_in=1000 "
                        "bytes_out=500 images=2 read_ms=1.000 batch=3 decode_ms=2.000 "
                        "preprocess_ms=3.000 queue_ms=4.000 infer_ms=5.000 total_ms=15.001");
}

static void a_request_in_json(void **state)
{
    (void)state;
    log_set(LOG_INFO, LOG_JSON);
    struct log_request request = classified;
    request.code = "bad_image";
    log_request(&request);
    json_t *object = logged_object();
    assert_int_equal(json_object_size(object), 17);
    expect_text(object, "level", "info");
    expect_text(object, "request_id", "id-1");
    expect_text(object, "method", "POST");
    expect_text(object, "path", "/classify");
    expect_text(object, "code", "bad_image");
    expect_number(object, "status", 200);
    expect_number(object, "bytes_in", 1000);
    expect_number(object, "bytes_out", 500);
    expect_number(object, "images", 2);
    expect_number(object, "batch", 3);
    expect_number(object, "read_ms", 1);
    expect_number(object, "decode_ms", 2);
    expect_number(object, "preprocess_ms", 3);
    expect_number(object, "queue_ms", 4);
    expect_number(object, "infer_ms", 5);
    expect_number(object, "total_ms", 15.001);
    assert_int_equal(strlen(json_string_value(json_object_get(object, "time"))), 24);
    json_decref(object);
}

static void levels(void **state)
{
    (void)state;
    struct log_request probe = with_path("/healthz");
    log_set(LOG_WARNING, LOG_JSON);
    log_request(&classified);
    log_info("not this");
    assert_string_equal(logged(), "");
    log_warning("this");
    assert_non_null(strstr(logged_line(), "\"level\":\"warning\",\"message\":\"this\"}"));
    log_set(LOG_INFO, LOG_JSON);
    log_request(&probe);
    assert_string_equal(logged(), "");
    log_set(LOG_DEBUG, LOG_JSON);
    log_request(&probe);
    assert_non_null(strstr(logged_line(), "\"level\":\"debug\""));
}

// ---- hostile text -------------------------------------------------------------------------------

// Valid UTF-8 comes through; what is none, and what commands a terminal, becomes "?".
static void bytes(void **state)
{
    (void)state;
    static const struct {
        const char *path, *expected;
    } cases[] = {
        {"/a\nb\r\tc", "/a?b??c"},
        {"/\x1b[31m\x7f", "/?[31m?"},
        {"/\"\\/\\\"", "/\"\\/\\\""},
        {"/\xc3\x84\xe2\x82\xac\xf0\x9f\x98\x80", "/\xc3\x84\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"/\xff\xfe", "/??"},
        {"/\xc3", "/?"},
        {"/\xc3(", "/?("},
        {"/\xe2\x82", "/??"},
        {"/\xe2\x82+", "/??+"},
        {"/\xf0\x9f\x98", "/???"},
        {"/\x80\xbf", "/??"},
        {"/\xc0\xaf", "/??"},
        {"/\xe0\x80\xaf", "/???"},
        {"/\xf0\x80\x80\xaf", "/????"},
        {"/\xed\xa0\x80", "/???"},
        {"/\xf4\x90\x80\x80", "/????"},
        {"/\xf5\x80\x80\x80", "/????"},
        {"/\xc2\x9b"
         "31m",
         "/??31m"},
        {"/\xc2\xa0", "/\xc2\xa0"},
        {"", ""},
    };
    log_set(LOG_INFO, LOG_JSON);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct log_request request = with_path(cases[i].path);
        log_request(&request);
        json_t *object = logged_object();
        expect_text(object, "path", cases[i].expected);
        expect_number(object, "total_ms", 15.001);
        json_decref(object);
    }
}

// A text line quotes what could be read as several words.
static void words_in_text(void **state)
{
    (void)state;
    static const struct {
        const char *path, *expected;
    } cases[] = {
        {"/a status=500 x", " path=\"/a status=500 x\" status=200 "},
        {"/a\" status=500", " path=\"/a\\\" status=500\" status=200 "},
        {"/\\", " path=\"/\\\\\" status=200 "},
        {"/a\n2026", " path=\"/a?2026\" status=200 "},
        {"", " path= status=200 "},
        {"*", " path=* status=200 "},
    };
    log_set(LOG_INFO, LOG_TEXT);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct log_request request = with_path(cases[i].path);
        log_request(&request);
        const char *line = logged_line();
        if (!strstr(line, cases[i].expected))
            fail_msg("no \"%s\" in: %s", cases[i].expected, line);
    }
}

// However long the words are and whatever they are made of, the line is whole.
static void long_words(void **state)
{
    (void)state;
    static const char *const pieces[] = {"x", "\"", "\\", "\n", "\xff", "\xf0\x9f\x98\x80"};
    static char text[40000];
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        for (int lead = 0; lead < 4; lead++) {
            size_t size = strlen(pieces[i]);
            memset(text, 'l', (size_t)lead);
            for (size_t at = (size_t)lead; at + size < sizeof text; at += size)
                memcpy(text + at, pieces[i], size + 1);
            struct log_request request = classified;
            request.path = request.method = request.id = request.code = text;
            request.http_status = 2147483647;
            request.images = request.batch = 2147483647;
            request.bytes_in = request.bytes_out = INT64_MAX;
            request.read_ns = request.decode_ns = request.preprocess_ns = request.queue_ns =
                request.infer_ns = request.total_ns = INT64_MIN;
            log_set(LOG_INFO, LOG_JSON);
            log_request(&request);
            json_t *object = logged_object();
            expect_number(object, "total_ms", -9223372036854.776);
            const char *path = json_string_value(json_object_get(object, "path"));
            assert_string_equal(path + strlen(path) - 3, "...");
            json_decref(object);
            log_info("%s", text);
            json_decref(logged_object());
            log_set(LOG_INFO, LOG_TEXT);
            log_request(&request);
            assert_non_null(strstr(logged_line(), " total_ms=-9223372036854."));
            log_info("%s", text);
            logged_line();
        }
}

static void messages(void **state)
{
    (void)state;
    log_set(LOG_INFO, LOG_JSON);
    log_error("%s", "a \"quoted\"\nmessage \xff of \\ \xc3\xa9");
    json_t *object = logged_object();
    assert_int_equal(json_object_size(object), 3);
    expect_text(object, "level", "error");
    expect_text(object, "message", "a \"quoted\"?message ? of \\ \xc3\xa9");
    json_decref(object);
    log_set(LOG_INFO, LOG_TEXT);
    log_error("%s", "a \"quoted\"\nmessage");
    assert_string_equal(strchr(logged_line(), ' '), " error a \"quoted\"?message");
    // What a client sent must not pass for fields.
    log_error("%s", "request_id=1 path=\"/\\");
    assert_string_equal(strchr(logged_line(), ' '), " error \"request_id=1 path=\\\"/\\\\\"");
}

// ---- threads ------------------------------------------------------------------------------------

enum { THREADS = 4, LINES = 300 };

static void *log_many(void *argument)
{
    char id[32], path[600];
    for (int i = 0; i < LINES; i++) {
        snprintf(id, sizeof id, "%d-%d", *(const int *)argument, i);
        memset(path, 'a' + *(const int *)argument, sizeof path);
        path[i] = '\0';
        struct log_request request = with_path(path);
        request.id = id;
        log_request(&request);
    }
    return NULL;
}

static void lines_do_not_mix(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    int numbers[THREADS];
    bool seen[THREADS][LINES] = {0};
    log_set(LOG_INFO, LOG_JSON);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, &numbers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    int count = 0;
    for (const char *line = logged(); *line; line = strchr(line, '\n') + 1, count++) {
        json_t *object = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(object);
        int thread, number;
        const char *id = json_string_value(json_object_get(object, "request_id"));
        const char *path = json_string_value(json_object_get(object, "path"));
        assert_int_equal(sscanf(id, "%d-%d", &thread, &number), 2);
        assert_int_equal(strlen(path), number);
        for (const char *c = path; *c; c++)
            assert_int_equal(*c, 'a' + thread);
        assert_false(seen[thread][number]);
        seen[thread][number] = true;
        json_decref(object);
    }
    assert_int_equal(count, THREADS * LINES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start_capture, stop_capture)
    const struct CMUnitTest tests[] = {
        TEST(a_request_in_text), TEST(a_request_in_json), TEST(levels),   TEST(bytes),
        TEST(words_in_text),     TEST(long_words),        TEST(messages), TEST(lines_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
