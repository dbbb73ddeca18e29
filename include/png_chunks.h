#pragma once
// The chunks of a PNG: which of them make the picture, as a file of its own for the decoder, and
// what the others say of its orientation. Nothing but the picture's own chunks decides whether it
// opens, by Pillow's rules: it takes unknown chunks and wrong CRCs of pixels, and once the rows are
// there it asks for no end. Reentrant.

#include "png_notes.h"
#include "status.h"

enum { PNG_HEADER_BYTES = 13, PNG_MAX_HEAD_BYTES = 8 + 12 + PNG_HEADER_BYTES + 12 + 768 + 8 };

struct png_chunks {
    // Private.
    const uint8_t *bytes; // the file
    size_t length;
    uint8_t header[PNG_HEADER_BYTES];
    uint8_t palette[768]; // a ramp of grays where the file says nothing
    bool has_header;
    uint32_t frames;   // of an animation, that the file says it has
    bool hidden_first; // the picture is none of them
    bool notes_closed; // what follows the pixels does not count
    struct png_notes notes;
    size_t pixels;                    // where the chunk of pixels begins that is read
    uint8_t head[PNG_MAX_HEAD_BYTES]; // up to its data, or between two of them
    const uint8_t *piece;             // what is served next
    size_t piece_length;
    bool piece_is_pixels;
};

// Reads up to the pixels. The file must outlive it; png_chunks_release() is due in any case.
// STATUS_BAD_IMAGE
enum status png_chunks_open(struct png_chunks *chunks, const uint8_t *bytes, size_t length) CHECKED;

// The next `count` bytes of the picture: the signature, IHDR, PLTE if the colours are indexed, and
// the chunks of pixels with right CRCs; no end. False: there are not so many.
bool png_chunks_serve(struct png_chunks *chunks, void *to, size_t count);

// Reads what follows the pixels, once enough of them has been served. STATUS_BAD_IMAGE
enum status png_chunks_finish(struct png_chunks *chunks) CHECKED;

void png_chunks_release(struct png_chunks *chunks);
