#pragma once
// The HTTP/1.1 front end: accepts connections, collects each request's body within the limits,
// calls the handler, sends the reply. It knows nothing of images.
//
// The handler runs on the thread of its connection, many at a time.

#include "addresses.h"
#include "budget.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_request {
    const char *method; // "POST"
    const char *path;   // without the query, percent-decoded
    const uint8_t *body;
    size_t body_length;
    const char *id; // the client's X-Request-Id if it is sane, else a fresh one
    // Not STATUS_OK: the request was refused before its body was read, and the handler has only
    // to write the error. The detail is this thread's.
    enum status refused;
    int64_t arrived_ns;    // clock_ns() when the headers had arrived
    int64_t deadline_ns;   // when the answer should be there
    struct budget *budget; // what is made of the body is charged here, as the body is
    void *connection;      // private to http.c
};

// NULL where absent.
const char *http_header(const struct http_request *request, const char *name);
const char *http_query(const struct http_request *request, const char *name);

// Whether the client has closed its end. Any thread, while the request is in work.
bool http_client_gone(void *connection);

enum { HTTP_MAX_HEADERS = 12 };

struct http_response {
    char *body; // malloc'ed; http.c frees it
    size_t length;
    const char *content_type;
    struct {
        const char *name;
        char value[256];
    } headers[HTTP_MAX_HEADERS];
    int n_headers;
};

void http_add_header(struct http_response *response, const char *name, const char *format, ...)
    PRINTF_LIKE(3);

// For http.c: hands the answer to the library, its body included; `last`: the connection closes
// after it. false: it could not be.
bool http_reply(void *connection, const char *id, unsigned code, struct http_response *response,
                bool last) CHECKED;

// Fills the response; the status it returns becomes the HTTP status.
typedef enum status (*http_handler)(void *context, const struct http_request *request,
                                    struct http_response *response);

// Called once the headers have arrived, before the body is read: what it refuses goes to the
// handler as request->refused, and the body is not taken.
typedef enum status (*http_admit)(void *context, const struct http_request *request);

// What a server has in work; its owner may look at it at any time.
struct http_load {
    struct budget bytes;
    atomic_int requests; // whose headers have arrived and whose reply is not yet sent
};

struct http_options {
    const char *listen;
    const char *allowed_hosts; // hosts.h
    int port;                  // 0: any free one
    int64_t max_body_bytes, max_connections;
    int64_t max_of_client;             // connections, of one address or IPv6 /64
    const struct address_set *trusted; // addresses apart from that; NULL: none; outlives the server
    bool replaces; // at max_connections, a new one takes the place of the one that is idle longest
    int64_t idle_timeout_ms;        // a connection that is silent for longer is closed
    int64_t request_timeout_ms;     // from the headers to the answer
    struct http_load *load;         // outlives the server
    const char *tls_cert, *tls_key; // PEM text, read by http_start() alone; NULL: plain HTTP
    http_admit admit;
    http_handler handler;
    void *context;
};

struct http_server;

// Listens and serves from now on. STATUS_IO where the address cannot be bound, STATUS_USAGE where
// certificate and key cannot be used.
enum status http_start(const struct http_options *options, struct http_server **server) CHECKED;

// "127.0.0.1:8080", as bound.
const char *http_address(const struct http_server *server);

// Accepts what already waits in the backlog, then nothing more; answers every request in work, at
// most for timeout_ms and until hurry() says so; closes all connections and frees the server.
void http_stop(struct http_server *server, int64_t timeout_ms, bool (*hurry)(void));
