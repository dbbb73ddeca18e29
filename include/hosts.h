#pragma once
// Which hosts a server answers for. A page of another site can have its own name mean 127.0.0.1
// (DNS rebinding), and then ask a server on the visitor's machine as if it were its own: what gives
// it away is the Host that the browser sends.

#include <stdbool.h>

struct host_rules {
    const char *listen;  // as configured
    const char *allowed; // names, with commas between them; "*": any
    bool local;          // bound to this machine alone
};

// host: the header's value (RFC 9110, 7.2), port and all. On a local address all are allowed but
// names of the DNS, which have a dot in them; elsewhere, where no names are given, those too.
bool hosts_allow(const struct host_rules *rules, const char *host);
