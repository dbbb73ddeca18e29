#include "listener.h"
#include "addresses.h"
#include "clock.h"
#include "log.h"
#include <errno.h>
#include <linux/filter.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct listener {
    int fd, stop_fd;
    accepted_fn accepted;
    void *context;
    pthread_t thread;
    char address[128];
    bool local, accepting;
    int64_t complained_ns; // when it last said that it cannot accept; 0: never
};

// Where there are no descriptors it happens a hundred times a second.
static void complain(struct listener *listener, const char *why)
{
    const int64_t now = clock_ns();
    if (listener->complained_ns > now - 1000000000)
        return;
    listener->complained_ns = now;
    log_warning("cannot accept a connection: %s", why);
}

// Accepts everything that waits; the socket does not block.
static void accept_waiting(struct listener *listener)
{
    for (;;) {
        struct sockaddr_storage storage;
        struct sockaddr *address = (struct sockaddr *)&storage;
        socklen_t length = sizeof storage;
        int fd = accept4(listener->fd, address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            listener->accepted(listener->context, fd, address, length);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                complain(listener, strerror(errno));
                poll(NULL, 0, 10); // out of descriptors: give the others time to end
            }
            return;
        }
    }
}

static void *accept_loop(void *argument)
{
    struct listener *listener = argument;
    struct pollfd fds[] = {{.fd = listener->fd, .events = POLLIN},
                           {.fd = listener->stop_fd, .events = POLLIN}};
    while (!fds[1].revents)
        if (poll(fds, 2, -1) > 0)
            accept_waiting(listener);
    return NULL;
}

static enum status bind_socket(struct listener *listener, const struct addrinfo *info)
{
    enum { BACKLOG = 4096 };
    int on = 1;
    listener->fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0)
        return status_fail(STATUS_IO, "socket: %s", strerror(errno));
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    char host[64] = "", port[8] = "";
    getnameinfo(info->ai_addr, info->ai_addrlen, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    if (bind(listener->fd, info->ai_addr, info->ai_addrlen) != 0 ||
        listen(listener->fd, BACKLOG) != 0)
        return status_fail(STATUS_IO, "cannot listen on %s port %s: %s", host, port,
                           strerror(errno));
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    getsockname(listener->fd, (struct sockaddr *)&bound, &length);
    getnameinfo((struct sockaddr *)&bound, length, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    listener->local = address_is_local(address_of((struct sockaddr *)&bound));
    bool v6 = bound.ss_family == AF_INET6;
    snprintf(listener->address, sizeof listener->address, "%s%s%s:%s", v6 ? "[" : "", host,
             v6 ? "]" : "", port);
    return STATUS_OK;
}

static enum status open_sockets(struct listener *listener, const char *address, int port)
{
    char service[8];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *info;
    int error = getaddrinfo(address, service, &hints, &info);
    if (error)
        return status_fail(STATUS_IO, "--listen %s: %s", address, gai_strerror(error));
    enum status status = bind_socket(listener, info);
    freeaddrinfo(info);
    TRY(status);
    listener->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (listener->stop_fd < 0)
        return status_fail(STATUS_IO, "eventfd: %s", strerror(errno));
    return STATUS_OK;
}

static void release(struct listener *listener)
{
    if (listener->fd >= 0)
        close(listener->fd);
    if (listener->stop_fd >= 0)
        close(listener->stop_fd);
    free(listener);
}

enum status listener_open(const char *address, int port, accepted_fn accepted, void *context,
                          struct listener **out)
{
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return status_fail(STATUS_OUT_OF_MEMORY, "listener: out of memory");
    *listener =
        (struct listener){.fd = -1, .stop_fd = -1, .accepted = accepted, .context = context};
    enum status status = open_sockets(listener, address, port);
    if (status != STATUS_OK) {
        release(listener);
        return status;
    }
    *out = listener;
    return STATUS_OK;
}

enum status listener_begin(struct listener *listener)
{
    int error = pthread_create(&listener->thread, NULL, accept_loop, listener);
    if (error)
        return status_fail(STATUS_INTERNAL, "cannot start a thread: %s", strerror(error));
    listener->accepting = true;
    return STATUS_OK;
}

const char *listener_address(const struct listener *listener)
{
    return listener->address;
}

bool listener_is_local(const struct listener *listener)
{
    return listener->local;
}

// Between the last look at the backlog and the close another client may connect, and lose what it
// sends. So the kernel first drops what would begin a connection (it is tried again a second later,
// and refused); those under way come to their end.
static void begin_no_more(int fd)
{
    enum { FLAGS_OFFSET = 13, SYN = 0x02, ACK = 0x10 }; // of the TCP header, RFC 9293
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS_OFFSET),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN | ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0)
        log_debug("clients that connect during the stop may be cut off: %s", strerror(errno));
}

void listener_stop(struct listener *listener)
{
    const int handshake_ms = 50;
    if (!listener)
        return;
    if (listener->accepting) {
        begin_no_more(listener->fd);
        poll(NULL, 0, handshake_ms);
        eventfd_write(listener->stop_fd, 1);
        pthread_join(listener->thread, NULL);
        accept_waiting(listener);
    }
    release(listener);
}
