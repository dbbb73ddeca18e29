#pragma once
// Accepts connections within the limits, and ends those that hold a place without asking for
// anything.

#include "addresses.h"
#include "peers.h"
#include "watch.h"

struct reception_options {
    const char *listen;
    int port; // 0: any free one
    int64_t max_connections, max_of_client;
    const struct address_set *trusted; // clients that max_of_client does not bind; NULL: none
    bool replaces;   // at the limit, a connection takes the place of the one that is idle longest
    int64_t head_ms; // until the first request's headers are there
    int64_t idle_ms; // and the next one's after an answer, however they trickle in
    struct peers *peers;
    struct watch *watch;
    // A connection that peers has: fd is the callee's. Called on the listener's thread.
    void (*accepted)(void *context, int fd, const struct sockaddr *address, socklen_t length);
    // A descriptor comes back: whoever had it is gone.
    void (*forget)(void *context, int fd);
    void *context;
};

struct reception;

// The options are copied; what they point to outlives the reception. STATUS_IO says what cannot be
// bound.
enum status reception_open(const struct reception_options *options,
                           struct reception **reception) CHECKED;
enum status reception_begin(struct reception *reception) CHECKED; // to accept

const char *reception_address(const struct reception *reception); // "127.0.0.1:8080", as bound

bool reception_is_local(const struct reception *reception); // bound to this machine alone

// Takes what already waits in the backlog, and nothing more. Late connections still end.
void reception_close(struct reception *reception);
void reception_free(struct reception *reception); // NULL is ignored
