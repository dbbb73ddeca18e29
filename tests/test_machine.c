// Control groups of other machines, in a folder: what bounds the cores and the memory, and what is
// no bound. /proc and /sys are written as cgroups(7) and proc(5) describe them.

#include "machine.h"
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char v2[] = "25 1 0:22 / /proc rw - proc proc rw\n"
                         "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
static const char v1[] =
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
#define GIB (INT64_C(1) << 30)

static char root[64];

// Writes a file of the other machine.
static void put(const char *path, const char *text)
{
    char name[512];
    snprintf(name, sizeof name, "%s%s", root, path);
    for (char *slash = name + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        assert_true(mkdir(name, 0777) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

// A process in folder /a/b of the unified tree.
static void put_v2(void)
{
    put("/proc/self/mountinfo", v2);
    put("/proc/self/cgroup", "0::/a/b\n");
}

static void put_v1(void)
{
    put("/proc/self/mountinfo", v1);
    put("/proc/self/cgroup",
        "9:name=systemd:/\n4:memory:/m\n3:cpu,cpuacct:/a/b\n1:cpuset:/x\n0::/\n");
}

static struct machine look(void)
{
    struct machine machine = {.online = 64, .allowed = 64, .memory_bytes = 16 * GIB};
    machine_bound(&machine, root);
    return machine;
}

static void expect_cores(int cores, double quota)
{
    struct machine machine = look();
    assert_int_equal(machine.cores, cores);
    assert_true(machine.quota == quota);
}

static void expect_memory_bytes(int64_t bytes, bool limited)
{
    struct machine machine = look();
    assert_int_equal(machine.memory_bytes, bytes);
    assert_int_equal(machine.memory_limited, limited);
}

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/vitserve-machine-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info, (void)kind, (void)walk;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void test_quotas_of_version_2(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int cores;
        double quota;
    } cases[] = {
        {"max 100000\n", 64, 0.0},      {"50000 100000\n", 1, 0.5},
        {"100000 100000\n", 1, 1.0},    {"150000 100000\n", 1, 1.5},
        {"200000 100000\n", 2, 2.0},    {"250000 100000\n", 2, 2.5},
        {"5000 1000\n", 5, 5.0},        {"1000 1000000\n", 1, 0.001},
        {"6400000 100000\n", 64, 64.0}, {"9000000 100000\n", 64, 90.0},
        {"300000 100000", 3, 3.0}, // no end of line
    };
    put_v2();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("/sys/fs/cgroup/a/b/cpu.max", cases[i].text);
        expect_cores(cases[i].cores, cases[i].quota);
    }
}

static void test_what_is_no_quota(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "\n",
        "max\n",
        "garbage",
        "200000\n",
        "200000 \n",
        "200000 0\n",
        "0 100000\n",
        "-1 100000\n",
        "200000 -5\n",
        "200000x 100000\n",
        "200000 1e5\n",
        "\xff\xfe 100000\n",
    };
    put_v2();
    expect_cores(64, 0.0); // no file
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put("/sys/fs/cgroup/a/b/cpu.max", texts[i]);
        expect_cores(64, 0.0);
    }
}

static void test_the_tightest_on_the_way_to_the_root(void **state)
{
    (void)state;
    put_v2();
    put("/sys/fs/cgroup/a/b/cpu.max", "800000 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "150000 50000\n");
    put("/sys/fs/cgroup/a/other/cpu.max", "50000 100000\n");
    put("/sys/fs/cgroup/a/b/below/cpu.max", "50000 100000\n");
    expect_cores(3, 3.0);
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n"); // a container's own root
    expect_cores(2, 2.0);
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    expect_cores(2, 2.0);
}

static void test_quotas_of_version_1(void **state)
{
    (void)state;
    static const char folder[] = "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us";
    put_v1();
    expect_cores(64, 0.0);
    put(folder, "50000\n");
    expect_cores(64, 0.0); // no period
    put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
    expect_cores(1, 0.5);
    put(folder, "400000\n");
    expect_cores(4, 4.0);
    put(folder, "-1\n");
    expect_cores(64, 0.0);
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "50000\n");
    expect_cores(3, 3.0);
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "often\n");
    expect_cores(64, 0.0);
    put("/sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us", "100000\n"); // of another controller
    put("/sys/fs/cgroup/cpuset/x/cpu.cfs_period_us", "100000\n");
    expect_cores(64, 0.0);
}

