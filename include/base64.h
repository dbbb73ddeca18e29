#pragma once
// Base64 (RFC 4648, section 4) and the data: URIs that carry it. Reentrant.
//
// Strict: the alphabet of + and /, the padding that makes groups of four, no bits left over in the
// last character, nothing behind the end. ASCII whitespace is skipped wherever it stands, as MIME
// breaks lines.

#include "status.h"
#include <stddef.h>
#include <stdint.h>

// The most bytes that base64_decode() makes of `length` characters.
size_t base64_max_bytes(size_t length);

// text: base64, or "data:[<type>][;<parameter>]...;base64,<base64>". bytes: room for
// base64_max_bytes(length) of them; *count: how many were written.
// STATUS_BAD_REQUEST: what is wrong, and at which byte of the text, from 0.
enum status base64_decode(const char *text, size_t length, uint8_t *bytes, size_t *count) CHECKED;
