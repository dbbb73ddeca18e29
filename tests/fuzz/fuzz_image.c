// libFuzzer entry for image_read(), built once for each FORMAT: any bytes give pixels or an error,
// and a window of them, which the input's hash chooses, has the pixels and the error of the whole.
// Corpus: tests/golden/images. The pictures are small, since it is the damage that counts.

#include "image.h"
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

enum { JPEG, PNG, WEBP };
enum { MAX_PIXELS = 1 << 13, MAX_LENGTH = 1 << 14 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

struct cutter {
    struct image_sink sink;
    const struct image *whole;
    const uint8_t *choice; // four bytes: where the window lies, in 256ths
    struct image_window window;
    int rows;
};

// `length` of `whole`, at least 1.
static void choose(int whole, uint8_t at, uint8_t size, int *begin, int *length)
{
    *length = 1 + (int)((int64_t)(whole - 1) * size / 255);
    *begin = (int)((int64_t)(whole - *length) * at / 255);
}

static enum status begin(struct image_sink *sink, const struct image_size *size,
                         struct image_window *window)
{
    struct cutter *cutter = (struct cutter *)sink;
    const uint8_t *choice = cutter->choice;
    int width = (size->width + size->reduction - 1) / size->reduction;
    int height = (size->height + size->reduction - 1) / size->reduction;
    choose(width, choice[0], choice[1], &window->left, &window->width);
    choose(height, choice[2], choice[3], &window->top, &window->height);
    cutter->window = *window;
    return STATUS_OK;
}

static void rows(struct image_sink *sink, const uint8_t *const *lines, int count)
{
    struct cutter *cutter = (struct cutter *)sink;
    const struct image *whole = cutter->whole;
    size_t bytes = (size_t)cutter->window.width * 3;
    static volatile uint8_t last;
    for (int i = 0; i < count; i++, cutter->rows++) {
        last = lines[i][bytes - 1];
        if (!whole)
            continue;
        size_t y = (size_t)(cutter->window.top + cutter->rows);
        size_t at = (y * (size_t)whole->width + (size_t)cutter->window.left) * 3;
        if (memcmp(lines[i], whole->rgb + at, bytes) != 0)
            abort();
    }
    (void)last;
}

static bool is_of_format(const uint8_t *bytes, size_t length)
{
    static const char *const marks[] = {[JPEG] = "\xff\xd8", [PNG] = "\x89PNG", [WEBP] = "RIFF"};
    size_t count = strlen(marks[FORMAT]);
    return length >= count && length <= MAX_LENGTH && memcmp(bytes, marks[FORMAT], count) == 0;
}

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

// Nearly every change to a PNG makes a CRC wrong, which hides all behind it.
static void mend_sums(uint8_t *bytes, size_t length)
{
    for (size_t at = 8; at + 12 <= length;) {
        size_t content = read_u32(bytes + at);
        if (content > length - at - 12)
            return;
        uint32_t sum = (uint32_t)crc32(0, bytes + at + 4, (uInt)content + 4);
        at += content + 12;
        for (int i = 1; i <= 4; i++, sum >>= 8)
            bytes[at - (size_t)i] = (uint8_t)sum;
    }
}

static void check(const uint8_t *bytes, size_t length, const uint8_t choice[4])
{
    struct image_limits limits = {.max_pixels = MAX_PIXELS, .apply_orientation = true};
    struct image image;
    enum status status = image_decode(bytes, length, &limits, &image);
    struct cutter cutter = {
        .sink = {.shortest = choice[0], .begin = begin, .rows = rows},
        .whole = status == STATUS_OK ? &image : NULL,
        .choice = choice,
    };
    if (image_read(bytes, length, &limits, &cutter.sink) != status)
        abort();
    if (status == STATUS_OK && cutter.rows != cutter.window.height)
        abort();
    image_release(&image);

    if (FORMAT != JPEG)
        return;          // fast decoding is a JPEG's
    cutter.whole = NULL; // other pixels, which must be there to be read
    limits.fast_decode = true;
    cutter.rows = 0;
    if (image_read(bytes, length, &limits, &cutter.sink) == STATUS_OK &&
        cutter.rows != cutter.window.height)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    if (!is_of_format(bytes, length))
        return -1; // not for the corpus
    uint32_t hash = 0x811c9dc5;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * 0x01000193;
    const uint8_t choice[4] = {(uint8_t)(hash >> 24), (uint8_t)(hash >> 16), (uint8_t)(hash >> 8),
                               (uint8_t)hash};
    uint8_t *mended = FORMAT == PNG && (hash & 0x10000) ? malloc(length) : NULL;
    if (mended) {
        memcpy(mended, bytes, length);
        mend_sums(mended, length);
    }
    check(mended ? mended : bytes, length, choice);
    free(mended);
    return 0;
}
