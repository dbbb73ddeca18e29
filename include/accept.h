#pragma once
// What a client would like to get: the Accept header of HTTP (RFC 9110, 12.5.1). Reentrant.

// How much the client wants media type `type` ("text/plain"; parameters behind it do not count), in
// thousandths: 0 not at all, 1000 as much as can be. The range that names it most closely decides;
// what is malformed is passed over. accept may be NULL, which names nothing.
int accept_weight(const char *accept, const char *type);
