#include "png_notes.h"
#include "exif.h"
#include "inflate.h"
#include "memory.h"
#include "utf8.h"
#include <stdlib.h>
#include <string.h>

// Pillow's limits. It gives a picture up that has more, which is not for its metadata to decide:
// here the chunk is passed over. A chunk counts for MIN_WORK at least, so that neither long texts
// nor many short ones cost more than a fraction of a second.
enum { MAX_UNPACKED_BYTES = 1 << 20, MAX_WORK = 64 << 20, MIN_WORK = 1 << 16 };

static const char profile_name[] = "Raw profile type exif", xmp_name[] = "XML:com.adobe.xmp";

static void set(struct png_note *note, const uint8_t *bytes, size_t length, uint8_t *unpacked)
{
    free(note->unpacked);
    *note = (struct png_note){true, bytes, length, unpacked};
}

enum packed { SOUND, DAMAGED, PASSED_OVER };

static enum packed set_unpacked(struct png_notes *notes, struct png_note *note,
                                const uint8_t *bytes, size_t length)
{
    uint8_t *text = notes->work <= MAX_WORK ? memory_allocate(MAX_UNPACKED_BYTES) : NULL;
    if (!text)
        return PASSED_OVER;
    size_t count = 0;
    enum packed packed = DAMAGED;
    if (inflate_text(bytes, length, text, MAX_UNPACKED_BYTES, &count))
        packed = count > MAX_UNPACKED_BYTES ? PASSED_OVER : SOUND;
    notes->work += count > MIN_WORK ? count : MIN_WORK;
    uint8_t *fitting = packed == SOUND ? memory_resize(text, count) : NULL;
    if (!fitting) {
        free(text);
        return packed == SOUND ? PASSED_OVER : packed;
    }
    set(note, fitting, count, fitting);
    return SOUND;
}

// After the name, how it is packed: 0 is the only way. Damaged, it is an empty text.
static void add_packed(struct png_notes *notes, struct png_note *note, const uint8_t *bytes,
                       size_t length)
{
    bool known = length == 0 || bytes[0] == 0;
    if (known && (length == 0 || set_unpacked(notes, note, bytes + 1, length - 1) == DAMAGED))
        set(note, bytes, 0, NULL);
}

// A string that a NUL ends, and what follows it.
static bool take_string(const uint8_t **bytes, size_t *length, const char **text,
                        size_t *text_length)
{
    const uint8_t *end = *length ? memchr(*bytes, 0, *length) : NULL;
    if (!end)
        return false;
    *text = (const char *)*bytes;
    *text_length = (size_t)(end - *bytes);
    *length -= *text_length + 1;
    *bytes = end + 1;
    return true;
}

// After the name: whether it is packed, how, the language, the name in that language, the text.
static void add_international(struct png_notes *notes, struct png_note *note, const uint8_t *bytes,
                              size_t length)
{
    const char *language, *name;
    size_t language_length, name_length;
    if (length < 2 || (bytes[0] && bytes[1]))
        return;
    bool packed = bytes[0];
    bytes += 2;
    length -= 2;
    if (!take_string(&bytes, &length, &language, &language_length) ||
        !take_string(&bytes, &length, &name, &name_length) ||
        !utf8_valid(language, language_length) || !utf8_valid(name, name_length))
        return;
    struct png_note text = {0};
    if (!packed)
        set(&text, bytes, length, NULL);
    else if (set_unpacked(notes, &text, bytes, length) != SOUND)
        return;
    if (utf8_valid((const char *)text.bytes, text.length))
        set(note, text.bytes, text.length, text.unpacked);
    else
        free(text.unpacked);
}

// Whether the data begin with the name and the NUL that ends it. *whole: the NUL is missing, and
// the name is all there is.
static bool is_named(const uint8_t *data, size_t length, const char *name, bool *whole)
{
    size_t name_length = strlen(name);
    *whole = length == name_length;
    return length >= name_length && memcmp(data, name, name_length) == 0 &&
           (*whole || data[name_length] == 0);
}

