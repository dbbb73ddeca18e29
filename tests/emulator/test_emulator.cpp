// Tests of the emulator: what it computes, and that it notices what it is there to notice.
#include "check.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

static std::atomic<int> checks, failures;

bool check_that(bool condition, const char *text, const char *file, int line)
{
    checks++;
    if (!condition) {
        failures++;
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
    }
    return condition;
}

bool dies(const std::function<void()> &body, const char *message)
{
    int ends[2];
    if (pipe(ends))
        return false;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        body();
        _exit(0);
    }
    close(ends[1]);
    std::string output;
    char buffer[4096];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
        output.append(buffer, size_t(n));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    bool as_wanted = status != 0 && output.find(message) != std::string::npos;
    if (!as_wanted)
        fprintf(stderr, "wanted death by \"%s\", got status %d and: %s\n", message, status,
                output.c_str());
    return as_wanted;
}

int wrong_seeds(int n, const std::function<bool()> &body)
{
    int wrong = 0;
    for (int seed = 1; seed <= n; seed++) {
        emulator_seed(uint64_t(seed));
        wrong += !body();
    }
    return wrong;
}

void with_environment(const char *name, const char *value, const std::function<void()> &body)
{
    setenv(name, value, 1);
    emulator_reset();
    body();
    unsetenv(name);
    emulator_reset();
}

cudaLaunchConfig_t launch_config(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    return config;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)();
    } tests[] = {
        {"block", test_block},     {"race", test_race},         {"ptx", test_ptx},
        {"overlap", test_overlap}, {"memory", test_memory},     {"stream", test_stream},
        {"graph", test_graph},     {"cublaslt", test_cublaslt}, {"heuristic", test_heuristic}};
    for (const auto &test : tests) {
        if (argc > 1 && strcmp(argv[1], test.name))
            continue;
        int before = failures;
        emulator_reset();
        test.run();
        CHECK(emulator_live() == 0);
        printf("%s: %s\n", test.name, failures == before ? "passed" : "FAILED");
    }
    printf("%d checks, %d failures\n", checks.load(), failures.load());
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
