#pragma once
// What we know of the connection with a descriptor, and how many there are. Any thread.
//
// The library says when it closes a connection, but not if it had no memory to begin with it: that
// is seen when its descriptor comes back with another.

#include "addresses.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct peers;

// For every descriptor that the process may have.
enum status peers_create(struct peers **peers) CHECKED;
void peers_free(struct peers *peers); // NULL is ignored

// Accepted; false where there are `most` already, or `most_of_client` of this client.
bool peers_add(struct peers *peers, int fd, struct address client, int64_t most,
               int64_t most_of_client);

// Has sent a request, which may be kept here until it is taken; one at a time.
void peers_keep(struct peers *peers, int fd, void *request);
void *peers_take(struct peers *peers, int fd); // NULL: there is none

// Closed, or about to be. One that is not there is ignored.
void peers_remove(struct peers *peers, int fd);

// Ends the connections that have no request in work and have sent none since these times, by
// clock_ns(): the first for those that never have. Ending is for the connection's thread to see.
void peers_end_late(struct peers *peers, int64_t fresh_since_ns, int64_t idle_since_ns);
// The one that has had none for the longest time; false where all have one.
bool peers_end_oldest(struct peers *peers);

int peers_count(struct peers *peers); // without those that are ending
int peers_fresh(struct peers *peers); // of these, the ones that have not sent a request yet
