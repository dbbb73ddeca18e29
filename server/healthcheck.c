// vitserve healthcheck: asks the server on this machine for /readyz. The sockets are plain, so that
// the check costs a container a few milliseconds and no library.

#include "clock.h"
#include "commands.h"
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct check {
    const char *address;
    int port;
    int64_t deadline_ns;
    int fd;
};

static enum status fail(const struct check *check, const char *problem)
{
    return status_fail(STATUS_IO, "%s port %d: %s", check->address, check->port, problem);
}

static enum status wait_for(const struct check *check, short events)
{
    struct pollfd fd = {.fd = check->fd, .events = events};
    for (;;) {
        int64_t left_ms = (check->deadline_ns - clock_ns()) / 1000000;
        int ready = poll(&fd, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready > 0)
            return STATUS_OK;
        if (ready == 0)
            return fail(check, "no answer in time");
        if (errno != EINTR)
            return fail(check, strerror(errno));
    }
}

// What the server listens on; connected to, 0.0.0.0 and :: mean this machine.
static enum status open_socket(struct check *check)
{
    char service[8];
    snprintf(service, sizeof service, "%d", check->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *info;
    int error = getaddrinfo(check->address, service, &hints, &info);
    if (error)
        return fail(check, gai_strerror(error));
    check->fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (check->fd < 0 || connect(check->fd, info->ai_addr, info->ai_addrlen) != 0)
        error = errno;
    freeaddrinfo(info);
    if (error == EINPROGRESS) {
        socklen_t length = sizeof error;
        TRY(wait_for(check, POLLOUT));
        getsockopt(check->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    }
    return error ? fail(check, strerror(error)) : STATUS_OK;
}

// One request and as much of its answer as there is room for. A session of TLS would go here.
static enum status exchange(const struct check *check, char *answer, size_t size)
{
    static const char request[] = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n"
                                  "Connection: close\r\n\r\n";
    size_t length = 0;
    // A socket that has just been connected takes these few bytes at once.
    if (send(check->fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0)
        return fail(check, strerror(errno));
    while (length < size - 1) {
        TRY(wait_for(check, POLLIN));
        ssize_t got = recv(check->fd, answer + length, size - 1 - length, 0);
        if (got < 0)
            return fail(check, strerror(errno));
        if (got == 0)
            break;
        length += (size_t)got;
    }
    answer[length] = '\0';
    return STATUS_OK;
}

// STATUS_OK for an HTTP 200; else the "error" of the answer is the reason.
static enum status judge(const struct check *check, const char *answer)
{
    int code;
    char problem[256];
    if (sscanf(answer, "HTTP/1.%*1d %3d", &code) != 1)
        return fail(check, "what answers there is no HTTP server");
    if (code == 200)
        return STATUS_OK;
    const char *body = strstr(answer, "\r\n\r\n");
    json_t *root = body ? json_loads(body, 0, NULL) : NULL;
    const char *reason = json_string_value(json_object_get(root, "error"));
    snprintf(problem, sizeof problem, "status %d%s%s", code, reason ? ", " : "",
             reason ? reason : "");
    json_decref(root);
    for (char *c = problem; *c; c++) // whoever answered
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    return fail(check, problem);
}

static enum status ask(struct check *check)
{
    char answer[4096];
    TRY(open_socket(check));
    TRY(exchange(check, answer, sizeof answer));
    return judge(check, answer);
}

int healthcheck_main(const struct config *config)
{
    const int64_t timeout_ns = INT64_C(3000000000);
    const bool admin = config->admin_port > 0;
    struct check check = {.address = admin && *config->admin_listen ? config->admin_listen
                                                                    : config->listen,
                          .port = (int)(admin ? config->admin_port : config->port),
                          .deadline_ns = clock_ns() + timeout_ns,
                          .fd = -1};
    enum status status = ask(&check);
    if (check.fd >= 0)
        close(check.fd);
    return status == STATUS_OK ? EXIT_OK : exit_code(status);
}
