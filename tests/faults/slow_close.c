// Preloaded into the server: it takes its time to close a socket that listens. What can happen
// between its last look at who waits there and the close does happen.

#include <dlfcn.h>
#include <sys/socket.h>
#include <time.h>

int close(int fd)
{
    int (*next)(int);
    *(void **)&next = dlsym(RTLD_NEXT, "close");
    int listens = 0;
    socklen_t length = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens)
        nanosleep(&(struct timespec){.tv_nsec = 300 * 1000 * 1000}, NULL);
    return next(fd);
}
