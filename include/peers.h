#pragma once
// What we know of the connection with a descriptor, and how many there are. Any thread.
//
// The library says when it closes a connection, but not if it had no memory to begin with it: that
// is seen when its descriptor comes back with another.

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct peers;

// For every descriptor that the process may have.
enum status peers_create(struct peers **peers) CHECKED;
void peers_free(struct peers *peers); // NULL is ignored

// Accepted; false where there are `most` already.
bool peers_add(struct peers *peers, int fd, int64_t most);

// Has sent a request, which may be kept here until it is taken; one at a time.
void peers_keep(struct peers *peers, int fd, void *request);
void *peers_take(struct peers *peers, int fd); // NULL: there is none

// Closed. One that is not there is ignored.
void peers_remove(struct peers *peers, int fd);

int peers_count(struct peers *peers);
int peers_fresh(struct peers *peers); // of these, the ones that have not sent a request yet
