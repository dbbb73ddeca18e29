#include "reception.h"
#include "clock.h"
#include "listener.h"
#include "log.h"
#include <stdlib.h>
#include <unistd.h>

struct reception {
    struct reception_options options;
    struct listener *listener; // NULL: closed
    struct watch_item sweep;
};

static bool has_room(struct reception *reception, int fd, struct address address)
{
    const struct reception_options *options = &reception->options;
    const bool trusted = options->trusted && addresses_hold(options->trusted, address);
    const int64_t most_of_client = trusted ? INT64_MAX : options->max_of_client;
    const struct address client = address_of_client(address);
    if (peers_add(options->peers, fd, client, options->max_connections, most_of_client))
        return true;
    return options->replaces && peers_end_oldest(options->peers) &&
           peers_add(options->peers, fd, client, options->max_connections, most_of_client);
}

static void on_accept(void *context, int fd, const struct sockaddr *address, socklen_t length)
{
    struct reception *reception = context;
    const struct reception_options *options = &reception->options;
    options->forget(options->context, fd);
    if (has_room(reception, fd, address_of(address))) {
        options->accepted(options->context, fd, address, length);
        return;
    }
    log_debug("connection refused: there are %d already, or too many from its address",
              peers_count(options->peers));
    close(fd);
}

static int64_t sweep(struct watch_item *item)
{
    struct reception *reception =
        (struct reception *)(void *)((char *)item - offsetof(struct reception, sweep));
    const int64_t second = 1000000000, ms = 1000000, now = clock_ns();
    peers_end_late(reception->options.peers, now - reception->options.head_ms * ms,
                   now - reception->options.idle_ms * ms);
    return now + second;
}

enum status reception_open(const struct reception_options *options, struct reception **out)
{
    struct reception *reception = calloc(1, sizeof *reception);
    if (!reception)
        return status_fail(STATUS_OUT_OF_MEMORY, "reception: out of memory");
    reception->options = *options;
    reception->sweep.over = sweep;
    enum status status =
        listener_open(options->listen, options->port, on_accept, reception, &reception->listener);
    if (status != STATUS_OK) {
        free(reception);
        return status;
    }
    *out = reception;
    return STATUS_OK;
}

enum status reception_begin(struct reception *reception)
{
    TRY(listener_begin(reception->listener));
    watch_set(reception->options.watch, &reception->sweep, clock_ns());
    return STATUS_OK;
}

const char *reception_address(const struct reception *reception)
{
    return listener_address(reception->listener);
}

bool reception_is_local(const struct reception *reception)
{
    return listener_is_local(reception->listener);
}

void reception_close(struct reception *reception)
{
    listener_stop(reception->listener);
    reception->listener = NULL;
}

void reception_free(struct reception *reception)
{
    if (!reception)
        return;
    listener_stop(reception->listener);
    watch_remove(reception->options.watch, &reception->sweep);
    free(reception);
}
