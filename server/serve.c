// vitserve serve: starts everything in order, waits for a signal, stops it in reverse order.

#include "api.h"
#include "commands.h"
#include "machine.h"
#include "secret.h"
#include "worker.h"
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    MAX_LANES = 2 * DEVICE_MAX_GPUS,
    ADMIN_CONNECTIONS = 64,
    ADMIN_BODY_BYTES = 4096,
    ADMIN_IDLE_MS = 20 * 1000,
    REST_MS = 5000, // of a stop, after its drain
    STILL_STARTING = -1,
};

struct server {
    const struct config *config;
    struct auth *auth; // NULL: everybody may ask
    struct metrics *metrics;
    struct api *api;
    struct http_load load, admin_load;
    struct address_set trusted;
    struct http_server *http, *admin;
    struct model model;
    uint8_t *pixels; // of the queue's slots
    struct queue *queue;
    struct lane {
        struct vit_run *run;
        struct worker *worker;
    } lanes[MAX_LANES];
    int n_lanes;
    struct batch_sizes batch;
    pthread_t starter;     // starts the engine while the main thread takes the signals
    atomic_int start_code; // STILL_STARTING, or the exit code of the start
    atomic_bool device_failed;
    int leave_ms; // leave_at_last()
    bool hurry;   // stop without waiting for requests in work
};

// glibc's habit, an arena for each of many threads and thresholds that grow with what is freed,
// keeps the pictures of the busiest moment for ever (500 MB after a burst). Larger blocks than this
// go back to the system at once; mapping the smaller ones anew would cost a quarter of a decode.
static void bound_free_memory(void)
{
    const int largest = 4 << 20;
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, largest);
    mallopt(M_TRIM_THRESHOLD, largest);
}

// Every connection takes a descriptor; the rest of the program a few dozen.
static void raise_descriptor_limit(int64_t connections)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)connections + 2 * ADMIN_CONNECTIONS + 64;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted)
        log_warning("only %llu descriptors for --max-connections %lld",
                    (unsigned long long)limit.rlim_cur, (long long)connections);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// One of the files of HTTPS; `mark` ends the first line of what it has to hold.
static enum status read_pem(const char *path, const char *mark, char **text)
{
    TRY(secret_read(path, text));
    if (strstr(*text, mark))
        return STATUS_OK;
    return status_fail(STATUS_USAGE, "%s: not in PEM format: no line ends with \"%s\"", path, mark);
}

// Both stay NULL where HTTPS is not wanted.
static enum status read_tls(const struct config *config, char **cert, char **key)
{
    if (!*config->tls_cert && !*config->tls_key)
        return STATUS_OK;
    if (!*config->tls_cert || !*config->tls_key)
        return status_fail(STATUS_USAGE, "--tls-cert and --tls-key go together: %s is missing",
                           *config->tls_cert ? "--tls-key" : "--tls-cert");
    TRY(read_pem(config->tls_cert, "CERTIFICATE-----", cert));
    return read_pem(config->tls_key, "PRIVATE KEY-----", key);
}

static enum status start_main(struct server *server)
{
    const struct config *config = server->config;
    struct http_options options = {.listen = config->listen,
                                   .allowed_hosts = config->allowed_hosts,
                                   .port = (int)config->port,
                                   // What the budget could never hold is too large, not untimely.
                                   .max_body_bytes =
                                       least(config->max_body_bytes, config->max_inflight_bytes),
                                   .max_connections = config->max_connections,
                                   .max_of_client = config->max_connections_per_address,
                                   .trusted = &server->trusted,
                                   .idle_timeout_ms = config->idle_timeout_ms,
                                   .request_timeout_ms = config->request_timeout_ms,
                                   .load = &server->load,
                                   .admit = api_admit,
                                   .handler = api_handle,
                                   .context = server->api};
    char *cert = NULL, *key = NULL;
    server->load.bytes.limit = config->max_inflight_bytes;
    enum status status = read_tls(config, &cert, &key);
    options.tls_cert = cert;
    options.tls_key = key;
    if (status == STATUS_OK)
        status = http_start(&options, &server->http);
    secret_free(cert);
    secret_free(key);
    TRY(status);
    printf("listening on %s://%s\n", *config->tls_cert ? "https" : "http",
           http_address(server->http));
    return STATUS_OK;
}

