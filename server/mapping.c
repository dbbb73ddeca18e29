#include "mapping.h"
#include "commands.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// The mappings there are. The handler reads them as they are: whoever is in it will not come back.
static struct named {
    struct named *next;
    struct mapping mapping;
    char path[];
} * all;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t watched = PTHREAD_ONCE_INIT;

static void say(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    for (const struct named *named = all; named; named = named->next)
        if ((uintptr_t)info->si_addr - (uintptr_t)named->mapping.bytes < named->mapping.length) {
            say("vitserve: ");
            say(named->path);
            say(": the file was cut short, or its disk failed, while it was read\n");
            _exit(EXIT_FAILED);
        }
    signal(number, SIG_DFL);
    raise(number);
}

static void watch(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
}

static enum status map(int fd, struct mapping *mapping)
{
    struct stat about;
    if (fstat(fd, &about) != 0)
        return status_fail(STATUS_IO, "%s", strerror(errno));
    if (!S_ISREG(about.st_mode))
        return status_fail(STATUS_IO, "not a regular file");
    if (about.st_size == 0) // which mmap() refuses
        return STATUS_OK;
    size_t length = (size_t)about.st_size;
    void *bytes = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (bytes == MAP_FAILED)
        return status_fail(STATUS_IO, "cannot be mapped: %s", strerror(errno));
    *mapping = (struct mapping){bytes, length};
    return STATUS_OK;
}

enum status mapping_open(const char *path, struct mapping *mapping)
{
    *mapping = (struct mapping){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe is not waited for
    if (fd < 0)
        return status_fail(STATUS_IO, "%s", strerror(errno));
    struct named *named = malloc(sizeof *named + strlen(path) + 1);
    enum status status =
        named ? map(fd, mapping) : status_fail(STATUS_OUT_OF_MEMORY, "no memory for its name");
    close(fd);
    if (status != STATUS_OK || !mapping->bytes) {
        free(named);
        return status;
    }
    named->mapping = *mapping;
    strcpy(named->path, path);
    pthread_once(&watched, watch);
    pthread_mutex_lock(&mutex);
    named->next = all;
    all = named;
    pthread_mutex_unlock(&mutex);
    return STATUS_OK;
}

void mapping_close(struct mapping *mapping)
{
    pthread_mutex_lock(&mutex);
    struct named **place = &all;
    while (*place && (*place)->mapping.bytes != mapping->bytes)
        place = &(*place)->next;
    struct named *named = *place;
    if (named)
        *place = named->next;
    pthread_mutex_unlock(&mutex);
    if (named)
        munmap((void *)(uintptr_t)mapping->bytes, mapping->length);
    free(named);
    *mapping = (struct mapping){0};
}