// A container with the host's names: the tree is mounted from its own folder on.
static void test_a_container_without_a_namespace(void **state)
{
    (void)state;
    put("/proc/self/mountinfo",
        "32 31 0:29 /docker/4711 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
        "35 31 0:32 /docker/4711 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("/proc/self/cgroup", "4:memory:/docker/4711\n1:cpu:/docker/4711\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
    expect_cores(2, 2.0);
    expect_memory_bytes(GIB / 2, true);
    put("/proc/self/cgroup", "4:memory:/docker/4711\n1:cpu:/docker/4711/inner\n");
    put("/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "100000\n");
    put("/sys/fs/cgroup/cpu/inner/cpu.cfs_period_us", "100000\n");
    expect_cores(1, 1.0);
    put("/proc/self/cgroup", "4:memory:/docker/47110\n1:cpu:/docker/47110\n"); // a longer name
    expect_cores(2, 2.0);
    put("/proc/self/cgroup", "4:memory:/../x\n1:cpu:/../..\n"); // outside the namespace
    expect_cores(2, 2.0);
}

static void test_memory(void **state)
{
    (void)state;
    put_v2();
    expect_memory_bytes(16 * GIB, false);
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    expect_memory_bytes(16 * GIB, false);
    put("/sys/fs/cgroup/a/memory.max", "2147483648\n");
    expect_memory_bytes(2 * GIB, true);
    put("/sys/fs/cgroup/a/b/memory.max", "1073741824\n");
    expect_memory_bytes(GIB, true);
    put("/sys/fs/cgroup/a/b/memory.max", "99999999999999999999\n"); // more than there is
    expect_memory_bytes(2 * GIB, true);
    put("/sys/fs/cgroup/a/memory.max", "lots\n");
    expect_memory_bytes(16 * GIB, false);
    put_v1();
    put("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712\n"); // no limit
    expect_memory_bytes(16 * GIB, false);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    expect_memory_bytes(GIB, true);
}

static void test_files_that_are_missing_or_odd(void **state)
{
    (void)state;
    expect_cores(64, 0.0);
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n"); // no /proc
    expect_cores(2, 2.0);
    put("/proc/self/mountinfo", v2); // which folder is ours is not known
    expect_cores(2, 2.0);
    put("/proc/self/cgroup", "garbage\n0:\n:\n\n0::\n");
    expect_cores(2, 2.0);
    put("/proc/self/mountinfo", "garbage\n - \n1 2 3 - cgroup2\n - cgroup2 cgroup2 rw\n");
    expect_cores(2, 2.0);
    put("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/a\\040b rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/a b/cpu.max", "300000 100000\n");
    expect_cores(3, 3.0);
    put("/proc/self/cgroup", "0::/gone\n");
    expect_cores(3, 3.0);
}

static void test_a_line_without_end(void **state)
{
    (void)state;
    enum { LENGTH = 100000 };
    char *text = malloc(LENGTH + sizeof v2);
    assert_non_null(text);
    memset(text, 'x', LENGTH);
    text[LENGTH - 1] = '\n'; // an overlay of very many layers
    strcpy(text + LENGTH, v2);
    put("/proc/self/mountinfo", text);
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    expect_cores(2, 2.0);
    snprintf(text, LENGTH, "0::/");
    memset(text + 4, 'y', LENGTH - 4);
    put("/proc/self/cgroup", text);
    expect_cores(2, 2.0);
    free(text);
}

static void test_affinity(void **state)
{
    (void)state;
    struct machine machine = {.online = 64, .allowed = 4, .memory_bytes = GIB};
    put_v2();
    machine_bound(&machine, root);
    assert_int_equal(machine.cores, 4);
    put("/sys/fs/cgroup/cpu.max", "600000 100000\n");
    machine_bound(&machine, root);
    assert_int_equal(machine.cores, 4);
    put("/sys/fs/cgroup/cpu.max", "300000 100000\n");
    machine_bound(&machine, root);
    assert_int_equal(machine.cores, 3);
}

static void test_description(void **state)
{
    (void)state;
    static const struct {
        struct machine machine;
        const char *text;
    } cases[] = {
        {{.online = 64, .allowed = 64, .cores = 64}, "64 cores"},
        {{.online = 1, .allowed = 1, .cores = 1}, "1 core"},
        {{.online = 64, .allowed = 4, .cores = 4}, "4 of 64 cores by affinity"},
        {{.online = 64, .allowed = 64, .quota = 2.0, .cores = 2}, "2 of 64 cores by quota"},
        {{.online = 64, .allowed = 64, .quota = 0.5, .cores = 1},
         "1 of 64 cores by a quota of 0.50"},
        {{.online = 64, .allowed = 4, .quota = 90.0, .cores = 4}, "4 of 64 cores by affinity"},
        {{.online = 2, .allowed = 2, .cores = 2, .memory_bytes = 1 << 29, .memory_limited = true},
         "2 cores, 512 MiB of memory by limit"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[160];
        machine_describe(&cases[i].machine, text, sizeof text);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_this_machine(void **state)
{
    (void)state;
    struct machine machine;
    machine_read(&machine);
    assert_in_range(machine.allowed, 1, machine.online);
    assert_in_range(machine.cores, 1, machine.allowed);
    assert_int_equal(machine_cores(), machine.cores);
    assert_true(machine.memory_bytes > 1 << 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_root, remove_root)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_quotas_of_version_2),
        TEST(test_what_is_no_quota),
        TEST(test_the_tightest_on_the_way_to_the_root),
        TEST(test_quotas_of_version_1),
        TEST(test_a_container_without_a_namespace),
        TEST(test_memory),
        TEST(test_files_that_are_missing_or_odd),
        TEST(test_a_line_without_end),
        TEST(test_affinity),
        TEST(test_description),
        TEST(test_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
