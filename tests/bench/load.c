// A load generator for HTTP servers: posts files, and says what came back and how late.
//
//   load HOST:PORT (--clients N | --rate R) [--seconds S] [--requests N] [--connections N]
//        [--timeout-ms T] [--seed N] [--path P] [--header H] FILE...
//
// prints a line for each request: an HTTP status, or what went wrong (connect, lost, timeout,
// no_http); the latency in ms; when it was to start, in seconds from the first one on.
//
// Closed loop (--clients N): N clients, each of which sends its next request when it has its
// answer. Open loop (--rate R): requests start at the times of a Poisson process, whatever the
// server does; the latency of each counts from the time when it was to start, so that a server
// that stalls cannot hide the requests that it kept from being sent (coordinated omission).
// No request starts after --seconds, nor are there more than --requests; those on their way are
// waited for.
//
// DESIGN. One thread and epoll. Requests of the open loop whose time has come wait in a ring for a
// connection. A connection is free, busy, or rests: after a failure until the next sweep, so that a
// server which is gone is not asked a million times a second. What a request came to is one record;
// record() alone writes them, and they are printed at the end.

#include "load_http.h"
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

enum { SWEEP_NS = 20000000 };

struct record {
    int outcome; // an HTTP status, or an enum outcome
    int64_t intended_ns, ended_ns;
};

struct load {
    double clients, rate, seconds, most_requests, most_connections, timeout_ms, seed;
    const char *path, *host, *header;
    struct target target;
    struct request *requests;
    size_t n_requests, next_request;
    struct connection *connections, **free, **resting;
    size_t n_connections, n_free, n_resting;
    int64_t start_ns, end_ns, next_ns; // next_ns: of the open loop's next request
    uint64_t random;
    size_t n_started;
    int64_t *waiting; // intended starts, a ring
    size_t first_waiting, n_waiting, max_waiting;
    struct record *records;
    size_t n_records, max_records;
};

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

// The time between two requests of a Poisson process: -log of a number in (0, 1], of splitmix64.
static int64_t next_gap_ns(struct load *load)
{
    uint64_t z = load->random += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    double uniform = ((double)((z ^ (z >> 31)) >> 11) + 1.0) * 0x1p-53;
    return (int64_t)(-log(uniform) * 1e9 / load->rate);
}

// ---- requests -----------------------------------------------------------------------------------

static void record(struct load *load, int outcome, int64_t intended_ns)
{
    if (load->n_records == load->max_records) {
        load->max_records = load->max_records ? 2 * load->max_records : 65536;
        load->records = must(realloc(load->records, load->max_records * sizeof *load->records));
    }
    load->records[load->n_records++] = (struct record){outcome, intended_ns, now_ns()};
}

static void finish(struct load *load, struct connection *c, int outcome)
{
    record(load, outcome, c->intended_ns);
    connection_end(c, outcome);
    if (outcome < FAILURES)
        load->resting[load->n_resting++] = c;
    else
        load->free[load->n_free++] = c;
}

static void begin(struct load *load, int64_t intended_ns)
{
    struct connection *c = load->free[--load->n_free];
    c->intended_ns = intended_ns;
    const struct request *request = &load->requests[load->next_request++ % load->n_requests];
    int outcome = connection_begin(c, &load->target, request);
    if (outcome != PENDING)
        finish(load, c, outcome);
}

static void wait_for_connection(struct load *load, int64_t intended_ns)
{
    if (load->n_waiting == load->max_waiting) {
        size_t size = load->max_waiting ? 2 * load->max_waiting : 4096;
        int64_t *ring = must(malloc(size * sizeof *ring));
        for (size_t i = 0; i < load->n_waiting; i++)
            ring[i] = load->waiting[(load->first_waiting + i) % load->max_waiting];
        free(load->waiting);
        load->waiting = ring;
        load->first_waiting = 0;
        load->max_waiting = size;
    }
    load->waiting[(load->first_waiting + load->n_waiting++) % load->max_waiting] = intended_ns;
}

