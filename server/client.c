#include "client.h"
#include "clock.h"

enum status client_check(const struct client *client)
{
    if (clock_ns() >= client->deadline_ns)
        return status_fail(STATUS_DEADLINE, "the time ran out before the image was decoded");
    if (client->gone && client->gone(client->context))
        return status_fail(STATUS_CANCELLED, "the client has gone");
    return STATUS_OK;
}
