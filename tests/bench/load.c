// A load generator for HTTP servers: posts files, and says what came back and how late.
//
//   load HOST:PORT (--clients N | --rate R) [--seconds S] [--connections N] [--timeout-ms T]
//        [--seed N] [--path P] [--header H] FILE...
//
// prints a line for each request: an HTTP status, or what went wrong, and the latency in ms.
//
// Closed loop (--clients N): N clients, each of which sends its next request when it has its
// answer. Open loop (--rate R): requests start at the times of a Poisson process, whatever the
// server does; the latency of each counts from the time when it was to start, so that a server
// that stalls cannot hide the requests that it kept from being sent (coordinated omission).
//
// DESIGN. One thread and epoll. `waiting` requests have an intended start and no connection yet;
// a connection takes the oldest. What a request was answered, or which way it failed, and when,
// is one record; they are printed at the end.

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 16384, MAX_FILES = 1024 };

// What can come of a request beside an HTTP status.
enum failure { CONNECT_FAILED = 1, CONNECTION_LOST, TIMED_OUT, NO_HTTP, FAILURES };

struct record {
    int outcome; // an HTTP status, or an enum failure
    double ms;   // from the intended start
};

struct connection {
    int fd; // -1: closed
    bool busy, reused;
    int64_t intended_ns, sent_ns;
    const struct request *request;
    size_t sent;
    char head[HEAD_BYTES];
    size_t head_length;
    int status;
    int64_t body_left; // -1: the head is not complete
    bool closing;
};

struct request {
    char *bytes;
    size_t length;
};

static struct {
    struct sockaddr_storage address;
    socklen_t address_length;
    struct request requests[MAX_FILES];
    int n_requests, next_request;
    int clients, max_connections;
    double rate, seconds;
    int64_t timeout_ns;
    uint64_t random;
    const char *path, *host, *header;
    struct connection *connections;
    int epoll;
    int64_t *waiting; // intended starts, a ring
    size_t first_waiting, n_waiting, max_waiting;
    struct record *records;
    size_t n_records, max_records;
} load = {.max_connections = 1024,
          .seconds = 10,
          .timeout_ns = INT64_C(30000000000),
          .random = 1,
          .path = "/classify",
          .header = ""};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(2);
}

static void *must(void *memory)
{
    if (!memory)
        die("memory", strerror(errno));
    return memory;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

// In (0, 1]: splitmix64.
static double uniform(void)
{
    uint64_t z = load.random += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return ((double)((z ^ (z >> 31)) >> 11) + 1.0) * 0x1p-53;
}

static void add_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || load.n_requests == MAX_FILES)
        die(path, file ? "too many files" : strerror(errno));
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    rewind(file);
    struct request *request = &load.requests[load.n_requests++];
    request->bytes = must(malloc((size_t)length + 1024));
    int head = snprintf(request->bytes, 1024,
                        "POST %s HTTP/1.1\r\nHost: %s\r\n%s%sContent-Length: %ld\r\n\r\n",
                        load.path, load.host, load.header, *load.header ? "\r\n" : "", length);
    if (head >= 1024 || fread(request->bytes + head, 1, (size_t)length, file) != (size_t)length)
        die(path, "cannot be read");
    request->length = (size_t)head + (size_t)length;
    fclose(file);
}

static void resolve(const char *text)
{
    char host[256];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        die(text, "not HOST:PORT");
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *info;
    int error = getaddrinfo(host, colon + 1, &hints, &info);
    if (error)
        die(text, gai_strerror(error));
    memcpy(&load.address, info->ai_addr, info->ai_addrlen);
    load.address_length = info->ai_addrlen;
    load.host = text;
    freeaddrinfo(info);
}

// ---- one connection -----------------------------------------------------------------------------

static void watch(struct connection *c, int how, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(load.epoll, how, c->fd, &event) != 0)
        die("epoll", strerror(errno));
}

static void close_connection(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->reused = false;
}

