#include "device.h"
#include "log.h"
#include "machine.h"
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// vitserve_cuda.so in the directory of the executable.
static enum status module_path(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size);
    if (length < 0 || (size_t)length >= size)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "cannot find the path of the executable");
    path[length] = '\0';
    char *name = strrchr(path, '/') + 1;
    if ((size_t)snprintf(name, size - (size_t)(name - path), "vitserve_cuda.so") >=
        size - (size_t)(name - path))
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "the path of the executable is too long");
    return STATUS_OK;
}

// A function of the module, which stays loaded: a backend's code lives in it.
static enum status find_function(const char *name, void **function)
{
    char path[4096];
    TRY(module_path(path, sizeof path));
    if (access(path, R_OK) != 0)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "no CUDA backend: there is no %s", path);
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    *function = module ? dlsym(module, name) : NULL;
    if (!*function)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "no CUDA backend: %s", dlerror());
    return STATUS_OK;
}

static enum status open_cuda(int gpu, enum precision precision, struct backend **backend)
{
    backend_cuda_create_fn create;
    TRY(find_function("backend_cuda_create", (void **)(void *)&create));
    return create(gpu, precision, backend);
}

enum status device_count(enum device device, int *count)
{
    *count = 1;
    if (device != DEVICE_CUDA_ALL)
        return STATUS_OK;
    backend_cuda_count_fn gpus;
    TRY(find_function("backend_cuda_count", (void **)(void *)&gpus));
    TRY(gpus(count));
    *count = *count < DEVICE_MAX_GPUS ? *count : DEVICE_MAX_GPUS;
    return STATUS_OK;
}

// The driver's own library: where it is missing the module's libraries need not be loaded.
static bool have_driver(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver)
        dlclose(driver);
    return driver != NULL;
}

enum status device_open(enum device device, enum precision precision, int threads,
                        struct backend **backend)
{
    if (device >= DEVICE_CUDA)
        return open_cuda(device >= DEVICE_GPU ? (int)device - DEVICE_GPU : 0, precision, backend);
    if (device == DEVICE_AUTO && !have_driver())
        log_info("no NVIDIA driver here: computing on the CPU");
    else if (device == DEVICE_AUTO) {
        enum status status = open_cuda(0, precision, backend);
        if (status == STATUS_OK)
            return status;
        log_warning("computing on the CPU: %s", status_detail(status));
    }
    return backend_cpu_create(precision, threads > 0 ? threads : machine_cores(), backend);
}