static int64_t take_waiting(struct load *load)
{
    int64_t intended_ns = load->waiting[load->first_waiting];
    load->first_waiting = (load->first_waiting + 1) % load->max_waiting;
    load->n_waiting--;
    return intended_ns;
}

static bool more_to_start(const struct load *load, int64_t at_ns)
{
    return at_ns < load->end_ns && (double)load->n_started < load->most_requests;
}

// Everything whose time has come.
static void start_due(struct load *load, int64_t now)
{
    if (load->rate > 0) {
        for (; load->next_ns <= now && more_to_start(load, load->next_ns); load->n_started++) {
            wait_for_connection(load, load->next_ns);
            load->next_ns += next_gap_ns(load);
        }
        while (load->n_free > 0 && load->n_waiting > 0)
            begin(load, take_waiting(load));
    } else {
        for (; load->n_free > 0 && more_to_start(load, now); load->n_started++)
            begin(load, now);
    }
}

// ---- the loop -----------------------------------------------------------------------------------

// Ends what has had its time, on a connection or without one.
static void sweep(struct load *load, int64_t now)
{
    int64_t oldest_ns = now - (int64_t)(load->timeout_ms * 1e6);
    while (load->n_waiting > 0 && load->waiting[load->first_waiting] < oldest_ns)
        record(load, TIMED_OUT, take_waiting(load));
    while (load->n_resting > 0)
        load->free[load->n_free++] = load->resting[--load->n_resting];
    for (size_t i = 0; i < load->n_connections; i++) {
        struct connection *c = &load->connections[i];
        if (c->request && c->intended_ns < oldest_ns)
            finish(load, c, TIMED_OUT);
    }
}

// epoll_wait() counts in ms, too coarse for when the next request is to start.
static void handle_events(struct load *load, int64_t until_ns)
{
    struct epoll_event events[256];
    struct pollfd epoll = {.fd = load->target.epoll, .events = POLLIN};
    int64_t left = until_ns - now_ns();
    struct timespec timeout = {.tv_nsec = left > 0 ? left : 0};
    if (ppoll(&epoll, 1, &timeout, NULL) <= 0)
        return;
    int count = epoll_wait(load->target.epoll, events, 256, 0);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        int outcome = connection_event(c, &load->target, events[i].events);
        if (outcome != PENDING)
            finish(load, c, outcome);
    }
}

static void run(struct load *load)
{
    int64_t now = now_ns(), next_sweep = now + SWEEP_NS;
    load->start_ns = now;
    load->end_ns = now + (int64_t)(load->seconds * 1e9);
    load->next_ns = load->rate > 0 ? now + next_gap_ns(load) : now;
    for (;; now = now_ns()) {
        if (now >= next_sweep) {
            sweep(load, now);
            next_sweep = now + SWEEP_NS;
        }
        start_due(load, now);
        size_t busy = load->n_connections - load->n_free - load->n_resting;
        if (busy == 0 && load->n_waiting == 0 && !more_to_start(load, now))
            return;
        bool due = load->rate > 0 && load->next_ns < next_sweep;
        handle_events(load, due && more_to_start(load, load->next_ns) ? load->next_ns : next_sweep);
    }
}

static void report(const struct load *load)
{
    static const char *const names[FAILURES] = {[CONNECT_FAILED] = "connect",
                                                [CONNECTION_LOST] = "lost",
                                                [TIMED_OUT] = "timeout",
                                                [NO_HTTP] = "no_http"};
    for (size_t i = 0; i < load->n_records; i++) {
        const struct record *record = &load->records[i];
        char status[12];
        snprintf(status, sizeof status, "%d", record->outcome);
        printf("%s %.3f %.6f\n", record->outcome < FAILURES ? names[record->outcome] : status,
               (double)(record->ended_ns - record->intended_ns) * 1e-6,
               (double)(record->intended_ns - load->start_ns) * 1e-9);
    }
    fflush(stdout); // both may be the same file
    if (load->target.repeated > 0)
        fprintf(stderr, "load: %zu requests sent twice: their connection closed as they went out\n",
                load->target.repeated);
}

// ---- arguments ----------------------------------------------------------------------------------