static void finish(struct connection *c, int outcome)
{
    if (load.n_records == load.max_records) {
        load.max_records = load.max_records ? 2 * load.max_records : 65536;
        load.records = must(realloc(load.records, load.max_records * sizeof *load.records));
    }
    load.records[load.n_records++] =
        (struct record){outcome, (double)(now_ns() - c->intended_ns) * 1e-6};
    c->busy = false;
    if (outcome < FAILURES || c->closing)
        close_connection(c);
}

static bool connect_anew(struct connection *c)
{
    int on = 1;
    c->fd = socket(load.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&load.address, load.address_length) != 0 &&
        errno != EINPROGRESS)
        return false;
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
    return true;
}

static void begin(struct connection *c, int64_t intended_ns)
{
    c->busy = true;
    c->intended_ns = intended_ns;
    c->sent_ns = now_ns();
    c->request = &load.requests[load.next_request++ % load.n_requests];
    c->sent = c->head_length = 0;
    c->body_left = -1;
    c->closing = false;
    if (c->fd >= 0)
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    else if (!connect_anew(c))
        finish(c, CONNECT_FAILED);
}

static void send_more(struct connection *c)
{
    while (c->sent < c->request->length) {
        ssize_t sent =
            send(c->fd, c->request->bytes + c->sent, c->request->length - c->sent, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN))
            return;
        if (sent < 0)
            break; // an answer may be there all the same
        c->sent += (size_t)sent;
    }
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

// The head is complete: what follows it. False where it is no HTTP that we know.
static bool read_head(struct connection *c)
{
    int minor;
    if (sscanf(c->head, "HTTP/1.%d %d", &minor, &c->status) != 2)
        return false;
    const char *length = strcasestr(c->head, "\r\nContent-Length:");
    const char *close = strcasestr(c->head, "\r\nConnection: close");
    if (!length)
        return false;
    c->body_left = atoll(length + strlen("\r\nContent-Length:"));
    c->closing = close != NULL || minor == 0;
    return true;
}

// Takes bytes of an answer. Bodies are thrown away.
static void take(struct connection *c, char *bytes, size_t length)
{
    if (c->body_left < 0) {
        size_t room = HEAD_BYTES - 1 - c->head_length, part = length < room ? length : room;
        memcpy(c->head + c->head_length, bytes, part);
        c->head_length += part;
        c->head[c->head_length] = '\0';
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end && part == length)
            return;
        if (!end || !read_head(c)) {
            finish(c, NO_HTTP);
            return;
        }
        length = c->head_length - (size_t)(end + 4 - c->head) + (length - part);
        if (c->status == 100) { // the answer itself is still to come
            memmove(c->head, end + 4, length);
            c->head_length = length;
            c->body_left = -1;
            return;
        }
    }
    c->body_left -= (int64_t)length;
    if (c->body_left <= 0) {
        c->closing |= c->sent < c->request->length;
        c->reused = true;
        finish(c, c->status);
    }
}

static void receive(struct connection *c)
{
    char bytes[65536];
    ssize_t got = recv(c->fd, bytes, sizeof bytes, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got > 0 && c->busy)
        take(c, bytes, (size_t)got);
    else if (!c->busy)
        close_connection(c); // it was idle
    else if (c->reused && c->head_length == 0 && c->sent_ns + 1000000 > now_ns())
        close_connection(c), begin(c, c->intended_ns); // closed as the request went out: once more
    else
        finish(c, c->sent == 0 ? CONNECT_FAILED : CONNECTION_LOST);
}

// ---- the loop -----------------------------------------------------------------------------------

static void wait_with(int64_t intended_ns)
{
    if (load.n_waiting == load.max_waiting) {
        size_t size = load.max_waiting ? 2 * load.max_waiting : 4096;
        int64_t *ring = must(malloc(size * sizeof *ring));
        for (size_t i = 0; i < load.n_waiting; i++)
            ring[i] = load.waiting[(load.first_waiting + i) % load.max_waiting];
        free(load.waiting);
        load.waiting = ring;
        load.first_waiting = 0;
        load.max_waiting = size;
    }
    load.waiting[(load.first_waiting + load.n_waiting++) % load.max_waiting] = intended_ns;
}

