#pragma once
// A listening TCP socket with a thread that accepts connections.

#include "status.h"
#include <stdbool.h>
#include <sys/socket.h>

struct listener;

// The callback owns fd (non-blocking) from then on. It runs on the listener's thread, and once
// more on that of listener_stop().
typedef void (*accepted_fn)(void *context, int fd, const struct sockaddr *address,
                            socklen_t length);

// address: a host name or number; port 0 picks a free one. STATUS_IO says what cannot be bound.
enum status listener_open(const char *address, int port, accepted_fn accepted, void *context,
                          struct listener **listener) CHECKED;
enum status listener_begin(struct listener *listener) CHECKED; // to accept

// "127.0.0.1:8080", as bound.
const char *listener_address(const struct listener *listener);

bool listener_is_local(const struct listener *listener); // bound to this machine alone

// Hands over every connection that already waits in the backlog, closes the socket, and frees.
void listener_stop(struct listener *listener);
