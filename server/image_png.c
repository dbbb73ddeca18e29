// PNG, by libspng, always whole: the orientation may come after the pixels. libspng scales 1, 2 and
// 4-bit gray to 8 bits and keeps the high byte of 16; asked for RGB8 it ignores tRNS, gAMA and
// sBIT, as we want.

#include "exif.h"
#include "image_format.h"
#include "memory.h"
#include <stdlib.h>

#include <spng.h>

// libspng's own codes for it come from some of its places only.
static struct spng_alloc memory = {memory_allocate, memory_resize, memory_clear, free};

// Compressed text and colour profiles, which libspng unpacks although nobody asks: one, and all.
enum { PNG_MAX_UNPACKED_BYTES = 1 << 20, PNG_MAX_ALL_UNPACKED_BYTES = 8 << 20 };

static enum status png_status(int code)
{
    switch (code) {
    case SPNG_OK:
        return STATUS_OK;
    case SPNG_EUSER_WIDTH:
    case SPNG_EUSER_HEIGHT:
    case SPNG_EOVERFLOW:
        return status_fail(STATUS_IMAGE_TOO_LARGE, "png: the picture is over the limit of pixels");
    case SPNG_IO_EOF:
        return status_fail(STATUS_BAD_IMAGE, "png: premature end of file");
    default:
        return status_fail(STATUS_BAD_IMAGE, "png: %s", spng_strerror(code));
    }
}

static int png_read_header(spng_ctx *ctx, const uint8_t *bytes, size_t length,
                           const struct image_limits *limits, struct spng_ihdr *header)
{
    uint32_t side = limits->max_pixels < INT32_MAX ? (uint32_t)limits->max_pixels : INT32_MAX;
    int code = spng_set_png_buffer(ctx, bytes, length);
    if (!code)
        code = spng_set_image_limits(ctx, side, side);
    if (!code) // chunks that are stored as they are take no more than the file
        code =
            spng_set_chunk_limits(ctx, PNG_MAX_UNPACKED_BYTES, length + PNG_MAX_ALL_UNPACKED_BYTES);
    if (!code)
        code = spng_get_ihdr(ctx, header);
    return code;
}

// A pixel may name an entry that the palette lacks. libspng makes it black; Pillow, whose palettes
// start as a ramp of grays, the gray of its number.
static int png_complete_palette(spng_ctx *ctx, int bit_depth)
{
    struct spng_plte palette;
    int code = spng_get_plte(ctx, &palette);
    if (code)
        return code;
    for (; palette.n_entries < 1u << bit_depth; palette.n_entries++) {
        uint8_t gray = (uint8_t)palette.n_entries;
        palette.entries[gray] = (struct spng_plte_entry){gray, gray, gray, 255};
    }
    return spng_set_plte(ctx, &palette);
}

// *image is the caller's to release, also where this fails.
static enum status png_decode(spng_ctx *ctx, const uint8_t *bytes, size_t length,
                              const struct image_limits *limits, struct image *image,
                              int *orientation)
{
    struct spng_ihdr header;
    TRY(png_status(png_read_header(ctx, bytes, length, limits, &header)));
    TRY(image_check_size("png", header.width, header.height, limits));
    *image = (struct image){.width = (int)header.width, .height = (int)header.height};
    size_t pixels = (size_t)header.width * header.height;
    image->rgb = reallocarray(NULL, pixels, 3);
    if (!image->rgb)
        return status_fail(STATUS_OUT_OF_MEMORY, "png: no memory for %d x %d pixels", image->width,
                           image->height);
    if (header.color_type == SPNG_COLOR_TYPE_INDEXED)
        TRY(png_status(png_complete_palette(ctx, header.bit_depth)));
    TRY(png_status(spng_decode_image(ctx, image->rgb, pixels * 3, SPNG_FMT_RGB8, 0)));
    TRY(png_status(spng_decode_chunks(ctx))); // the last CRC, the end; eXIf may come this late
    struct spng_exif exif;
    if (spng_get_exif(ctx, &exif) == SPNG_OK)
        *orientation = exif_orientation((const uint8_t *)exif.data, exif.length);
    return STATUS_OK;
}

enum status image_read_png(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                           struct image_receiver *receiver)
{
    spng_ctx *ctx = spng_ctx_new2(&memory, 0);
    if (!ctx)
        return memory_check("png", STATUS_OUT_OF_MEMORY);
    struct image image = {0};
    int orientation = 1;
    enum status status = png_decode(ctx, bytes, length, limits, &image, &orientation);
    if (status == STATUS_OK) {
        struct image_size size = {image.width, image.height, 1};
        struct image_window window;
        status = image_begin(receiver, &size, orientation, &window);
        if (status == STATUS_OK)
            image_rows_of(receiver, &image, &window);
    }
    spng_ctx_free(ctx);
    image_release(&image);
    return memory_check("png", status);
}

enum status png_write(const uint8_t *rgb, int width, int height, uint8_t **bytes, size_t *length)
{
    *bytes = NULL;
    *length = 0;
    struct spng_ihdr header = {.width = (uint32_t)width,
                               .height = (uint32_t)height,
                               .bit_depth = 8,
                               .color_type = SPNG_COLOR_TYPE_TRUECOLOR};
    spng_ctx *ctx = spng_ctx_new2(&memory, SPNG_CTX_ENCODER);
    if (!ctx)
        return memory_check("png", STATUS_OUT_OF_MEMORY);
    int code = spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);
    if (!code)
        code = spng_set_ihdr(ctx, &header);
    if (!code)
        code = spng_encode_image(ctx, rgb, (size_t)width * (size_t)height * 3, SPNG_FMT_PNG,
                                 SPNG_ENCODE_FINALIZE);
    if (!code)
        *bytes = spng_get_png_buffer(ctx, length, &code); // ours from here on
    spng_ctx_free(ctx);
    return memory_check("png", code ? status_fail(STATUS_INTERNAL, "png: %s", spng_strerror(code))
                                    : STATUS_OK);
}
