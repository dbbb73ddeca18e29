// What is WebP's own: windows of every kind of picture that libwebp can write, hostile containers.
// Beside test_image.c, which holds the golden files.

#include "jpeg_files.h"
#include "windows.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <webp/encode.h>

struct webp_kind {
    const char *name;
    bool lossless, alpha;
    int quality, filter; // filter: 0 simple, 1 strong
    int filter_strength, partitions, alpha_compression;
};

static const struct webp_kind kinds[] = {
    {.name = "lossy", .quality = 80, .filter = 1, .filter_strength = 60},
    {.name = "coarse", .quality = 2, .filter = 1, .filter_strength = 100},
    {.name = "simple filter", .quality = 30, .filter = 0, .filter_strength = 100},
    {.name = "no filter", .quality = 90, .filter = 1, .filter_strength = 0},
    {.name = "eight partitions", .quality = 70, .filter = 1, .partitions = 3},
    {.name = "alpha", .alpha = true, .quality = 70, .filter = 1, .alpha_compression = 1},
    {.name = "alpha as it is", .alpha = true, .quality = 70, .alpha_compression = 0},
    {.name = "lossless", .lossless = true, .quality = 50},
    {.name = "lossless alpha", .lossless = true, .alpha = true, .quality = 50},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct webp_file {
    uint8_t *bytes; // free()
    size_t length;
};

// Blocks of colour and noise, all frequencies.
static void fill(const WebPPicture *picture, bool alpha)
{
    for (int y = 0; y < picture->height; y++)
        for (int x = 0; x < picture->width; x++) {
            uint32_t argb = alpha ? jpeg_random(256) : 255;
            for (int c = 0; c < 3; c++)
                argb = argb << 8 | (uint8_t)(x * (c + 1) + y * (3 - c) +
                                             ((x / 7 + y / 5 + c) % 3) * 60 + (int)jpeg_random(25));
            picture->argb[y * picture->argb_stride + x] = argb;
        }
}

static struct webp_file make(const struct webp_kind *kind, int width, int height)
{
    WebPConfig config;
    WebPPicture picture;
    WebPMemoryWriter writer;
    assert_true(WebPConfigInit(&config) && WebPPictureInit(&picture));
    config.lossless = kind->lossless;
    config.exact = 1;
    config.quality = (float)kind->quality;
    config.filter_type = kind->filter;
    config.filter_strength = kind->filter_strength;
    config.partitions = kind->partitions;
    config.alpha_compression = kind->alpha_compression;
    config.method = 3;
    WebPMemoryWriterInit(&writer);
    picture.use_argb = 1;
    picture.width = width;
    picture.height = height;
    picture.writer = WebPMemoryWrite;
    picture.custom_ptr = &writer;
    assert_true(WebPPictureAlloc(&picture));
    fill(&picture, kind->alpha);
    assert_true(WebPEncode(&config, &picture));
    WebPPictureFree(&picture);
    struct webp_file file = {malloc(writer.size), writer.size};
    assert_non_null(file.bytes);
    memcpy(file.bytes, writer.mem, writer.size);
    WebPMemoryWriterClear(&writer);
    return file;
}

static struct webp_file read_golden(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/images/%s", GOLDEN_DIR, name);
    struct webp_file file = {.bytes = malloc(1 << 16)};
    FILE *stream = fopen(path, "rb");
    assert_true(stream && file.bytes);
    file.length = fread(file.bytes, 1, 1 << 16, stream);
    fclose(stream);
    return file;
}

// Decodes a copy in a block of its own size, so that a sanitizer sees a byte read past it.
static enum status decode(const uint8_t *bytes, size_t length, int64_t max_pixels)
{
    struct image_limits limits = {.max_pixels = max_pixels};
    struct image image;
    uint8_t *copy = malloc(length);
    assert_non_null(copy);
    memcpy(copy, bytes, length);
    enum status status = image_decode(copy, length, &limits, &image);
    free(copy);
    image_release(&image);
    return status;
}

static void refuses(const struct webp_file *file, int64_t max_pixels, enum status expected,
                    const char *detail)
{
    enum status status = decode(file->bytes, file->length, max_pixels);
    assert_int_equal(status, expected);
    if (!strstr(status_detail(status), detail))
        fail_msg("\"%s\" does not say \"%s\"", status_detail(status), detail);
}

static uint8_t *find(const struct webp_file *file, const char *kind)
{
    uint8_t *found = memmem(file->bytes, file->length, kind, 4);
    assert_non_null(found);
    return found;
}

static void store24(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 3; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

// ---- windows

static void windows_equal_the_whole(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1},   {2, 3},    {1, 70},   {70, 1},   {15, 17},
                                   {16, 16}, {33, 100}, {100, 33}, {129, 97}, {257, 190}};
    int bad = 0;
    for (int k = 0; k < KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct webp_file file = make(&kinds[k], sizes[i][0], sizes[i][1]);
            bad += wrong_windows(kinds[k].name, file.bytes, file.length, 0, 100);
            free(file.bytes);
        }
    assert_int_equal(bad, 0);
}

