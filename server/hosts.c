#include "hosts.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

// Without port and brackets; false where it is too long to be any that we know.
static bool read_name(const char *host, char *name, size_t size)
{
    host += strspn(host, " \t");
    const bool literal = *host == '[';
    host += literal;
    const size_t length = strcspn(host, literal ? "]" : ": \t");
    snprintf(name, size, "%.*s", (int)(length < size ? length : 0), host);
    return length < size;
}

// A name without a dot, or a number: nobody can have it mean another machine than it does here.
static bool is_nobodys(const char *name)
{
    uint8_t bytes[sizeof(struct in6_addr)];
    const char *dot = strchr(name, '.');
    return !dot || !dot[1] || inet_pton(AF_INET, name, bytes) == 1 ||
           inet_pton(AF_INET6, name, bytes) == 1;
}

static bool is_listed(const char *list, const char *name)
{
    for (const char *at = list; *at; at += strspn(at, ", ")) {
        const size_t length = strcspn(at, ", ");
        if ((length == 1 && *at == '*') ||
            (length == strlen(name) && strncasecmp(at, name, length) == 0))
            return true;
        at += length;
    }
    return false;
}

bool hosts_allow(const struct host_rules *rules, const char *host)
{
    char name[256];
    if (!rules->local && !*rules->allowed)
        return true;
    if (!read_name(host, name, sizeof name))
        return is_listed(rules->allowed, "*");
    return is_listed(rules->allowed, name) || strcasecmp(name, rules->listen) == 0 ||
           (rules->local && is_nobodys(name));
}
