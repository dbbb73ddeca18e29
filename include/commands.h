#pragma once
// The subcommands of the program. Each takes its configuration and returns the exit code.

#include "config.h"

// What supervisors act on: serve leaves with EXIT_DEVICE when the device is lost, with EXIT_STOP
// when a stop did not come to its end in time.
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DEVICE = 3, EXIT_STOP = 4 };

int serve_main(const struct config *config);
int bench_main(const struct config *config);
int classify_main(const struct config *config, int count, char **words);
int pull_main(const struct config *config, int count, char **names);
int healthcheck_main(const struct config *config);

// Says on standard error what failed; returns the exit code for it.
int exit_code(enum status status);