static void windows_of_animations(void **state)
{
    (void)state;
    static const char *const names[] = {
        "animation-lossy.webp",        "animation-lossless.webp",        "animation-turned.webp",
        "animation-lossy-small.webp",  "animation-lossless-small.webp",  "animation-one-frame.webp",
        "animation-lossy-corner.webp", "animation-lossless-corner.webp",
    };
    int bad = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct webp_file file = read_golden(names[i]);
        bad += wrong_windows(names[i], file.bytes, file.length, 0, 200);
        free(file.bytes);
    }
    assert_int_equal(bad, 0);
}

static void windows_share_the_damage(void **state)
{
    (void)state;
    enum { ROUNDS = 400 };
    int bad = 0, decoded = 0;
    for (int k = 0; k < KINDS; k++) {
        struct webp_file file = make(&kinds[k], 65, 90);
        bad += wrong_damaged_windows(kinds[k].name, file.bytes, file.length, ROUNDS, &decoded);
        free(file.bytes);
    }
    assert_in_range(decoded, KINDS * ROUNDS / 2, KINDS * ROUNDS - 1);
    assert_int_equal(bad, 0);
}

// ---- damage

static void refuses_every_truncation(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct webp_file file = make(&kinds[k], 37, 23), cut = file;
        for (cut.length = 12; cut.length < file.length; cut.length++)
            refuses(&cut, 1 << 20, STATUS_BAD_IMAGE, "webp: premature end of file");
        free(file.bytes);
    }
}

// The file's length and the last chunk's agree with what is there: only the decoder can tell. The
// entropy coders' last bytes may matter to no pixel.
static void refuses_truncated_pixels(void **state)
{
    (void)state;
    enum { MAY_NOT_MATTER = 3 };
    for (int k = 0; k < KINDS; k++) {
        struct webp_file file = make(&kinds[k], 37, 23);
        uint8_t *chunk = find(&file, kinds[k].lossless ? "VP8L" : "VP8 ");
        size_t start = (size_t)(chunk - file.bytes) + 8;
        for (size_t length = (file.length - MAY_NOT_MATTER) & ~(size_t)1; length >= start;
             length -= 2) {
            store24(file.bytes + 4, (uint32_t)(length - 8));
            store24(chunk + 4, (uint32_t)(length - start));
            enum status status = decode(file.bytes, length, 1 << 20);
            if (status != STATUS_BAD_IMAGE ||
                strncmp(status_detail(status), "webp: ", strlen("webp: ")) != 0)
                fail_msg("%s cut to %zu of %zu bytes: %s", kinds[k].name, length, file.length,
                         status_code(status));
        }
        free(file.bytes);
    }
}

static void refuses_containers_that_lie(void **state)
{
    (void)state;
    static const struct {
        const char *name, *chunk;
        size_t at; // in the chunk's payload
        uint32_t value;
    } cases[] = {
        {"animation-lossy-small.webp", "ANMF", 0, 6},       // left, in pairs: over the edge
        {"animation-lossy-small.webp", "ANMF", 3, 5},       // top
        {"animation-lossy-small.webp", "VP8 ", 6, 0x90013}, // the frame is 19 x 9, over the edge
        {"animation-lossy-corner.webp", "VP8X", 4, 22},     // the canvas is too small
        {"notes.webp", "VP8X", 4, 21},                      // it is not the picture's
        {"lossy-alpha-33x31.webp", "VP8X", 7, 31},
        {"animation-lossy.webp", "VP8X", 4, 0xfffffe}, // 2^24 - 1 columns, 18 rows
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct webp_file file = read_golden(cases[i].name);
        assert_int_equal(decode(file.bytes, file.length, 1 << 20), STATUS_OK);
        store24(find(&file, cases[i].chunk) + 8 + cases[i].at, cases[i].value);
        bool large = cases[i].value == 0xfffffe;
        refuses(&file, 1 << 20, large ? STATUS_IMAGE_TOO_LARGE : STATUS_BAD_IMAGE, "webp: ");
        free(file.bytes);
    }
}

static void refuses_files_without_a_picture(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {
        {"RIFF\4\0\0\0WEBP", 12},
        {"RIFF\0\0\0\0WEBPVP8 ", 16},
        {"RIFF\xff\xff\xff\xffWEBPVP8 \0\0\0\0", 20},
        {"RIFF\xc\0\0\0WEBPVP8 \0\0\0\0", 20},
        {"RIFF\xc\0\0\0WEBPEXIF\0\0\0\0", 20},
        {"RIFF\x16\0\0\0WEBPVP8X\xa\0\0\0\0\0\0\0\x9\0\0\x9\0\0", 30},
        {"RIFF\x24\0\0\0WEBPVP8X\xa\0\0\0\2\0\0\0\x9\0\0\x9\0\0ANIM\6\0\0\0\0\0\0\0\0\0", 44},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct webp_file file = {malloc(cases[i].length), cases[i].length};
        assert_non_null(file.bytes);
        memcpy(file.bytes, cases[i].bytes, file.length);
        refuses(&file, 1 << 20, STATUS_BAD_IMAGE, "webp: ");
        free(file.bytes);
    }
}

