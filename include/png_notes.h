#pragma once
// What the metadata of a PNG says of its orientation, by Pillow's rules: EXIF, of an eXIf chunk or
// a text named "exif"; where the file has none, the text "Raw profile type exif", EXIF in hex that
// ImageMagick writes; and where neither has an orientation, XMP's in "XML:com.adobe.xmp". Of
// several the last one counts. A chunk that is damaged or too long is passed over. Reentrant.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct png_note {
    bool there;
    const uint8_t *bytes; // of the file, or of `unpacked`
    size_t length;
    uint8_t *unpacked; // owned
};

struct png_notes {
    struct png_note exif, profile, xmp;
    size_t work; // bytes unpacked so far
};

// Whether chunks of this type may say something.
bool png_notes_want(const uint8_t type[4]);

// The next chunk of the file, of whatever type. The file must outlive the notes.
void png_notes_add(struct png_notes *notes, const uint8_t type[4], const uint8_t *data,
                   size_t length);

// 1 to 8; 1, which is upright, if nobody says anything.
int png_notes_orientation(const struct png_notes *notes);

void png_notes_release(struct png_notes *notes);
