// server/mapping.c: files as memory, and what happens when one is cut short under us.

#include "mapping.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BYTES = 100000 };

static char folder[] = "/tmp/vitserve-mapping-XXXXXX", path[64];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * i >> 3);
}

static void write_file(size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < bytes; i++)
        fputc(byte_at(i), file);
    assert_int_equal(fclose(file), 0);
}

static bool is_mapped(const void *page)
{
    unsigned char resident;
    return mincore((void *)(uintptr_t)page, 1, &resident) == 0;
}

static void test_content(void **state)
{
    (void)state;
    struct mapping first, second, empty;
    write_file(BYTES);
    assert_int_equal(mapping_open(path, &first), STATUS_OK);
    assert_int_equal(mapping_open(path, &second), STATUS_OK);
    assert_int_equal(first.length, BYTES);
    const void *page = first.bytes;
    assert_true(is_mapped(page));
    mapping_close(&first);
    assert_false(is_mapped(page));
    assert_null(first.bytes);
    mapping_close(&first); // nothing to close
    for (size_t i = 0; i < BYTES; i++)
        if (second.bytes[i] != byte_at(i))
            fail_msg("byte %zu", i);
    mapping_close(&second);
    write_file(0);
    assert_int_equal(mapping_open(path, &empty), STATUS_OK);
    assert_null(empty.bytes);
    assert_int_equal(empty.length, 0);
    mapping_close(&empty);
}

static void refuse(const char *name, const char *reason)
{
    struct mapping mapping = {(const uint8_t *)"x", 1};
    assert_int_equal(mapping_open(name, &mapping), STATUS_IO);
    assert_string_equal(status_detail(STATUS_IO), reason);
    assert_null(mapping.bytes);
}

static void test_what_is_no_file(void **state)
{
    (void)state;
    unlink(path);
    refuse(path, "No such file or directory");
    refuse(folder, "not a regular file");
    refuse("/dev/zero", "not a regular file");
    assert_int_equal(mkfifo(path, 0600), 0);
    refuse(path, "not a regular file");
    unlink(path);
}

// In a child, where no file was mapped before: cmocka has handlers of its own, which the first
// mapping replaces.
static void read_what_was_cut(void)
{
    struct mapping other, cut;
    if (mapping_open("/proc/self/exe", &other) != STATUS_OK ||
        mapping_open(path, &cut) != STATUS_OK || truncate(path, 10) != 0)
        _exit(99);
    for (size_t i = 0; i < other.length; i += 100)
        (void)((const volatile uint8_t *)other.bytes)[i];
    for (size_t i = 0; i < cut.length; i++)
        (void)((const volatile uint8_t *)cut.bytes)[i];
    _exit(98);
}

static void raise_another(void)
{
    struct mapping mapping;
    if (mapping_open(path, &mapping) == STATUS_OK)
        raise(SIGBUS);
    _exit(98);
}

// Returns how it ended, as waitpid() says it.
static int run_child(void (*child)(void), char *output, size_t room)
{
    int ends[2], end;
    assert_int_equal(pipe(ends), 0);
    pid_t id = fork();
    assert_true(id >= 0);
    if (id == 0) {
        dup2(ends[1], STDERR_FILENO);
        child();
    }
    close(ends[1]);
    FILE *file = fdopen(ends[0], "r");
    assert_non_null(file);
    output[fread(output, 1, room - 1, file)] = 0;
    fclose(file);
    assert_int_equal(waitpid(id, &end, 0), id);
    return end;
}

static void test_cut_short(void **state)
{
    (void)state;
    char output[4096], expected[256];
    write_file(BYTES);
    int end = run_child(read_what_was_cut, output, sizeof output);
    snprintf(expected, sizeof expected,
             "vitserve: %s: the file was cut short, or its disk failed, while it was read\n", path);
    assert_string_equal(output, expected);
    assert_true(WIFEXITED(end));
    assert_int_equal(WEXITSTATUS(end), 1);
}

static void test_another_bus_error(void **state)
{
    (void)state;
    char output[4096];
    write_file(BYTES);
    int end = run_child(raise_another, output, sizeof output);
    assert_string_equal(output, "");
    assert_true(WIFSIGNALED(end));
    assert_int_equal(WTERMSIG(end), SIGBUS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_short), // before any mapping here
        cmocka_unit_test(test_another_bus_error),
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_what_is_no_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
