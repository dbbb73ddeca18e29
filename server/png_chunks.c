// A chunk is a length (32 bits, big-endian), a type of four characters, so many bytes of data, and
// the CRC of type and data.

#include "png_chunks.h"
#include "inflate.h"
#include <string.h>

enum { SIGNATURE_BYTES = 8, COLOUR_TYPE = 9, INDEXED = 3, MAX_COLOURS = 256, CRC_BYTES = 4 };

struct chunk {
    const uint8_t *type, *data;
    size_t length;
    bool whole; // else the file ends within it, and these are the data there are
};

static uint32_t read32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint8_t *store32(uint8_t *at, size_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    return at + 4;
}

static bool is_word(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

static bool is(const struct chunk *chunk, const char type[5])
{
    return memcmp(chunk->type, type, 4) == 0;
}

// Moves *at past the chunk. False: there is none.
static bool take(const struct png_chunks *chunks, size_t *at, struct chunk *chunk)
{
    if (*at > chunks->length || chunks->length - *at < 8)
        return false;
    chunk->type = chunks->bytes + *at + 4;
    chunk->data = chunks->bytes + *at + 8;
    for (int i = 0; i < 4; i++)
        if (!is_word(chunk->type[i]))
            return false;
    size_t room = chunks->length - *at - 8;
    chunk->length = read32(chunks->bytes + *at);
    chunk->whole = chunk->length <= room;
    if (!chunk->whole)
        chunk->length = room;
    *at += 8 + chunk->length + CRC_BYTES;
    return true;
}

static uint32_t crc_of(const struct chunk *chunk)
{
    return inflate_crc(inflate_crc(0, chunk->type, 4), chunk->data, chunk->length);
}

static bool is_sound(const struct chunk *chunk) // the CRC must be there
{
    return read32(chunk->data + chunk->length) == crc_of(chunk);
}

static enum status premature_end(void)
{
    return status_fail(STATUS_BAD_IMAGE, "png: premature end of file");
}

static enum status read_header(struct png_chunks *chunks, const struct chunk *chunk)
{
    if (!is_sound(chunk) || chunk->length < PNG_HEADER_BYTES)
        return status_fail(STATUS_BAD_IMAGE, "png: the header is damaged");
    memcpy(chunks->header, chunk->data, PNG_HEADER_BYTES);
    chunks->header[10] = 0; // the only kind of compression there is
    chunks->header[12] = chunks->header[12] != 0;
    chunks->has_header = true;
    return STATUS_OK;
}

// A pixel may name an entry that the palette lacks: it is the gray of its number, since Pillow's
// palettes start as a ramp of grays.
static enum status read_palette(struct png_chunks *chunks, const struct chunk *chunk)
{
    size_t colours = chunk->length / 3;
    if (!is_sound(chunk))
        return status_fail(STATUS_BAD_IMAGE, "png: the palette is damaged");
    if (!chunks->has_header || chunks->header[COLOUR_TYPE] != INDEXED)
        return STATUS_OK;
    if (colours > MAX_COLOURS)
        return status_fail(STATUS_BAD_IMAGE, "png: a palette of %zu colours", colours);
    for (size_t i = 0; i < sizeof chunks->palette; i++)
        chunks->palette[i] = i < 3 * colours ? chunk->data[i] : (uint8_t)(i / 3);
    return STATUS_OK;
}

static void read_frames(struct png_chunks *chunks, const struct chunk *chunk)
{
    uint32_t frames = chunk->length >= 8 ? read32(chunk->data) : 0;
    chunks->frames = chunks->frames || frames > 0x80000000 ? 0 : frames;
}

// What Pillow takes for an animation: it does not look further than its first frame.
static bool is_animated(const struct png_chunks *chunks)
{
    return chunks->frames > 1 || (chunks->frames == 1 && chunks->hidden_first);
}

static enum status read_chunk(struct png_chunks *chunks, const struct chunk *chunk)
{
    if (is(chunk, "IHDR"))
        return read_header(chunks, chunk);
    if (is(chunk, "PLTE"))
        return read_palette(chunks, chunk);
    if (is(chunk, "IEND"))
        return status_fail(STATUS_BAD_IMAGE, "png: no pixels in the file");
    if (is(chunk, "acTL"))
        read_frames(chunks, chunk);
    else if (is(chunk, "fcTL"))
        chunks->hidden_first = false;
    else if (png_notes_want(chunk->type) && is_sound(chunk))
        png_notes_add(&chunks->notes, chunk->type, chunk->data, chunk->length);
    return STATUS_OK;
}

// The head of a chunk of pixels, by the data that are there of it.
static uint8_t *store_pixels_head(const struct chunk *chunk, uint8_t *to)
{
    to = store32(to, chunk->length);
    memcpy(to, "IDAT", 4);
    return to + 4;
}

static uint8_t *store_chunk(uint8_t *to, const char type[5], const uint8_t *data, size_t length)
{
    struct chunk chunk = {.type = (const uint8_t *)type, .data = data, .length = length};
    to = store32(to, length);
    memcpy(to, type, 4);
    memcpy(to + 4, data, length);
    return store32(to + 4 + length, crc_of(&chunk));
}

static void store_head(struct png_chunks *chunks, const struct chunk *pixels)
{
    int depth = chunks->header[COLOUR_TYPE - 1];
    uint8_t *to = chunks->head;
    memcpy(to, chunks->bytes, SIGNATURE_BYTES);
    to = store_chunk(to + SIGNATURE_BYTES, "IHDR", chunks->header, PNG_HEADER_BYTES);
    if (chunks->header[COLOUR_TYPE] == INDEXED)
        to = store_chunk(to, "PLTE", chunks->palette, depth <= 8 ? (size_t)3 << depth : 3);
    to = store_pixels_head(pixels, to);
    chunks->piece = chunks->head;
    chunks->piece_length = (size_t)(to - chunks->head);
}

enum status png_chunks_open(struct png_chunks *chunks, const uint8_t *bytes, size_t length)
{
    *chunks = (struct png_chunks){.bytes = bytes, .length = length, .hidden_first = true};
    for (size_t i = 0; i < sizeof chunks->palette; i++)
        chunks->palette[i] = (uint8_t)(i / 3);
    for (size_t at = SIGNATURE_BYTES;;) {
        struct chunk chunk;
        size_t begin = at;
        if (!take(chunks, &at, &chunk))
            return length - begin < 8
                       ? premature_end()
                       : status_fail(STATUS_BAD_IMAGE, "png: byte %zu: no chunk", begin);
        if (is(&chunk, "IDAT")) {
            if (!chunks->has_header)
                return status_fail(STATUS_BAD_IMAGE, "png: no header");
            chunks->pixels = begin;
            chunks->notes_closed = chunks->notes.exif.there;
            store_head(chunks, &chunk);
            return STATUS_OK;
        }
        if (!chunk.whole || at > length)
            return premature_end();
        TRY(read_chunk(chunks, &chunk));
    }
}

// By turns the data of a chunk of pixels and what lies between them and those of the next.
static bool next_piece(struct png_chunks *chunks)
{
    struct chunk chunk, next;
    size_t at = chunks->pixels, begin;
    if (!take(chunks, &at, &chunk))
        return false;
    if (!chunks->piece_is_pixels) {
        chunks->piece = chunk.data;
        chunks->piece_length = chunk.length;
        chunks->piece_is_pixels = true;
        return true;
    }
    begin = at;
    if (!take(chunks, &at, &next) || !is(&next, "IDAT"))
        return false;
    chunks->pixels = begin;
    chunks->piece = chunks->head;
    chunks->piece_length =
        (size_t)(store_pixels_head(&next, store32(chunks->head, crc_of(&chunk))) - chunks->head);
    chunks->piece_is_pixels = false;
    return true;
}

bool png_chunks_serve(struct png_chunks *chunks, void *to, size_t count)
{
    for (uint8_t *at = to; count > 0;) {
        if (chunks->piece_length == 0 && !next_piece(chunks))
            return false;
        size_t part = count < chunks->piece_length ? count : chunks->piece_length;
        memcpy(at, chunks->piece, part);
        at += part;
        count -= part;
        chunks->piece += part;
        chunks->piece_length -= part;
    }
    return true;
}

// A chunk that the file ends in is damage even here: no metadata are to blame for that.
enum status png_chunks_finish(struct png_chunks *chunks)
{
    struct chunk chunk;
    size_t at = chunks->pixels;
    (void)take(chunks, &at, &chunk);
    while (take(chunks, &at, &chunk)) {
        if (is(&chunk, "IEND") || (is(&chunk, "fcTL") && is_animated(chunks)))
            break;
        if (!chunk.whole)
            return premature_end();
        if (!chunks->notes_closed)
            png_notes_add(&chunks->notes, chunk.type, chunk.data, chunk.length);
    }
    return STATUS_OK;
}

void png_chunks_release(struct png_chunks *chunks)
{
    png_notes_release(&chunks->notes);
}
