#include "zip_files.h"
#include <stdlib.h>
#include <string.h>

static void put(struct zip_file *file, const void *data, size_t bytes)
{
    if (bytes)
        memcpy(file->bytes + file->length, data, bytes);
    file->length += bytes;
}

static void put_number(struct zip_file *file, uint64_t number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        file->bytes[file->length++] = (uint8_t)(number >> (8 * i));
}

// As torch.save does, the sizes are not in the header before the data.
static void put_part(struct zip_file *file, const struct zip_part *part)
{
    put(file, "PK\3\4", 4);
    put(file, "\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22);
    put_number(file, strlen(part->name), 2);
    put_number(file, 5, 2); // of padding
    put(file, part->name, strlen(part->name));
    put(file, "FB\1\0Z", 5);
    put(file, part->data, part->bytes);
}

static void put_entry(struct zip_file *file, const struct zip_part *part, size_t header, int zip64)
{
    put(file, "PK\1\2", 4);
    put(file, "\0\0\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0", 16);
    put_number(file, zip64 ? UINT32_MAX : part->bytes, 4);
    put_number(file, zip64 ? UINT32_MAX : part->bytes, 4);
    put_number(file, strlen(part->name), 2);
    put_number(file, zip64 ? 5 + 28 : 0, 2);
    put(file, "\0\0\0\0\0\0\0\0\0\0", 10);
    put_number(file, zip64 ? UINT32_MAX : header, 4);
    put(file, part->name, strlen(part->name));
    if (zip64) {
        put(file, "XX\1\0Z", 5); // some other field
        put(file, "\1\0\x18\0", 4);
        put_number(file, part->bytes, 8);
        put_number(file, part->bytes, 8);
        put_number(file, header, 8);
    }
}

static void put_end(struct zip_file *file, size_t count, int zip64)
{
    const size_t bytes = file->length - file->directory;
    if (zip64) {
        file->end64 = file->length;
        put(file, "PK\6\6", 4);
        put_number(file, 44, 8);
        put(file, "\0\0\0\0\0\0\0\0\0\0\0\0", 12);
        put_number(file, count, 8);
        put_number(file, count, 8);
        put_number(file, bytes, 8);
        put_number(file, file->directory, 8);
        put(file, "PK\6\7\0\0\0\0", 8);
        put_number(file, file->end64, 8);
        put_number(file, 1, 4);
    }
    put(file, "PK\5\6\0\0\0\0", 8);
    put_number(file, zip64 ? UINT16_MAX : count, 2);
    put_number(file, zip64 ? UINT16_MAX : count, 2);
    put_number(file, zip64 ? UINT32_MAX : bytes, 4);
    put_number(file, zip64 ? UINT32_MAX : file->directory, 4);
    put_number(file, 0, 2);
}

struct zip_file zip_make(const struct zip_part *parts, size_t count, int zip64)
{
    struct zip_file file = {0};
    size_t room = 200;
    for (size_t i = 0; i < count; i++)
        room += 200 + 2 * strlen(parts[i].name) + parts[i].bytes;
    size_t *headers = calloc(count + 1, sizeof *headers);
    file.bytes = malloc(room);
    if (!headers || !file.bytes)
        abort();
    for (size_t i = 0; i < count; i++) {
        headers[i] = file.length;
        put_part(&file, &parts[i]);
    }
    file.directory = file.length;
    for (size_t i = 0; i < count; i++)
        put_entry(&file, &parts[i], headers[i], zip64);
    put_end(&file, count, zip64);
    free(headers);
    uint8_t *exact = realloc(file.bytes, file.length);
    if (!exact)
        abort();
    file.bytes = exact;
    return file;
}
