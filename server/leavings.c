#include "leavings.h"
#include "clock.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

void leavings_begin(struct leavings *leavings, int64_t ms)
{
    if (leavings->end_ns == 0)
        leavings->end_ns = clock_ns() + ms * 1000000;
}

bool leavings_count(struct leavings *leavings, size_t length)
{
    leavings->bytes += (int64_t)length;
    return leavings->bytes <= LEAVINGS_BYTES && clock_ns() < leavings->end_ns;
}

void leavings_read(struct leavings *leavings, int fd, int64_t quiet_ms)
{
    char piece[16384];
    leavings_begin(leavings, LEAVINGS_MS);
    while (leavings_count(leavings, 0)) {
        ssize_t got = recv(fd, piece, sizeof piece, MSG_DONTWAIT);
        if (got > 0) {
            leavings_count(leavings, (size_t)got);
            continue;
        }
        if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
            return;
        int64_t left_ms = (leavings->end_ns - clock_ns()) / 1000000 + 1;
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        if (poll(&readable, 1, (int)(left_ms < quiet_ms ? left_ms : quiet_ms)) == 0)
            return;
    }
}
