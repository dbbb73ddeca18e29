// What handlers ask of a request and add to its answer, and the answer as the library gets it.

#include "http.h"
#include <errno.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

const char *http_header(const struct http_request *request, const char *name)
{
    const char *value = NULL;
    MHD_lookup_connection_value_n(request->connection, MHD_HEADER_KIND, name, strlen(name), &value,
                                  NULL);
    return value;
}

const char *http_query(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

// A client that has closed one direction only looks the same as one that has closed both.
bool http_client_gone(void *connection)
{
    const int fd =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

void http_add_header(struct http_response *response, const char *name, const char *format, ...)
{
    if (response->n_headers == HTTP_MAX_HEADERS)
        return;
    va_list args;
    va_start(args, format);
    char *value = response->headers[response->n_headers].value;
    vsnprintf(value, sizeof response->headers->value, format, args);
    va_end(args);
    response->headers[response->n_headers++].name = name;
}

bool http_reply(void *connection, const char *id, unsigned code, struct http_response *response,
                bool last)
{
    struct MHD_Response *reply =
        MHD_create_response_from_buffer(response->length, response->body, MHD_RESPMEM_MUST_FREE);
    if (!reply) {
        free(response->body);
        return false;
    }
    bool complete = !response->content_type ||
                    MHD_add_response_header(reply, "Content-Type", response->content_type);
    complete = MHD_add_response_header(reply, "X-Request-Id", id) && complete;
    for (int i = 0; i < response->n_headers; i++)
        complete =
            MHD_add_response_header(reply, response->headers[i].name, response->headers[i].value) &&
            complete;
    if (last)
        complete = MHD_add_response_header(reply, "Connection", "close") && complete;
    // Better no answer than one that lacks a header for want of memory.
    const bool queued = complete && MHD_queue_response(connection, code, reply) == MHD_YES;
    MHD_destroy_response(reply);
    return queued;
}
