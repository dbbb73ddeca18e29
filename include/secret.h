#pragma once
// A small text file of secrets, read whole: the keys of clients, a private key. A process that has
// read one leaves no core. Reentrant.

#include "status.h"

// The zero-terminated text, malloc'ed; the caller hands it to secret_free().
// STATUS_IO: the file cannot be read. STATUS_USAGE: it is empty, too large, or no text. The detail
// names the file, and nothing of what it holds.
enum status secret_read(const char *path, char **text) CHECKED;

// Wipes the text, then frees it; NULL is nothing.
void secret_free(char *text);