static struct request read_request(const struct load *load, const char *path)
{
    enum { HEAD = 1024 };
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        die(path, strerror(errno));
    long length = ftell(file);
    rewind(file);
    if (length < 0)
        die(path, strerror(errno));
    struct request request = {.bytes = must(malloc(HEAD + (size_t)length))};
    int head = snprintf(request.bytes, HEAD,
                        "POST %s HTTP/1.1\r\nHost: %s\r\n%s%sContent-Length: %ld\r\n\r\n",
                        load->path, load->host, load->header, *load->header ? "\r\n" : "", length);
    if (head >= HEAD || fread(request.bytes + head, 1, (size_t)length, file) != (size_t)length)
        die(path, head >= HEAD ? "--path or --header is too long" : "cannot be read");
    request.length = (size_t)head + (size_t)length;
    fclose(file);
    return request;
}

static void resolve(struct load *load, const char *text)
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
    memcpy(&load->target.address, info->ai_addr, info->ai_addrlen);
    load->target.address_length = info->ai_addrlen;
    load->host = text;
    freeaddrinfo(info);
}

static double read_number(const char *name, const char *text)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number > 0 && number <= 1e15))
        die(name, "not a number above 0");
    return number;
}

static void read_arguments(struct load *load, int argc, char **argv)
{
    const struct {
        const char *name;
        double *number;
        const char **text;
    } rows[] = {{"clients", &load->clients, NULL},
                {"rate", &load->rate, NULL},
                {"seconds", &load->seconds, NULL},
                {"requests", &load->most_requests, NULL},
                {"connections", &load->most_connections, NULL},
                {"timeout-ms", &load->timeout_ms, NULL},
                {"seed", &load->seed, NULL},
                {"path", NULL, &load->path},
                {"header", NULL, &load->header}};
    enum { ROWS = sizeof rows / sizeof *rows };
    struct option options[ROWS + 1] = {{0}};
    for (int i = 0; i < ROWS; i++)
        options[i] = (struct option){rows[i].name, required_argument, NULL, i};
    for (int i; (i = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (i >= ROWS)
            exit(2); // getopt has said why
        if (rows[i].number)
            *rows[i].number = read_number(rows[i].name, optarg);
        else
            *rows[i].text = optarg;
    }
    if (argc - optind < 2 || (load->rate > 0) == (load->clients > 0))
        die("usage", "HOST:PORT (--clients N | --rate R) FILE..., see tests/bench/load.c");
    resolve(load, argv[optind]);
    load->n_requests = (size_t)(argc - optind - 1);
    load->requests = must(calloc(load->n_requests, sizeof *load->requests));
    for (size_t i = 0; i < load->n_requests; i++)
        load->requests[i] = read_request(load, argv[optind + 1 + (int)i]);
}

// As many connections as are asked for, all of them free.
static void prepare(struct load *load)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    load->random = (uint64_t)load->seed;
    load->target.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (load->target.epoll < 0)
        die("epoll", strerror(errno));
    size_t n = (size_t)fmin(load->clients > 0 ? load->clients : load->most_connections, 100000);
    load->n_connections = load->n_free = n > 0 ? n : 1;
    load->connections = must(calloc(load->n_connections, sizeof *load->connections));
    load->free = must(calloc(load->n_connections, sizeof(struct connection *)));
    load->resting = must(calloc(load->n_connections, sizeof(struct connection *)));
    for (size_t i = 0; i < load->n_connections; i++) {
        load->connections[i].fd = -1;
        load->free[i] = &load->connections[i];
    }
}

static void release(struct load *load)
{
    for (size_t i = 0; i < load->n_requests; i++)
        free(load->requests[i].bytes);
    free(load->requests);
    free(load->connections);
    free(load->free);
    free(load->resting);
    free(load->waiting);
    free(load->records);
}

int main(int argc, char **argv)
{
    struct load load = {.seconds = 10,
                        .most_requests = 1e15,
                        .most_connections = 1024,
                        .timeout_ms = 30000,
                        .seed = 1,
                        .path = "/classify",
                        .header = ""};
    read_arguments(&load, argc, argv);
    prepare(&load);
    run(&load);
    report(&load);
    release(&load);
    return 0;
}
