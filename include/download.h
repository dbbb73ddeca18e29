#pragma once
// One file over HTTPS, gone on with where an earlier transfer stopped.

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

// https://..., or http://127.0.0.1/... for a server on this machine.
bool download_allows(const char *url);

// Appends what is missing of the file at `url` to fd, a file open for writing whose path is for
// errors alone, or writes it anew where the server does not know ranges; redirects are followed to
// https:// alone. *bytes is the length of the file afterwards, 0 if nothing in it is of use. With
// standard error on a terminal a bar shows how far it is. STATUS_IO says what failed, SIGINT and
// SIGTERM included: what has come is kept, unless the whole has more than max_bytes, which is known
// before they are written. That nothing failed does not say that the content is right.
enum status download(const char *url, const char *path, int fd, int64_t max_bytes,
                     int64_t *bytes) CHECKED;
