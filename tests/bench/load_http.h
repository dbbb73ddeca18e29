// One connection of the load generator: sends a request, says what became of it.
//
// Every request comes to exactly one outcome, which connection_begin() or connection_event()
// returns and connection_end() then closes; until then they return PENDING. Answers need a
// Content-Length: one in chunks counts as NO_HTTP. Nothing here blocks.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

// What can come of a request beside an HTTP status.
enum outcome {
    PENDING,
    CONNECT_FAILED,  // not a byte of the request could be sent
    CONNECTION_LOST, // it ended before the answer did
    TIMED_OUT,
    NO_HTTP, // an answer that is none, or none that we know
    FAILURES
};

struct request {
    char *bytes;
    size_t length;
};

struct target {
    struct sockaddr_storage address;
    socklen_t address_length;
    int epoll;
    size_t repeated; // requests that were sent twice, see connection_event()
};

enum { HEAD_BYTES = 16384 };

struct connection {
    int fd;                        // -1: closed
    const struct request *request; // NULL: none is on its way
    int64_t intended_ns;           // the caller's: when the request was to start
    bool used;                     // it has brought an answer before
    bool closing;                  // the server closes it after this answer
    size_t sent;
    int status;
    int64_t body_left; // -1: the head is not complete
    size_t head_length;
    char head[HEAD_BYTES];
};

// Sends the request, on a new connection where there is none. The request must outlive its outcome.
int connection_begin(struct connection *c, struct target *target, const struct request *request);

// What epoll says of it. Where a connection that was used before ends without a byte of an answer,
// the server may have closed it just as the request went out: the request is sent once more, on a
// new connection, as every HTTP client does.
int connection_event(struct connection *c, struct target *target, uint32_t events);

// Ends the request. The connection stays open for the next where this outcome allows it.
void connection_end(struct connection *c, int outcome);