static bool is(const uint8_t type[4], const char wanted[5])
{
    return memcmp(type, wanted, 4) == 0;
}

bool png_notes_want(const uint8_t type[4])
{
    return is(type, "eXIf") || is(type, "tEXt") || is(type, "zTXt") || is(type, "iTXt");
}

void png_notes_add(struct png_notes *notes, const uint8_t type[4], const uint8_t *data,
                   size_t length)
{
    bool plain = is(type, "tEXt"), packed = is(type, "zTXt"), whole;
    if (is(type, "eXIf"))
        set(&notes->exif, data, length, NULL);
    if (!plain && !packed && !is(type, "iTXt"))
        return;
    const struct {
        const char *name;
        struct png_note *note;
    } known[] = {{"exif", &notes->exif}, {profile_name, &notes->profile}, {xmp_name, &notes->xmp}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct png_note *note = known[i].note;
        if (!is_named(data, length, known[i].name, &whole) || (note == &notes->exif && !plain))
            continue;
        size_t skip = strlen(known[i].name) + !whole;
        if (plain)
            set(note, data + skip, length - skip, NULL);
        else if (packed)
            add_packed(notes, note, data + skip, length - skip);
        else if (!whole)
            add_international(notes, note, data + skip, length - skip);
    }
}

static int digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Two digits each, blanks between them, ends of lines anywhere. False: something else.
static bool read_hex(const uint8_t *text, size_t length, uint8_t *bytes, size_t *count)
{
    int high = -1;
    *count = 0;
    for (size_t i = 0; i < length; i++) {
        int value = digit(text[i]);
        if (text[i] == '\n' || (high < 0 && text[i] && strchr(" \t\r\v\f", text[i])))
            continue;
        if (value < 0)
            return false;
        if (high >= 0)
            bytes[(*count)++] = (uint8_t)(high << 4 | value);
        high = high < 0 ? value : -1;
    }
    return high < 0;
}

// The first three lines are an empty one, the name and the length.
static int profile_orientation(const struct png_note *profile)
{
    const uint8_t *at = profile->bytes, *end = at + profile->length;
    for (int line = 0; line < 3; line++) {
        const uint8_t *newline = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
        if (!newline)
            return 0;
        at = newline + 1;
    }
    size_t count, length = (size_t)(end - at);
    uint8_t *block = memory_allocate(length / 2);
    bool sound = block && read_hex(at, length, block, &count);
    int orientation = sound ? exif_block_orientation(block, count) : 0;
    free(block);
    return orientation;
}

// tiff:Orientation="6" or <tiff:Orientation>6: the first of them.
static int xmp_orientation(const struct png_note *xmp)
{
    static const char name[] = "tiff:Orientation";
    enum { NAME = sizeof name - 1 };
    const uint8_t *at = xmp->bytes, *end = at + xmp->length;
    while (at < end && (at = memmem(at, (size_t)(end - at), name, NAME))) {
        at += NAME;
        size_t left = (size_t)(end - at), mark = 0;
        if (left > 1 && at[0] == '>')
            mark = 1;
        else if (left > 2 && memcmp(at, "=\"", 2) == 0)
            mark = 2;
        if (mark && at[mark] >= '0' && at[mark] <= '9')
            return at[mark] >= '1' && at[mark] <= '8' ? at[mark] - '0' : 1;
    }
    return 0;
}

int png_notes_orientation(const struct png_notes *notes)
{
    int orientation = 0;
    if (notes->exif.there)
        orientation = exif_block_orientation(notes->exif.bytes, notes->exif.length);
    else if (notes->profile.there)
        orientation = profile_orientation(&notes->profile);
    if (orientation == 0 && notes->xmp.there)
        orientation = xmp_orientation(&notes->xmp);
    return orientation ? orientation : 1;
}

void png_notes_release(struct png_notes *notes)
{
    free(notes->profile.unpacked);
    free(notes->xmp.unpacked);
    *notes = (struct png_notes){0};
}
