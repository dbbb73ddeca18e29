// server/memory.c: what fails is told once and to its own thread; what is written is there whole.

#include "memory.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const size_t too_much = PTRDIFF_MAX;

static void check_failure_is_told_once(void)
{
    assert_int_equal(memory_check("here", STATUS_OK), STATUS_OUT_OF_MEMORY);
    assert_string_equal(status_detail(STATUS_OUT_OF_MEMORY), "here: out of memory");
    assert_int_equal(memory_check("here", STATUS_OK), STATUS_OK);
    assert_int_equal(memory_check("here", STATUS_BAD_IMAGE), STATUS_BAD_IMAGE);
}

static void test_failures(void **state)
{
    (void)state;
    assert_null(memory_allocate(too_much));
    check_failure_is_told_once();
    assert_null(memory_clear(too_much, 2));
    check_failure_is_told_once();
    char *memory = memory_allocate(3);
    assert_null(memory_resize(memory, too_much));
    assert_int_equal(memory_check("here", STATUS_BAD_IMAGE), STATUS_OUT_OF_MEMORY);
    free(memory);
}

static void test_nothing_is_no_failure(void **state)
{
    (void)state;
    void *all[] = {memory_allocate(0), memory_clear(0, 8), memory_clear(8, 0),
                   memory_resize(NULL, 0)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_non_null(all[i]);
        free(all[i]);
    }
    assert_int_equal(memory_check("here", STATUS_OK), STATUS_OK);
}

static void *look(void *status)
{
    *(enum status *)status = memory_check("there", STATUS_OK);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t thread;
    enum status status = STATUS_INTERNAL;
    assert_null(memory_allocate(too_much));
    assert_int_equal(pthread_create(&thread, NULL, look, &status), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(status, STATUS_OK);
    check_failure_is_told_once();
}

static void test_stream(void **state)
{
    (void)state;
    enum { LINES = 20000 };
    char *text;
    size_t length = 1, expected = 0;
    FILE *stream = memory_open(&text, &length);
    assert_non_null(stream);
    assert_int_equal(length, 0);
    for (int i = 0; i < LINES; i++)
        expected += (size_t)fprintf(stream, "line %d\n", i);
    assert_int_equal(fflush(stream), 0);
    assert_int_equal(length, expected);
    fputs("end", stream);
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(length, expected + 3);
    assert_int_equal(strlen(text), length);
    assert_memory_equal(text, "line 0\nline 1\n", 14);
    assert_string_equal(text + length - 14, "line 19999\nend");
    free(text);
    stream = memory_open(&text, &length);
    assert_int_equal(fclose(stream), 0);
    assert_null(text);
    assert_int_equal(memory_check("here", STATUS_OK), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_nothing_is_no_failure),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
