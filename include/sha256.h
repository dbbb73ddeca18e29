#pragma once
// SHA-256 (FIPS 180-4) of bytes that come in pieces. No library that the program links has it.

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t state[8];
    uint64_t length;   // bytes so far
    uint8_t block[64]; // the last length % 64 of them
};

void sha256_init(struct sha256 *sha256);
void sha256_update(struct sha256 *sha256, const void *bytes, size_t length);

// Ends the message; digest: 64 lower-case hex digits and a zero byte.
void sha256_finish(struct sha256 *sha256, char digest[65]);
