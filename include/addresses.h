#pragma once
// Addresses of clients: which of them are one client's, and sets of them.

#include "status.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

// IPv6; IPv4 as ::ffff:a.b.c.d.
struct address {
    uint8_t bytes[16];
};

struct address address_of(const struct sockaddr *address);

// What one client may choose from: the address of IPv4, the /64 of IPv6.
struct address address_of_client(struct address address);

bool address_is_local(struct address address); // 127.0.0.0/8, ::1

enum { ADDRESS_RANGES = 64 };
struct address_set {
    int count;
    struct {
        struct address first;
        int bits;
    } ranges[ADDRESS_RANGES];
};

// "10.0.0.0/8,fd00::/8,192.0.2.7"; "" is the empty set. STATUS_USAGE says which of them is none.
enum status addresses_parse(const char *list, struct address_set *set) CHECKED;
bool addresses_hold(const struct address_set *set, struct address address);
