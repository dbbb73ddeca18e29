#pragma once
// Base64 (RFC 4648) and the data: URIs that carry it. Reentrant.
//
// Both alphabets are taken, that of + and / and the URL-safe one of - and _, with padding or
// without: clients send them all. What could hide a text that was cut off is refused: half a
// padding, a single character or bits left over at the end, anything after the end. ASCII
// whitespace is skipped wherever it stands, as MIME breaks lines.

#include "status.h"
#include <stddef.h>
#include <stdint.h>

// The most bytes that base64_decode() makes of `length` characters.
size_t base64_max_bytes(size_t length);

// text: base64, or "data:[<type>][;<parameter>]...;base64,<base64>". bytes: room for
// base64_max_bytes(length) of them; *count: how many were written.
// STATUS_BAD_REQUEST: what is wrong, and at which byte of the text, from 0.
enum status base64_decode(const char *text, size_t length, uint8_t *bytes, size_t *count) CHECKED;
