#include "device_under_test.h"
#include "device.h"
#include "log.h"
#include "machine.h"
#include <stdio.h>
#include <string.h>

enum { WRONG_USAGE = 2, NOT_HERE = 77 };

static const char *chosen;

bool on_cpu(void)
{
    return strncmp(chosen, "cpu", 3) == 0;
}

enum status open_device(enum precision precision, int threads, struct backend **backend)
{
    const char *isa = strchr(chosen, ':');
    if (isa)
        return backend_cpu_create_isa(isa + 1, precision, threads > 0 ? threads : machine_cores(),
                                      backend);
    return device_open(on_cpu() ? DEVICE_CPU : DEVICE_CUDA, precision, threads, backend);
}

int choose_device(int argc, char **argv)
{
    chosen = argc == 2 ? argv[1] : "";
    if (strcmp(chosen, "cpu") != 0 && strcmp(chosen, "cuda") != 0 &&
        strncmp(chosen, "cpu:", 4) != 0) {
        fprintf(stderr, "usage: %s cpu|cpu:ISA|cuda\n", argv[0]);
        return WRONG_USAGE;
    }
    log_set(LOG_ERROR, LOG_TEXT);
    struct backend *backend;
    enum status status = open_device(PRECISION_AUTO, 0, &backend);
    if (status != STATUS_OK) {
        printf("Skipped: %s\n", status_detail(status));
        return NOT_HERE;
    }
    backend->ops->destroy(backend);
    return 0;
}
