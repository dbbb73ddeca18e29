// image_decode(): golden files against Pillow's pixels (golden/make_images.py), and hostile ones.

#include "image.h"
#include "inflate.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_GOLDEN = 400 };

struct golden {
    char name[64];
    int apply_orientation, width, height;
    uint64_t hash; // of the pixels
    uint8_t *bytes;
    size_t length;
};

static struct golden golden[MAX_GOLDEN];
static int golden_count;

static const struct image_limits plain = {.max_pixels = 1 << 20};
static const struct image_limits upright = {.max_pixels = 1 << 20, .apply_orientation = true};

static void read_file(struct golden *to)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/images/%s", GOLDEN_DIR, to->name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t buffer[1 << 16];
    to->length = fread(buffer, 1, sizeof buffer, file);
    assert_true(to->length > 0 && to->length < sizeof buffer);
    fclose(file);
    to->bytes = malloc(to->length);
    assert_non_null(to->bytes);
    memcpy(to->bytes, buffer, to->length);
}

static int read_golden_files(void **state)
{
    (void)state;
    FILE *list = fopen(GOLDEN_DIR "/images/list.txt", "r");
    assert_non_null(list);
    struct golden *to = golden;
    while (golden_count < MAX_GOLDEN &&
           fscanf(list, "%63s %d %d %d %" SCNx64, to->name, &to->apply_orientation, &to->width,
                  &to->height, &to->hash) == 5) {
        read_file(to++);
        golden_count++;
    }
    fclose(list);
    assert_in_range(golden_count, 200, MAX_GOLDEN - 1);
    return 0;
}

static int free_golden_files(void **state)
{
    (void)state;
    for (int i = 0; i < golden_count; i++)
        free(golden[i].bytes);
    return 0;
}

static const struct golden *find(const char *name)
{
    for (int i = 0; i < golden_count; i++)
        if (strcmp(golden[i].name, name) == 0)
            return &golden[i];
    fail_msg("no golden file %s", name);
    return NULL;
}

// Decodes a copy in a block of its own size, so that a sanitizer sees a byte read past it. Where it
// fails, the image must be empty.
static enum status decode(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                          struct image *image)
{
    uint8_t *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    if (length)
        memcpy(copy, bytes, length);
    memset(image, 0xa5, sizeof *image);
    enum status status = image_decode(copy, length, limits, image);
    free(copy);
    if (status != STATUS_OK)
        assert_true(!image->rgb && image->width == 0 && image->height == 0);
    return status;
}

static void refuses(const uint8_t *bytes, size_t length, enum status expected, const char *detail)
{
    struct image image;
    enum status status = decode(bytes, length, &upright, &image);
    assert_int_equal(status, expected);
    if (!strstr(status_detail(status), detail))
        fail_msg("\"%s\" does not say \"%s\"", status_detail(status), detail);
}

