#include "peers.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_DESCRIPTORS = 1 << 20 };

enum state { NONE, FRESH, USED }; // no request yet, and one at least

struct peers {
    atomic_int count, fresh;
    int descriptors;
    struct peer {
        atomic_int state;
        void *_Atomic request;
    } peers[];
};

enum status peers_create(struct peers **out)
{
    const long limit = sysconf(_SC_OPEN_MAX);
    const int descriptors = limit > 0 && limit < MAX_DESCRIPTORS ? (int)limit : MAX_DESCRIPTORS;
    struct peers *peers = calloc(1, sizeof *peers + sizeof *peers->peers * (size_t)descriptors);
    if (!peers)
        return status_fail(STATUS_OUT_OF_MEMORY, "peers: out of memory");
    peers->descriptors = descriptors;
    *out = peers;
    return STATUS_OK;
}

void peers_free(struct peers *peers)
{
    free(peers);
}

bool peers_add(struct peers *peers, int fd, int64_t most)
{
    if (fd >= peers->descriptors || atomic_load(&peers->count) >= most)
        return false;
    atomic_store(&peers->peers[fd].state, FRESH);
    atomic_fetch_add(&peers->count, 1);
    atomic_fetch_add(&peers->fresh, 1);
    return true;
}

void peers_keep(struct peers *peers, int fd, void *request)
{
    atomic_store(&peers->peers[fd].request, request);
    if (atomic_exchange(&peers->peers[fd].state, USED) == FRESH)
        atomic_fetch_sub(&peers->fresh, 1);
}

void *peers_take(struct peers *peers, int fd)
{
    return fd < peers->descriptors ? atomic_exchange(&peers->peers[fd].request, NULL) : NULL;
}

void peers_remove(struct peers *peers, int fd)
{
    if (fd >= peers->descriptors)
        return;
    int state = atomic_exchange(&peers->peers[fd].state, NONE);
    atomic_fetch_sub(&peers->fresh, state == FRESH);
    atomic_fetch_sub(&peers->count, state != NONE);
}

int peers_count(struct peers *peers)
{
    return atomic_load(&peers->count);
}

int peers_fresh(struct peers *peers)
{
    return atomic_load(&peers->fresh);
}
