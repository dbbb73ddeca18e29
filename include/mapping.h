#pragma once
// A file as memory, read-only. A read of it that cannot be completed, because the file was cut
// short or its disk has failed, ends the process with exit code 1 and a message that names the
// file.

#include "status.h"
#include <stddef.h>
#include <stdint.h>

struct mapping {
    const uint8_t *bytes; // NULL for an empty file
    size_t length;
};

// The whole of a regular file, all of it read. STATUS_IO: it cannot be opened, read or mapped; the
// message does not name it.
enum status mapping_open(const char *path, struct mapping *mapping) CHECKED;
void mapping_close(struct mapping *mapping);
