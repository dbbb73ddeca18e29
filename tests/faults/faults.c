// A vitserve_cuda.so for tests: the CPU backend, which does on command what a GPU does on a bad
// day. The file that FAULTS names holds the command, and is read again for each batch and each op:
//   ok          nothing
//   fail        the batch fails, the device is not lost
//   lost        the batch fails, and the device with it
//   hang        the batch stands still until the file says something else
//   slow MS     every op takes so much longer
//   cold MS     the first batch of each size takes so much longer

#include "backend.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BATCH = 256 };

static struct backend_ops faulty;
static const struct backend_ops *sound;

static int read_command(char command[16])
{
    int milliseconds = 0;
    FILE *file = fopen(getenv("FAULTS"), "r");
    if (!file || fscanf(file, "%15s %d", command, &milliseconds) < 1)
        strcpy(command, "ok");
    if (file)
        fclose(file);
    return milliseconds;
}

static enum status faulty_run(struct stream *stream, int batch, int max_batch, forward_fn forward,
                              void *context)
{
    static bool seen[MAX_BATCH + 1];
    char command[16];
    int milliseconds;
    while (milliseconds = read_command(command), strcmp(command, "hang") == 0)
        usleep(10 * 1000);
    if (strcmp(command, "cold") == 0 && batch <= MAX_BATCH && !seen[batch]) {
        seen[batch] = true;
        usleep((useconds_t)milliseconds * 1000);
    }
    if (strcmp(command, "fail") == 0)
        return status_fail(STATUS_INTERNAL, "this batch was to fail");
    if (strcmp(command, "lost") == 0)
        return status_fail(STATUS_DEVICE_FAILED, "the device was to be lost");
    return sound->run(stream, batch, max_batch, forward, context);
}

static enum status faulty_linear(struct stream *stream, const struct linear_args *args)
{
    char command[16];
    int milliseconds = read_command(command);
    if (strcmp(command, "slow") == 0)
        usleep((useconds_t)milliseconds * 1000);
    return sound->linear(stream, args);
}

enum status backend_cuda_count(int *count)
{
    *count = 1;
    return STATUS_OK;
}

enum status backend_cuda_create(int device, enum precision precision, struct backend **backend)
{
    (void)device;
    enum status status = backend_cpu_create(precision, 1, backend);
    if (status != STATUS_OK)
        return status;
    sound = (*backend)->ops;
    faulty = *sound;
    faulty.run = faulty_run;
    faulty.linear = faulty_linear;
    (*backend)->ops = &faulty;
    return STATUS_OK;
}
