// See include/zip.h. An entry is described twice, in the directory at the end and in front of its
// data; sizes are taken from the directory, the place of the data from the description before it.

#include "zip.h"
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// Of the fixed part of each record.
enum {
    LOCAL_BYTES = 30,
    ENTRY_BYTES = 46,
    END64_BYTES = 56,
    LOCATOR64_BYTES = 20,
    END_BYTES = 22,
};

enum { ENCRYPTED = 1 | 1 << 6 | 1 << 13 }; // bits of an entry's flags

struct archive {
    const char *name;
    const uint8_t *bytes;
    size_t length;
    uint64_t directory, directory_bytes, count;
};

// What the directory says of an entry.
struct record {
    const uint8_t *name;
    size_t name_bytes;
    uint64_t flags, method, stored_bytes, bytes, header;
};

// A name for a message, cut there: names have no limit that a message could hold.
struct shown {
    char text[101];
};

static struct shown show(const void *name, size_t bytes)
{
    struct shown out = {""};
    memcpy(out.text, name, bytes < sizeof out.text ? bytes : sizeof out.text - 1);
    return out;
}

static uint64_t number(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static bool has_mark(const uint8_t *at, const char *mark)
{
    return memcmp(at, mark, 4) == 0;
}

// The place so many bytes before the end, NULL in a shorter file.
static const uint8_t *from_end(const struct archive *archive, size_t bytes)
{
    return bytes > archive->length ? NULL : archive->bytes + archive->length - bytes;
}

// Where a number of the end record does not fit it, ZIP64's end record in front of it has them all;
// *end: where the directory must have ended.
static enum status find_directory64(struct archive *archive, uint64_t *end)
{
    const size_t around = END64_BYTES + LOCATOR64_BYTES + END_BYTES;
    const uint8_t *latest = from_end(archive, around);
    if (!latest || !has_mark(latest + END64_BYTES, "PK\6\7"))
        return status_fail(STATUS_BAD_WEIGHTS, "%s: zip: expected a ZIP64 locator before the end",
                           archive->name);
    *end = number(latest + END64_BYTES + 8, 8);
    if (*end > archive->length - around || !has_mark(archive->bytes + *end, "PK\6\6"))
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: expected ZIP64's end record at byte %" PRIu64, archive->name,
                           *end);
    const uint8_t *record = archive->bytes + *end;
    archive->count = number(record + 32, 8);
    archive->directory_bytes = number(record + 40, 8);
    archive->directory = number(record + 48, 8);
    return STATUS_OK;
}

static enum status find_directory(struct archive *archive)
{
    const uint8_t *record = from_end(archive, END_BYTES);
    if (!record || !has_mark(record, "PK\5\6"))
        return status_fail(
            STATUS_BAD_WEIGHTS,
            "%s: zip: the last %d of %zu bytes are no end of an archive: is the file cut short?",
            archive->name, END_BYTES, archive->length);
    uint64_t end = archive->length - END_BYTES;
    archive->count = number(record + 10, 2);
    archive->directory_bytes = number(record + 12, 4);
    archive->directory = number(record + 16, 4);
    if (archive->count == UINT16_MAX || archive->directory_bytes == UINT32_MAX ||
        archive->directory == UINT32_MAX)
        TRY(find_directory64(archive, &end));
    if (archive->directory > end || archive->directory_bytes > end - archive->directory)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: a directory of %" PRIu64 " bytes at byte %" PRIu64
                           ", expected it before byte %" PRIu64,
                           archive->name, archive->directory_bytes, archive->directory, end);
    if (archive->count > archive->directory_bytes / ENTRY_BYTES)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: a directory of %" PRIu64 " entries in %" PRIu64 " bytes",
                           archive->name, archive->count, archive->directory_bytes);
    return STATUS_OK;
}

// Takes the numbers that do not fit the record from its ZIP64 field. false: they are not there.
static bool read_zip64(const uint8_t *extra, size_t extra_bytes, struct record *record)
{
    uint64_t *const wanted[] = {&record->bytes, &record->stored_bytes, &record->header};
    while (extra_bytes >= 4) {
        const size_t bytes = (size_t)number(extra + 2, 2);
        if (bytes > extra_bytes - 4)
            return false;
        if (number(extra, 2) == 1) {
            size_t used = 0;
            for (int i = 0; i < 3; i++) {
                if (*wanted[i] != UINT32_MAX)
                    continue;
                if (bytes - used < 8)
                    return false;
                *wanted[i] = number(extra + 4 + used, 8);
                used += 8;
            }
            return true;
        }
        extra += 4 + bytes;
        extra_bytes -= 4 + bytes;
    }
    return false;
}

// The record at *at of the directory, which moves on behind it.
static enum status read_record(const struct archive *archive, uint64_t *at, struct record *record)
{
    const uint64_t left = archive->directory + archive->directory_bytes - *at;
    const uint8_t *fixed = archive->bytes + *at;
    if (left < ENTRY_BYTES || !has_mark(fixed, "PK\1\2"))
        return status_fail(STATUS_BAD_WEIGHTS, "%s: zip: expected an entry at byte %" PRIu64,
                           archive->name, *at);
    *record = (struct record){
        .name = fixed + ENTRY_BYTES,
        .name_bytes = (size_t)number(fixed + 28, 2),
        .flags = number(fixed + 8, 2),
        .method = number(fixed + 10, 2),
        .stored_bytes = number(fixed + 20, 4),
        .bytes = number(fixed + 24, 4),
        .header = number(fixed + 42, 4),
    };
    const size_t extra_bytes = (size_t)number(fixed + 30, 2);
    const size_t bytes = ENTRY_BYTES + record->name_bytes + extra_bytes + number(fixed + 32, 2);
    if (bytes > left)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: the entry at byte %" PRIu64 " passes the directory's end",
                           archive->name, *at);
    if ((record->bytes == UINT32_MAX || record->stored_bytes == UINT32_MAX ||
         record->header == UINT32_MAX) &&
        !read_zip64(record->name + record->name_bytes, extra_bytes, record))
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: the entry at byte %" PRIu64 " lacks its ZIP64 sizes",
                           archive->name, *at);
    *at += bytes;
    return STATUS_OK;
}