// The health checks and the metrics alone: a few connections are enough, theirs are not those that
// clients can fill, and idle ones make way for the next.
static enum status start_admin(struct server *server)
{
    const struct config *config = server->config;
    if (config->admin_port < 0)
        return STATUS_OK;
    server->admin_load.bytes.limit = ADMIN_BODY_BYTES * ADMIN_CONNECTIONS;
    TRY(http_start(
        &(struct http_options){.listen =
                                   *config->admin_listen ? config->admin_listen : config->listen,
                               .allowed_hosts = config->allowed_hosts,
                               .port = (int)config->admin_port,
                               .max_body_bytes = ADMIN_BODY_BYTES,
                               .max_connections = ADMIN_CONNECTIONS,
                               .max_of_client = ADMIN_CONNECTIONS,
                               .replaces = true,
                               .idle_timeout_ms = least(config->idle_timeout_ms, ADMIN_IDLE_MS),
                               .request_timeout_ms = config->request_timeout_ms,
                               .load = &server->admin_load,
                               .admit = api_admit,
                               .handler = api_handle_admin,
                               .context = server->api},
        &server->admin));
    printf("admin listening on http://%s\n", http_address(server->admin));
    return STATUS_OK;
}

static enum status start_http(struct server *server)
{
    const struct config *config = server->config;
    raise_descriptor_limit(config->max_connections);
    TRY(addresses_parse(config->trusted_proxies, &server->trusted));
    if (*config->api_key_file)
        TRY(auth_open(config->api_key_file, &server->auth));
    TRY(metrics_create(&server->metrics));
    TRY(api_create(config, server->metrics, server->auth, &server->load, &server->api));
    TRY(start_main(server));
    TRY(start_admin(server));
    fflush(stdout);
    return STATUS_OK;
}

static void on_device_failed(void *context)
{
    struct server *server = context;
    atomic_store(&server->device_failed, true);
    api_set_unready(server->api, STATUS_DEVICE_FAILED);
    kill(getpid(), SIGTERM);
}

static enum status create_queue(struct server *server)
{
    const struct vit_dims *dims = &server->model.entry->dims;
    struct backend *backend = server->model.replicas[0].backend;
    size_t bytes = (size_t)dims->S * (size_t)dims->S * 3;
    int capacity = server->config->max_queue > 0 ? (int)server->config->max_queue
                                                 : QUEUED_BATCHES * server->batch.max;
    void *pixels;
    TRY(backend->ops->alloc_host(backend, bytes * (size_t)capacity, &pixels));
    server->pixels = pixels;
    memset(pixels, 0, bytes); // the first slot is the picture of the warm-up
    return queue_create(capacity, server->pixels, bytes, dims->K, &server->queue);
}

// The runs of one device: as many as keep it busy, each warm before the first worker takes a job.
static enum status create_runs(struct server *server, const struct replica *replica)
{
    for (int i = 0; i < replica->backend->workers && server->n_lanes < MAX_LANES; i++) {
        struct lane *lane = &server->lanes[server->n_lanes++];
        TRY(vit_run_create(&server->model.entry->dims, &replica->weights, server->batch.max,
                           &lane->run));
        TRY(vit_run_warm_up(lane->run, server->pixels));
    }
    return STATUS_OK;
}

static enum status start_workers(struct server *server)
{
    for (int i = 0; i < server->model.n_replicas; i++)
        TRY(create_runs(server, &server->model.replicas[i]));
    for (int i = 0; i < server->n_lanes; i++)
        TRY(worker_start(server->queue, server->lanes[i].run, server->metrics, server->batch,
                         server->model.entry->dims.K, on_device_failed, server,
                         &server->lanes[i].worker));
    return STATUS_OK;
}

static bool workers_well(void *context)
{
    const struct server *server = context;
    for (int i = 0; i < server->n_lanes; i++)
        if (!worker_well(server->lanes[i].worker))
            return false;
    return true;
}

static void say_ready(const struct server *server)
{
    const struct backend *backend = server->model.replicas[0].backend;
    struct machine machine;
    char found[160];
    machine_read(&machine);
    machine_describe(&machine, found, sizeof found);
    log_info("ready: %s on %s (%s), %s, batches of up to %d images; %s", server->model.entry->name,
             backend->name, backend->device_name, precision_name(backend->precision),
             server->batch.max, found);
}

