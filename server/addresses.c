#include "addresses.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BITS = 128, IPV4_AT = 12, IPV4_BITS = 8 * IPV4_AT };

static const struct address ipv4_range = {{[10] = 0xff, [11] = 0xff}};

static struct address of_ipv4(const void *bytes)
{
    struct address address = ipv4_range;
    memcpy(address.bytes + IPV4_AT, bytes, 4);
    return address;
}

struct address address_of(const struct sockaddr *from)
{
    struct address address = {0};
    if (from->sa_family == AF_INET)
        address = of_ipv4(&((const struct sockaddr_in *)(const void *)from)->sin_addr);
    if (from->sa_family == AF_INET6)
        memcpy(address.bytes, &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr,
               sizeof address.bytes);
    return address;
}

static bool within(struct address address, struct address first, int bits)
{
    const int whole = bits / 8, rest = bits % 8;
    return memcmp(address.bytes, first.bytes, (size_t)whole) == 0 &&
           (rest == 0 || (address.bytes[whole] ^ first.bytes[whole]) >> (8 - rest) == 0);
}

struct address address_of_client(struct address address)
{
    if (!within(address, ipv4_range, IPV4_BITS))
        memset(address.bytes + 8, 0, 8);
    return address;
}

bool address_is_local(struct address address)
{
    static const struct address ipv6 = {{[15] = 1}};
    const uint8_t ipv4[4] = {127};
    return within(address, ipv6, BITS) || within(address, of_ipv4(ipv4), IPV4_BITS + 8);
}

static bool parse_range(const char *text, struct address_set *set)
{
    char host[INET6_ADDRSTRLEN], *end;
    const size_t length = strcspn(text, "/");
    struct address *first = &set->ranges[set->count].first;
    uint8_t ipv4[4];
    if (length >= sizeof host)
        return false;
    snprintf(host, sizeof host, "%.*s", (int)length, text);
    const bool is_ipv4 = inet_pton(AF_INET, host, ipv4) == 1;
    if (is_ipv4)
        *first = of_ipv4(ipv4);
    else if (inet_pton(AF_INET6, host, first->bytes) != 1)
        return false;
    const int before = is_ipv4 ? IPV4_BITS : 0;
    long bits = BITS - before;
    if (text[length] == '/') {
        const char *number = text + length + 1;
        bits = strtol(number, &end, 10);
        if (*number < '0' || *number > '9' || *end || bits > BITS - before)
            return false;
    }
    set->ranges[set->count++].bits = before + (int)bits;
    return true;
}

enum status addresses_parse(const char *list, struct address_set *set)
{
    *set = (struct address_set){0};
    for (const char *at = list + strspn(list, ", "); *at; at += strspn(at, ", ")) {
        char text[INET6_ADDRSTRLEN + 4];
        const size_t length = strcspn(at, ", ");
        if (set->count == ADDRESS_RANGES)
            return status_fail(STATUS_USAGE, "\"%s\": more than %d addresses", list,
                               ADDRESS_RANGES);
        snprintf(text, sizeof text, "%.*s", (int)length, at);
        if (length >= sizeof text || !parse_range(text, set))
            return status_fail(STATUS_USAGE, "\"%.*s\" is neither an address nor a range of them",
                               (int)length, at);
        at += length;
    }
    return STATUS_OK;
}

bool addresses_hold(const struct address_set *set, struct address address)
{
    for (int i = 0; i < set->count; i++)
        if (within(address, set->ranges[i].first, set->ranges[i].bits))
            return true;
    return false;
}
