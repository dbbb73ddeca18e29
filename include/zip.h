#pragma once
// A ZIP archive in memory, read only, ZIP64 included. Strict, as only what torch.save writes is of
// use here: every entry is stored as it is (no compression, no encryption), no two of them overlap
// or share a name, and nothing stands behind the directory's end.
// Format: APPNOTE.TXT of PKWARE

#include "status.h"
#include <stddef.h>
#include <stdint.h>

struct zip_entry {
    const char *name; // in the archive's bytes, with no zero behind it
    size_t name_bytes;
    const uint8_t *data;
    size_t bytes;
};

struct zip {
    struct zip_entry *entries; // sorted by name
    size_t count;
};

// `name` says in errors what the bytes are; the caller keeps them alive. STATUS_BAD_WEIGHTS says
// what is wrong and where.
enum status zip_init(const char *name, const uint8_t *bytes, size_t length,
                     struct zip *zip) CHECKED;

// NULL if there is no such entry.
const struct zip_entry *zip_find(const struct zip *zip, const char *name, size_t name_bytes);

void zip_release(struct zip *zip);