static uint64_t fnv1a64(const uint8_t *bytes, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static uint64_t hash_of(const struct image *image)
{
    return fnv1a64(image->rgb, (size_t)image->width * (size_t)image->height * 3);
}

static void equals_pillow(void **state)
{
    (void)state;
    int wrong = 0;
    for (int i = 0; i < golden_count; i++) {
        const struct golden *file = &golden[i];
        struct image image;
        enum status status =
            decode(file->bytes, file->length, file->apply_orientation ? &upright : &plain, &image);
        if (status != STATUS_OK) {
            print_error("%s: %s\n", file->name, status_detail(status));
            wrong++;
            continue;
        }
        if (image.width != file->width || image.height != file->height ||
            hash_of(&image) != file->hash) {
            print_error("%s (orientation %d): %d x %d, not Pillow's pixels\n", file->name,
                        file->apply_orientation, image.width, image.height);
            wrong++;
        }
        image_release(&image);
        assert_null(image.rgb);
    }
    assert_int_equal(wrong, 0);
}

// Bytes after the end of the picture (a second picture, a signature) are nobody's business.
static void ignores_what_follows(void **state)
{
    (void)state;
    const char *names[] = {"ycbcr-420-33x31.jpg", "cmyk-progressive-17x13.jpg", "rgb-8-text.png"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct golden *file = find(names[i]);
        uint8_t *longer = malloc(file->length * 2);
        assert_non_null(longer);
        memcpy(longer, file->bytes, file->length);
        memcpy(longer + file->length, file->bytes, file->length);
        struct image image;
        assert_int_equal(decode(longer, file->length * 2, &plain, &image), STATUS_OK);
        assert_int_equal(hash_of(&image), file->hash);
        image_release(&image);
        free(longer);
    }
}

static void refuses_what_is_no_picture(void **state)
{
    (void)state;
    static const uint8_t gif[] = "GIF89a\1\0\1\0\0\0\0;", text[] = "<html>";
    static const char formats[] = "JPEG, PNG and WebP";
    refuses(NULL, 0, STATUS_UNSUPPORTED_IMAGE, "empty");
    refuses(gif, sizeof gif, STATUS_UNSUPPORTED_IMAGE, formats);
    refuses(text, sizeof text, STATUS_UNSUPPORTED_IMAGE, formats);
    refuses((const uint8_t *)"\xff\xd8", 2, STATUS_UNSUPPORTED_IMAGE, formats);
    refuses((const uint8_t *)"\x89PNG\r\n\x1a", 7, STATUS_UNSUPPORTED_IMAGE, formats);
    refuses((const uint8_t *)"RIFF\4\0\0\0WEB", 11, STATUS_UNSUPPORTED_IMAGE, formats);
    refuses((const uint8_t *)"RIFF\4\0\0\0WAVE", 12, STATUS_UNSUPPORTED_IMAGE, formats);
    refuses((const uint8_t *)"\xff\xd8\xff", 3, STATUS_BAD_IMAGE, "jpeg: premature end of file");
    refuses((const uint8_t *)"\x89PNG\r\n\x1a\n", 8, STATUS_BAD_IMAGE,
            "png: premature end of file");
}

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

static uint8_t *find_bytes(uint8_t *bytes, size_t length, const char *what, size_t what_length)
{
    uint8_t *found = memmem(bytes, length, what, what_length);
    assert_non_null(found);
    return found;
}

static void store32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

// The golden JPEG (a baseline or progressive one) with another size in its header.
static void refuses_jpeg_size(const char *name, uint32_t width, uint32_t height,
                              enum status expected)
{
    const struct golden *file = find(name);
    uint8_t bytes[1 << 14];
    memcpy(bytes, file->bytes, file->length);
    bool progressive = memmem(bytes, file->length, "\xff\xc2", 2) != NULL;
    uint8_t *frame = find_bytes(bytes, file->length, progressive ? "\xff\xc2" : "\xff\xc0", 2);
    store32(frame + 5, height << 16 | width);
    refuses(bytes, file->length, expected, "jpeg: ");
}

static void refuses_png_size(uint32_t width, uint32_t height, enum status expected)
{
    const struct golden *file = find("rgb-alpha-16-interlaced.png");
    uint8_t bytes[1 << 14];
    memcpy(bytes, file->bytes, file->length);
    store32(bytes + 16, width);
    store32(bytes + 20, height);
    store32(bytes + 29, inflate_crc(0, bytes + 12, 17));
    refuses(bytes, file->length, expected, "png: ");
}

static void refuses_sizes_before_allocating(void **state)
{
    (void)state;
    long before = peak_address_space();
    const char *jpegs[] = {"gray-64x48.jpg", "ycbcr-progressive-40x24.jpg", "cmyk-40x24.jpg"};
    for (size_t i = 0; i < sizeof jpegs / sizeof *jpegs; i++) {
        refuses_jpeg_size(jpegs[i], 65535, 65535, STATUS_IMAGE_TOO_LARGE);
        refuses_jpeg_size(jpegs[i], 65500, 65500, STATUS_IMAGE_TOO_LARGE);
        refuses_jpeg_size(jpegs[i], 1025, 1024, STATUS_IMAGE_TOO_LARGE);
        refuses_jpeg_size(jpegs[i], 0, 16, STATUS_BAD_IMAGE);
        refuses_jpeg_size(jpegs[i], 16, 0, STATUS_BAD_IMAGE);
    }
    refuses_png_size(65535, 65535, STATUS_IMAGE_TOO_LARGE);
    refuses_png_size(0x7fffffff, 0x7fffffff, STATUS_IMAGE_TOO_LARGE);
    refuses_png_size(0x7fffffff, 1, STATUS_IMAGE_TOO_LARGE);
    refuses_png_size(1, 0x7fffffff, STATUS_IMAGE_TOO_LARGE);
    refuses_png_size(1024, 1025, STATUS_IMAGE_TOO_LARGE);
    refuses_png_size(0, 16, STATUS_BAD_IMAGE);
    refuses_png_size(16, 0, STATUS_BAD_IMAGE);
    refuses_png_size(0xffffffff, 16, STATUS_BAD_IMAGE);
    assert_true(peak_address_space() - before < 64 << 10);
}

static void counts_pixels_exactly(void **state)
{
    (void)state;
    for (int i = 0; i < golden_count; i++) {
        struct image_limits limits = {.max_pixels = golden[i].width * golden[i].height,
                                      .apply_orientation = true};
        struct image image;
        assert_int_equal(decode(golden[i].bytes, golden[i].length, &limits, &image), STATUS_OK);
        image_release(&image);
        limits.max_pixels--;
        assert_int_equal(decode(golden[i].bytes, golden[i].length, &limits, &image),
                         STATUS_IMAGE_TOO_LARGE);
    }
}

// A progressive JPEG with its last scan many times over: each copy costs a pass over the picture.
// side: if not 0, the header claims a square of this side.
static enum status decode_with_scans(int copies, uint32_t side)
{
    const struct golden *file = find("ycbcr-progressive-17x13.jpg");
    size_t scan = file->length - 2; // where the last scan starts
    while (scan > 0 && memcmp(file->bytes + scan, "\xff\xda", 2) != 0)
        scan--;
    assert_true(scan > 0);
    size_t scan_length = file->length - 2 - scan;
    size_t length = file->length + (size_t)copies * scan_length;
    uint8_t *bytes = malloc(length);
    assert_non_null(bytes);
    memcpy(bytes, file->bytes, file->length);
    uint8_t *end = bytes + file->length - 2;
    for (int i = 0; i < copies; i++, end += scan_length)
        memcpy(end, file->bytes + scan, scan_length);
    memcpy(end, "\xff\xd9", 2);
    if (side)
        store32(find_bytes(bytes, length, "\xff\xc2", 2) + 5, side << 16 | side);
    struct image_limits limits = {.max_pixels = 1 << 25};
    struct image image;
    enum status status = decode(bytes, length, &limits, &image);
    image_release(&image);
    free(bytes);
    return status;
}

static void limits_the_scans(void **state)
{
    (void)state;
    assert_int_equal(decode_with_scans(0, 0), STATUS_OK);
    assert_int_equal(decode_with_scans(200, 0), STATUS_OK);
    assert_int_equal(decode_with_scans(20000, 0), STATUS_BAD_IMAGE);
    assert_string_equal(status_detail(STATUS_BAD_IMAGE), "jpeg: more than 256 scans");
    assert_int_equal(decode_with_scans(200, 4096), STATUS_BAD_IMAGE);
    assert_string_equal(status_detail(STATUS_BAD_IMAGE),
                        "jpeg: 131 scans pass over more than 2147483648 samples");
}

// 16 MiB of text in a chunk of 16 KiB, before a good picture.
static void limits_what_png_unpacks(void **state)
{
    (void)state;
    struct golden bomb = {.name = "hostile-text-bomb.png"};
    read_file(&bomb);
    long before = peak_address_space();
    struct image image;
    assert_int_equal(decode(bomb.bytes, bomb.length, &upright, &image), STATUS_OK);
    assert_true(peak_address_space() - before < 8 << 10);
    image_release(&image);
    free(bomb.bytes);
}

static void survives_flipped_bits(void **state)
{
    (void)state;
    uint32_t random = 12345;
    for (int round = 0; round < 40; round++)
        for (int i = 0; i < golden_count; i++) {
            uint8_t bytes[1 << 16];
            memcpy(bytes, golden[i].bytes, golden[i].length);
            for (int flips = 0; flips <= round % 4; flips++) {
                random = random * 1664525 + 1013904223;
                size_t bit = (size_t)((uint64_t)random * golden[i].length * 8 >> 32);
                bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            }
            struct image image;
            enum status status = decode(bytes, golden[i].length, &upright, &image);
            if (status == STATUS_OK) {
                assert_true(image.width > 0 && image.height > 0);
                (void)hash_of(&image); // every pixel can be read
            }
            image_release(&image);
        }
}

// Malformed EXIF in a whole file: the picture is shown as it is stored.
static void ignores_malformed_exif(void **state)
{
    (void)state;
    const char *names[] = {"exif-6-le.jpg", "exif-6-be.jpg", "exif-8-le.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct golden *file = find(names[i]);
        uint8_t bytes[1 << 14];
        memcpy(bytes, file->bytes, file->length);
        uint8_t *exif = find_bytes(bytes, file->length, "Exif\0\0", 6);
        memset(exif + 10, 0xff, 4); // the offset of the directory
        struct image image;
        assert_int_equal(decode(bytes, file->length, &upright, &image), STATUS_OK);
        assert_int_equal(hash_of(&image), file->hash); // the first line of a file: not turned
        image_release(&image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pillow),
        cmocka_unit_test(ignores_what_follows),
        cmocka_unit_test(refuses_what_is_no_picture),
        cmocka_unit_test(refuses_sizes_before_allocating),
        cmocka_unit_test(counts_pixels_exactly),
        cmocka_unit_test(limits_the_scans),
        cmocka_unit_test(limits_what_png_unpacks),
        cmocka_unit_test(survives_flipped_bits),
        cmocka_unit_test(ignores_malformed_exif),
    };
    return cmocka_run_group_tests(tests, read_golden_files, free_golden_files);
}
