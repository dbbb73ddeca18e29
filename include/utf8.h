#pragma once
// UTF-8 as RFC 3629 has it.

#include <stdbool.h>
#include <stddef.h>

// Bytes of the character that the text begins with; 0 where it begins with none, or is empty.
size_t utf8_character(const char *text, size_t length);

bool utf8_valid(const char *text, size_t length);

// Bytes of the byte order mark that the text begins with, as Windows editors write one: 3, or 0.
size_t utf8_mark(const char *text, size_t length);
