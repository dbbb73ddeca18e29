// Preloaded into the server: another machine. It has as many cores as OTHER_CORES says, all of them
// free to use, and its control groups are those in the folder OTHER_ROOT, which holds a /proc and a
// /sys.

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int cores(void)
{
    return atoi(getenv("OTHER_CORES"));
}

FILE *fopen(const char *path, const char *mode)
{
    FILE *(*next)(const char *, const char *);
    *(void **)&next = dlsym(RTLD_NEXT, "fopen");
    char other[4096];
    if (strncmp(path, "/sys/fs/cgroup", 14) != 0 && strcmp(path, "/proc/self/cgroup") != 0 &&
        strcmp(path, "/proc/self/mountinfo") != 0)
        return next(path, mode);
    snprintf(other, sizeof other, "%s%s", getenv("OTHER_ROOT"), path);
    return next(other, mode);
}

long sysconf(int name)
{
    long (*next)(int);
    *(void **)&next = dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_NPROCESSORS_ONLN ? cores() : next(name);
}

int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set)
{
    (void)process;
    CPU_ZERO_S(bytes, set);
    for (int i = 0; i < cores(); i++)
        CPU_SET_S((size_t)i, bytes, set);
    return 0;
}