static enum status start_engine(struct server *server)
{
    struct model *model = &server->model;
    TRY(model_open(server->config, model));
    const int given = (int)server->config->max_batch;
    server->batch = (struct batch_sizes){given, given};
    if (given == 0)
        TRY(model_measure_batch(model, &server->batch));
    TRY(create_queue(server));
    TRY(start_workers(server));
    api_set_ready(server->api, model, server->queue, server->batch.max, workers_well, server);
    say_ready(server);
    return STATUS_OK;
}

// A start that fails ends the wait for a signal.
static void *start_engine_thread(void *context)
{
    struct server *server = context;
    enum status status = start_engine(server);
    atomic_store(&server->start_code, status == STATUS_OK ? EXIT_OK : exit_code(status));
    if (status != STATUS_OK)
        kill(getpid(), SIGTERM);
    return NULL;
}

static int64_t drain_ms(const struct server *server)
{
    return server->hurry ? 0 : server->config->drain_timeout_ms;
}

// A device that does not answer must not hold the process: some time after the drain it leaves as
// it is. That alone does not say that the device is lost. This thread may outlive all that the
// server has and main()'s variables, but not the server.
static void *leave_at_last(void *context)
{
    const struct server *server = context;
    poll(NULL, 0, server->leave_ms);
    log_error("the stop does not come to its end: leaving");
    _exit(atomic_load(&server->device_failed) ? EXIT_DEVICE : EXIT_STOP);
}

static bool signal_waits(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

static void stop(struct server *server)
{
    pthread_t last;
    server->leave_ms = (int)(drain_ms(server) + REST_MS);
    if (pthread_create(&last, NULL, leave_at_last, server) == 0)
        pthread_detach(last);
    http_stop(server->http, drain_ms(server), signal_waits);
    http_stop(server->admin, 0, signal_waits);
    if (server->queue)
        queue_close(server->queue);
    for (int i = 0; i < server->n_lanes; i++)
        worker_join(server->lanes[i].worker);
    for (int i = 0; i < server->n_lanes; i++)
        vit_run_free(server->lanes[i].run);
    queue_free(server->queue);
    if (server->model.replicas[0].backend)
        server->model.replicas[0].backend->ops->free_host(server->model.replicas[0].backend,
                                                          server->pixels);
    model_close(&server->model);
    api_free(server->api);
    metrics_free(server->metrics);
    auth_close(server->auth);
}

static void reload(struct auth *auth)
{
    enum status status = auth ? auth_reload(auth) : STATUS_OK;
    if (status == STATUS_OK)
        log_info("SIGHUP: %s", auth ? "the keys were read again" : "there are no keys to read");
    else
        log_error("SIGHUP: the keys stay as they were: %s", status_detail(status));
}

// The signals are blocked in every thread and taken here. The first that is not SIGHUP begins the
// stop: balancers are told, and given time to act on it. A second one means at once.
static void wait_for_signals(struct server *server, sigset_t *signals)
{
    int signal_number = 0;
    while (sigwait(signals, &signal_number) == 0 && signal_number == SIGHUP)
        reload(server->auth);
    if (atomic_load(&server->device_failed) || atomic_load(&server->start_code) > EXIT_OK)
        return;
    log_info("stopping (%s)", strsignal(signal_number));
    if (atomic_load(&server->start_code) == STILL_STARTING)
        _exit(EXIT_OK); // nothing was accepted, and the device may not answer
    api_set_unready(server->api, STATUS_DRAINING);
    int64_t delay_ms = server->config->drain_delay_ms;
    const struct timespec delay = {.tv_sec = delay_ms / 1000, .tv_nsec = delay_ms % 1000 * 1000000};
    sigdelset(signals, SIGHUP);
    server->hurry = delay_ms > 0 && sigtimedwait(signals, NULL, &delay) > 0;
}

int serve_main(const struct config *config)
{
    static struct server server = {.start_code = STILL_STARTING}; // for leave_at_last()
    server.config = config;
    bound_free_memory();
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);

    enum status status = start_http(&server);
    if (status == STATUS_OK &&
        pthread_create(&server.starter, NULL, start_engine_thread, &server) != 0)
        status = status_fail(STATUS_INTERNAL, "cannot start a thread");
    int code = status == STATUS_OK ? EXIT_OK : exit_code(status);
    if (status == STATUS_OK) {
        wait_for_signals(&server, &signals);
        pthread_join(server.starter, NULL);
        code = atomic_load(&server.start_code);
    }
    stop(&server);
    return atomic_load(&server.device_failed) ? EXIT_DEVICE : code;
}
