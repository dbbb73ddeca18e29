#include "load_http.h"
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <unistd.h>

static bool watch(struct connection *c, const struct target *target, int how, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    return epoll_ctl(target->epoll, how, c->fd, &event) == 0;
}

static void close_connection(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->used = false;
}

static bool connect_anew(struct connection *c, const struct target *target)
{
    int on = 1;
    c->fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (const struct sockaddr *)&target->address, target->address_length) != 0 &&
        errno != EINPROGRESS)
        return false;
    return watch(c, target, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

int connection_begin(struct connection *c, struct target *target, const struct request *request)
{
    c->request = request;
    c->sent = c->head_length = 0;
    c->body_left = -1;
    c->closing = false;
    bool open =
        c->fd >= 0 ? watch(c, target, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT) : connect_anew(c, target);
    return open ? PENDING : CONNECT_FAILED;
}

// A server that refuses may stop reading before it has everything: its answer counts all the same,
// so an error here is left for recv() to find.
static void send_more(struct connection *c, const struct target *target)
{
    while (c->sent < c->request->length) {
        ssize_t sent =
            send(c->fd, c->request->bytes + c->sent, c->request->length - c->sent, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINTR))
            return;
        if (sent < 0)
            break;
        c->sent += (size_t)sent;
    }
    watch(c, target, EPOLL_CTL_MOD, EPOLLIN);
}

// The value of a header of this head, or NULL.
static const char *find_header(const char *head, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':')
            return line + 3 + length + strspn(line + 3 + length, " \t");
    return NULL;
}

// The head is complete, and ends with a zero. False where it is no HTTP that we know.
static bool read_head(struct connection *c)
{
    int minor;
    if (sscanf(c->head, "HTTP/1.%1d %3d", &minor, &c->status) != 2 || c->status < 200)
        return false;
    const char *length = find_header(c->head, "Content-Length");
    const char *connection = find_header(c->head, "Connection");
    if (!length || !isdigit((unsigned char)*length) || find_header(c->head, "Transfer-Encoding"))
        return false;
    c->body_left = strtoll(length, NULL, 10);
    c->closing = minor == 0 || (connection && strncasecmp(connection, "close", 5) == 0);
    return true;
}

// Takes bytes of an answer. Bodies are thrown away.
static int take(struct connection *c, const char *bytes, size_t length)
{
    static const char start[] = "HTTP/1.";
    if (c->body_left < 0) {
        size_t before = c->head_length, room = HEAD_BYTES - before;
        memcpy(c->head + before, bytes, length < room ? length : room);
        c->head_length += length < room ? length : room;
        size_t first = c->head_length < sizeof start - 1 ? c->head_length : sizeof start - 1;
        char *end = memmem(c->head, c->head_length, "\r\n\r\n", 4);
        if (memcmp(c->head, start, first) != 0 || (!end && c->head_length == HEAD_BYTES))
            return NO_HTTP;
        if (!end)
            return PENDING;
        end[2] = '\0';
        if (!read_head(c))
            return NO_HTTP;
        length -= (size_t)(end + 4 - c->head) - before;
    }
    if (length > (uint64_t)c->body_left)
        return NO_HTTP;
    c->body_left -= (int64_t)length;
    return c->body_left > 0 ? PENDING : c->status;
}

static int receive(struct connection *c, struct target *target)
{
    char bytes[65536];
    ssize_t got = recv(c->fd, bytes, sizeof bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return PENDING;
    if (got > 0)
        return take(c, bytes, (size_t)got);
    if (c->used && c->head_length == 0) {
        target->repeated++;
        close_connection(c);
        return connection_begin(c, target, c->request);
    }
    return c->sent == 0 ? CONNECT_FAILED : CONNECTION_LOST;
}

int connection_event(struct connection *c, struct target *target, uint32_t events)
{
    if (!c->request) { // the server closes it, or sends what nobody asked for
        close_connection(c);
        return PENDING;
    }
    if (events & EPOLLOUT)
        send_more(c, target);
    return events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? receive(c, target) : PENDING;
}

void connection_end(struct connection *c, int outcome)
{
    c->used = true;
    if (outcome < FAILURES || c->closing || c->sent < c->request->length)
        close_connection(c);
    c->request = NULL;
}