static void start_waiting(void)
{
    for (int i = 0; i < load.max_connections && load.n_waiting > 0; i++) {
        struct connection *c = &load.connections[i];
        if (c->busy)
            continue;
        begin(c, load.waiting[load.first_waiting]);
        load.first_waiting = (load.first_waiting + 1) % load.max_waiting;
        load.n_waiting--;
    }
}

static int expire(int64_t now)
{
    int busy = 0;
    for (int i = 0; i < load.max_connections; i++) {
        struct connection *c = &load.connections[i];
        if (c->busy && now - c->intended_ns > load.timeout_ns)
            finish(c, TIMED_OUT);
        busy += c->busy;
    }
    return busy;
}

static void handle_events(int timeout_ms)
{
    struct epoll_event events[256];
    int count = epoll_wait(load.epoll, events, 256, timeout_ms);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->fd >= 0 && c->busy && (events[i].events & EPOLLOUT))
            send_more(c);
        if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
            receive(c);
    }
}

static void run(void)
{
    int64_t start = now_ns(), end = start + (int64_t)(load.seconds * 1e9), next = start, swept = 0;
    int busy = 1;
    for (int64_t now = start; now < end || busy > 0 || load.n_waiting > 0; now = now_ns()) {
        if (load.rate > 0)
            for (; next <= now && next < end; next += (int64_t)(-log(uniform()) * 1e9 / load.rate))
                wait_with(next);
        else
            for (int i = 0; i < load.clients && now < end; i++)
                if (!load.connections[i].busy)
                    begin(&load.connections[i], now);
        start_waiting();
        if (now - swept > 20000000) {
            busy = expire(now);
            swept = now;
        }
        handle_events(1);
    }
}

// ---- arguments and report -----------------------------------------------------------------------

static void report(void)
{
    static const char *const failures[FAILURES] = {[CONNECT_FAILED] = "connect",
                                                   [CONNECTION_LOST] = "lost",
                                                   [TIMED_OUT] = "timeout",
                                                   [NO_HTTP] = "no_http"};
    for (size_t i = 0; i < load.n_records; i++)
        if (load.records[i].outcome < FAILURES)
            printf("%s %.3f\n", failures[load.records[i].outcome], load.records[i].ms);
        else
            printf("%d %.3f\n", load.records[i].outcome, load.records[i].ms);
}

static void read_arguments(int argc, char **argv)
{
    static const struct option options[] = {{"clients", required_argument, NULL, 'c'},
                                            {"rate", required_argument, NULL, 'r'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"connections", required_argument, NULL, 'm'},
                                            {"timeout-ms", required_argument, NULL, 't'},
                                            {"seed", required_argument, NULL, 'e'},
                                            {"path", required_argument, NULL, 'p'},
                                            {"header", required_argument, NULL, 'h'},
                                            {0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'c':
            load.clients = load.max_connections = atoi(optarg);
            break;
        case 'r':
            load.rate = atof(optarg);
            break;
        case 's':
            load.seconds = atof(optarg);
            break;
        case 'm':
            load.max_connections = atoi(optarg);
            break;
        case 't':
            load.timeout_ns = atoll(optarg) * 1000000;
            break;
        case 'e':
            load.random = (uint64_t)atoll(optarg);
            break;
        case 'p':
            load.path = optarg;
            break;
        case 'h':
            load.header = optarg;
            break;
        default:
            exit(2);
        }
    if (argc - optind < 2 || (load.rate > 0) == (load.clients > 0) || load.max_connections < 1)
        die("usage", "see the top of tests/bench/load.c");
    resolve(argv[optind]);
    for (int i = optind + 1; i < argc; i++)
        add_file(argv[i]);
}

int main(int argc, char **argv)
{
    read_arguments(argc, argv);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.connections = must(calloc((size_t)load.max_connections, sizeof *load.connections));
    for (int i = 0; i < load.max_connections; i++)
        load.connections[i].fd = -1;
    run();
    report();
    return 0;
}
