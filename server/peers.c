#include "peers.h"
#include "clock.h"
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DESCRIPTORS = 1 << 20 };

enum state { NONE, FRESH, USED, ENDED }; // no request yet; one at least; told to end

struct peers {
    // Guards the rest. Whoever ends a connection holds it, so that the descriptor is still the
    // connection's own: peers_remove() comes before the close.
    pthread_mutex_t mutex;
    int count, fresh;      // without those that have been told to end
    int descriptors, used; // that there may be, and all below which have been
    struct peer {
        enum state state;
        struct address client;
        int64_t since_ns; // without a request
        void *request;    // in work
    } peers[];
};

enum status peers_create(struct peers **out)
{
    const long limit = sysconf(_SC_OPEN_MAX);
    const int descriptors = limit > 0 && limit < MAX_DESCRIPTORS ? (int)limit : MAX_DESCRIPTORS;
    struct peers *peers = calloc(1, sizeof *peers + sizeof *peers->peers * (size_t)descriptors);
    if (!peers)
        return status_fail(STATUS_OUT_OF_MEMORY, "peers: out of memory");
    pthread_mutex_init(&peers->mutex, NULL);
    peers->descriptors = descriptors;
    *out = peers;
    return STATUS_OK;
}

void peers_free(struct peers *peers)
{
    if (peers)
        pthread_mutex_destroy(&peers->mutex);
    free(peers);
}

static bool is_counted(enum state state)
{
    return state == FRESH || state == USED;
}

static void set_state(struct peers *peers, struct peer *peer, enum state next)
{
    peers->fresh += (next == FRESH) - (peer->state == FRESH);
    peers->count += is_counted(next) - is_counted(peer->state);
    peer->state = next;
}

static int64_t count_of_client(const struct peers *peers, const struct address *client)
{
    int64_t count = 0;
    for (int fd = 0; fd < peers->used; fd++)
        count += is_counted(peers->peers[fd].state) &&
                 memcmp(&peers->peers[fd].client, client, sizeof *client) == 0;
    return count;
}

bool peers_add(struct peers *peers, int fd, struct address client, int64_t most,
               int64_t most_of_client)
{
    pthread_mutex_lock(&peers->mutex);
    // Nobody has so many of all that there are: mostly there is nothing to count.
    const bool room =
        fd < peers->descriptors && peers->count < most &&
        (peers->count < most_of_client || count_of_client(peers, &client) < most_of_client);
    if (room) {
        struct peer *peer = &peers->peers[fd];
        *peer = (struct peer){.client = client, .since_ns = clock_ns()};
        set_state(peers, peer, FRESH);
        peers->used = fd < peers->used ? peers->used : fd + 1;
    }
    pthread_mutex_unlock(&peers->mutex);
    return room;
}

void peers_keep(struct peers *peers, int fd, void *request)
{
    pthread_mutex_lock(&peers->mutex);
    set_state(peers, &peers->peers[fd], USED);
    peers->peers[fd].request = request;
    pthread_mutex_unlock(&peers->mutex);
}

void *peers_take(struct peers *peers, int fd)
{
    if (fd >= peers->descriptors)
        return NULL;
    pthread_mutex_lock(&peers->mutex);
    void *request = peers->peers[fd].request;
    peers->peers[fd].request = NULL;
    peers->peers[fd].since_ns = clock_ns();
    pthread_mutex_unlock(&peers->mutex);
    return request;
}

void peers_remove(struct peers *peers, int fd)
{
    if (fd >= peers->descriptors)
        return;
    pthread_mutex_lock(&peers->mutex);
    set_state(peers, &peers->peers[fd], NONE);
    pthread_mutex_unlock(&peers->mutex);
}

static bool is_idle(const struct peer *peer)
{
    return is_counted(peer->state) && !peer->request;
}

// The caller holds the mutex.
static void end(struct peers *peers, int fd)
{
    set_state(peers, &peers->peers[fd], ENDED);
    shutdown(fd, SHUT_RDWR);
}

void peers_end_late(struct peers *peers, int64_t fresh_since_ns, int64_t idle_since_ns)
{
    pthread_mutex_lock(&peers->mutex);
    for (int fd = 0; fd < peers->used; fd++) {
        const struct peer *peer = &peers->peers[fd];
        if (is_idle(peer) &&
            peer->since_ns < (peer->state == FRESH ? fresh_since_ns : idle_since_ns))
            end(peers, fd);
    }
    pthread_mutex_unlock(&peers->mutex);
}

bool peers_end_oldest(struct peers *peers)
{
    int oldest = -1;
    pthread_mutex_lock(&peers->mutex);
    for (int fd = 0; fd < peers->used; fd++)
        if (is_idle(&peers->peers[fd]) &&
            (oldest < 0 || peers->peers[fd].since_ns < peers->peers[oldest].since_ns))
            oldest = fd;
    if (oldest >= 0)
        end(peers, oldest);
    pthread_mutex_unlock(&peers->mutex);
    return oldest >= 0;
}

int peers_count(struct peers *peers)
{
    pthread_mutex_lock(&peers->mutex);
    const int count = peers->count;
    pthread_mutex_unlock(&peers->mutex);
    return count;
}

int peers_fresh(struct peers *peers)
{
    pthread_mutex_lock(&peers->mutex);
    const int fresh = peers->fresh;
    pthread_mutex_unlock(&peers->mutex);
    return fresh;
}