// ---- sizes

// Highest address space this process ever had, in KiB.
static long peak_address_space(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    char line[256];
    long peak = -1;
    while (peak < 0 && fgets(line, sizeof line, file))
        if (sscanf(line, "VmPeak: %ld", &peak) != 1)
            peak = -1;
    fclose(file);
    assert_true(peak >= 0);
    return peak;
}

// An animation's small frame on a canvas of 16384 x 16384, and pictures that claim a size.
static void refuses_sizes_before_allocating(void **state)
{
    (void)state;
    long before = peak_address_space();
    struct webp_file file = read_golden("animation-lossy-small.webp");
    uint8_t *canvas = find(&file, "VP8X") + 12;
    store24(canvas, 16383);
    store24(canvas + 3, 16383);
    refuses(&file, 1 << 26, STATUS_IMAGE_TOO_LARGE, "webp: 16384 x 16384 pixels, the limit is");
    free(file.bytes);

    file = read_golden("lossy-17x13.webp");
    memcpy(find(&file, "VP8 ") + 14, "\xff\x3f\xff\x3f", 4);
    refuses(&file, 1 << 26, STATUS_IMAGE_TOO_LARGE, "webp: 16383 x 16383 pixels, the limit is");
    free(file.bytes);

    file = read_golden("lossless-17x13.webp");
    memcpy(find(&file, "VP8L") + 9, "\xff\xff\xff\x0f", 4);
    refuses(&file, 1 << 26, STATUS_IMAGE_TOO_LARGE, "webp: 16384 x 16384 pixels, the limit is");
    free(file.bytes);
    assert_true(peak_address_space() - before < 16 << 10);
}

// ---- a hostile lossless picture -----------------------------------------------------------------

struct bits {
    uint8_t bytes[1 << 18];
    size_t count;
};

// The lowest first, as VP8L has them.
static void put(struct bits *bits, unsigned value, int count)
{
    for (int i = 0; i < count; i++, bits->count++)
        if (value >> i & 1)
            bits->bytes[bits->count / 8] |= (uint8_t)(1 << bits->count % 8);
}

// A code whose first 256 symbols have 8 bits each, in order, and whose others have none.
static void put_full_code(struct bits *bits, int symbols)
{
    static const int order[] = {17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8};
    put(bits, 0, 1);      // a normal code
    put(bits, 12 - 4, 4); // lengths of the code for the lengths:
    for (int i = 0; i < 12; i++)
        put(bits, order[i] == 0 || order[i] == 8, 3);
    put(bits, 0, 1); // of all symbols
    for (int i = 0; i < symbols; i++)
        put(bits, i < 256, 1);
}

// 1024 x 1024 pixels in 256 x 256 tiles, each with a group of codes of its own; it ends there.
static void refuses_many_groups_of_codes(void **state)
{
    (void)state;
    static struct bits bits;
    put(&bits, 0x2f, 8);
    put(&bits, 1023, 14);
    put(&bits, 1023, 14);
    put(&bits, 0, 1 + 3 + 1 + 1); // no alpha, version, no transform, no colour cache
    put(&bits, 1, 1);             // many groups:
    put(&bits, 0, 3);             // of 4 x 4 pixels
    put(&bits, 0, 1);             // the image of their numbers has no colour cache
    put_full_code(&bits, 256 + 24);
    put_full_code(&bits, 256);
    for (int i = 0; i < 3; i++)
        put(&bits, 1, 4); // blue, alpha and distance: one symbol, 0
    for (unsigned i = 0; i < 65536; i++) {
        unsigned reversed = 0;
        for (int bit = 0; bit < 16; bit++)
            reversed |= (i >> bit & 1) << (bit < 8 ? 7 - bit : 23 - bit);
        put(&bits, reversed, 16);
    }
    size_t length = (bits.count + 7) / 8;
    uint8_t *file = calloc(1, 20 + length + length % 2);
    assert_non_null(file);
    memcpy(file, "RIFF....WEBPVP8L....", 20);
    for (int i = 0; i < 4; i++) {
        file[4 + i] = (uint8_t)((12 + length + length % 2) >> 8 * i);
        file[16 + i] = (uint8_t)(length >> 8 * i);
    }
    memcpy(file + 20, bits.bytes, length);
    struct image image;
    const struct image_limits limits = {.max_pixels = 1 << 20};
    assert_int_equal(image_decode(file, 20 + length + length % 2, &limits, &image),
                     STATUS_BAD_IMAGE);
    assert_non_null(strstr(status_detail(STATUS_BAD_IMAGE), "far more memory"));
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_equal_the_whole),
        cmocka_unit_test(windows_of_animations),
        cmocka_unit_test(windows_share_the_damage),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(refuses_truncated_pixels),
        cmocka_unit_test(refuses_containers_that_lie),
        cmocka_unit_test(refuses_files_without_a_picture),
        cmocka_unit_test(refuses_sizes_before_allocating),
        cmocka_unit_test(refuses_many_groups_of_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
