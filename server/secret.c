#include "secret.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { MAX_BYTES = 256 * 1024 };

// Without a stream, whose buffer would keep a copy.
static enum status read_all(const char *path, char *text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t count = fd < 0 ? -1 : 1;
    while (count > 0 && length <= MAX_BYTES) {
        count = read(fd, text + length, MAX_BYTES + 1 - length);
        length += count > 0 ? (size_t)count : 0;
    }
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (count < 0)
        return status_fail(STATUS_IO, "%s: %s", path, strerror(error));
    if (length == 0)
        return status_fail(STATUS_USAGE, "%s: the file is empty", path);
    if (length > MAX_BYTES)
        return status_fail(STATUS_USAGE, "%s: more than %d bytes", path, MAX_BYTES);
    if (strlen(text) < length)
        return status_fail(STATUS_USAGE, "%s: no text, there is a zero byte in it", path);
    return STATUS_OK;
}

// Whoever reads a core must not find the keys. The leak check of the sanitizers needs what this
// forbids.
static void leave_no_core(void)
{
#ifndef BUILT_SANITIZED
    prctl(PR_SET_DUMPABLE, 0);
#endif
}

enum status secret_read(const char *path, char **out)
{
    char *text = calloc(1, MAX_BYTES + 2);
    if (!text)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: out of memory", path);
    enum status status = read_all(path, text);
    if (status != STATUS_OK) {
        explicit_bzero(text, MAX_BYTES + 2);
        free(text);
        return status;
    }
    leave_no_core();
    *out = text;
    return STATUS_OK;
}

void secret_free(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}