// Checks the entry's header and that its data lies between that and the directory. The entry's name
// is the one in this header, LOCAL_BYTES behind its begin.
static enum status find_data(const struct archive *archive, const struct record *record,
                             struct zip_entry *entry)
{
    const struct shown name = show(record->name, record->name_bytes);
    if (record->flags & ENCRYPTED)
        return status_fail(STATUS_BAD_WEIGHTS, "%s: zip: entry \"%s\" is encrypted", archive->name,
                           name.text);
    if (record->method != 0 || record->stored_bytes != record->bytes)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: entry \"%s\" is compressed, expected it as torch.save "
                           "stores it",
                           archive->name, name.text);
    const uint64_t end = archive->directory;
    if (record->header > end || end - record->header < LOCAL_BYTES ||
        !has_mark(archive->bytes + record->header, "PK\3\4"))
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: entry \"%s\": expected its header at byte %" PRIu64,
                           archive->name, name.text, record->header);
    const uint8_t *header = archive->bytes + record->header;
    const uint64_t name_bytes = number(header + 26, 2);
    const uint64_t before_data = LOCAL_BYTES + name_bytes + number(header + 28, 2);
    const uint64_t left = end - record->header;
    if (before_data > left || record->bytes > left - before_data)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: entry \"%s\": %" PRIu64 " bytes at byte %" PRIu64
                           ", expected them before the directory at %" PRIu64,
                           archive->name, name.text, record->bytes, record->header, end);
    if (name_bytes != record->name_bytes ||
        memcmp(header + LOCAL_BYTES, record->name, record->name_bytes) != 0)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: entry \"%s\" has another name at byte %" PRIu64, archive->name,
                           name.text, record->header);
    *entry = (struct zip_entry){
        .name = (const char *)header + LOCAL_BYTES,
        .name_bytes = record->name_bytes,
        .data = header + before_data,
        .bytes = (size_t)record->bytes,
    };
    return STATUS_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct zip_entry *left = a, *right = b;
    return (left->name > right->name) - (left->name < right->name);
}

static int compare_names(const void *a, const void *b)
{
    const struct zip_entry *left = a, *right = b;
    const size_t least =
        left->name_bytes < right->name_bytes ? left->name_bytes : right->name_bytes;
    const int order = memcmp(left->name, right->name, least);
    return order ? order
                 : (left->name_bytes > right->name_bytes) - (left->name_bytes < right->name_bytes);
}

// Leaves the entries in the order of their names.
static enum status check_entries(const struct archive *archive, struct zip *zip)
{
    qsort(zip->entries, zip->count, sizeof *zip->entries, compare_places);
    for (size_t i = 1; i < zip->count; i++) {
        const struct zip_entry *entry = &zip->entries[i], *before = entry - 1;
        if ((const uint8_t *)entry->name - LOCAL_BYTES < before->data + before->bytes)
            return status_fail(STATUS_BAD_WEIGHTS, "%s: zip: entry \"%s\" overlaps \"%s\"",
                               archive->name, show(entry->name, entry->name_bytes).text,
                               show(before->name, before->name_bytes).text);
    }
    qsort(zip->entries, zip->count, sizeof *zip->entries, compare_names);
    for (size_t i = 1; i < zip->count; i++) {
        const struct zip_entry *entry = &zip->entries[i];
        if (compare_names(entry - 1, entry) == 0)
            return status_fail(STATUS_BAD_WEIGHTS, "%s: zip: two entries are named \"%s\"",
                               archive->name, show(entry->name, entry->name_bytes).text);
    }
    return STATUS_OK;
}

static enum status read_entries(const struct archive *archive, struct zip *zip)
{
    // One to spare, so that an empty archive needs no case of its own.
    zip->entries = calloc((size_t)archive->count + 1, sizeof *zip->entries);
    if (!zip->entries)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: zip: no memory for %" PRIu64 " entries",
                           archive->name, archive->count);
    uint64_t at = archive->directory;
    for (uint64_t i = 0; i < archive->count; i++) {
        struct record record;
        TRY(read_record(archive, &at, &record));
        TRY(find_data(archive, &record, &zip->entries[zip->count]));
        zip->count++;
    }
    if (at != archive->directory + archive->directory_bytes)
        return status_fail(STATUS_BAD_WEIGHTS,
                           "%s: zip: a directory of %" PRIu64 " entries in %" PRIu64 " bytes",
                           archive->name, archive->count, archive->directory_bytes);
    return check_entries(archive, zip);
}

enum status zip_init(const char *name, const uint8_t *bytes, size_t length, struct zip *zip)
{
    struct archive archive = {.name = name, .bytes = bytes, .length = length};
    *zip = (struct zip){0};
    enum status status = find_directory(&archive);
    if (status == STATUS_OK)
        status = read_entries(&archive, zip);
    if (status != STATUS_OK)
        zip_release(zip);
    return status;
}

const struct zip_entry *zip_find(const struct zip *zip, const char *name, size_t name_bytes)
{
    const struct zip_entry key = {.name = name, .name_bytes = name_bytes};
    return bsearch(&key, zip->entries, zip->count, sizeof key, compare_names);
}

void zip_release(struct zip *zip)
{
    free(zip->entries);
    *zip = (struct zip){0};
}
