// PNG, by libspng, always whole: the orientation may come after the pixels. libspng sees no more of
// the file than makes the pixels, as png_chunks.c serves it: what it thinks of the other chunks
// would decide whether the picture opens. It scales 1, 2 and 4-bit gray to 8 bits and keeps the
// high byte of 16.

#include "image_format.h"
#include "memory.h"
#include "png_chunks.h"
#include <stdlib.h>

#include <spng.h>

// libspng's own codes for it come from some of its places only.
static struct spng_alloc memory = {memory_allocate, memory_resize, memory_clear, free};

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

static int png_serve(spng_ctx *ctx, void *chunks, void *to, size_t count)
{
    (void)ctx;
    return png_chunks_serve(chunks, to, count) ? SPNG_OK : SPNG_IO_EOF;
}

static int png_read_header(spng_ctx *ctx, struct png_chunks *chunks,
                           const struct image_limits *limits, struct spng_ihdr *header)
{
    uint32_t side = limits->max_pixels < INT32_MAX ? (uint32_t)limits->max_pixels : INT32_MAX;
    int code = spng_set_png_stream(ctx, png_serve, chunks);
    if (!code)
        code = spng_set_image_limits(ctx, side, side);
    if (!code)
        code = spng_get_ihdr(ctx, header);
    return code;
}

// *image is the caller's to release, also where this fails.
static enum status png_decode(spng_ctx *ctx, struct png_chunks *chunks,
                              const struct image_limits *limits, struct image *image)
{
    struct spng_ihdr header;
    TRY(png_status(png_read_header(ctx, chunks, limits, &header)));
    TRY(image_check_size("png", header.width, header.height, limits));
    *image = (struct image){.width = (int)header.width, .height = (int)header.height};
    size_t pixels = (size_t)header.width * header.height;
    image->rgb = reallocarray(NULL, pixels, 3);
    if (!image->rgb)
        return status_fail(STATUS_OUT_OF_MEMORY, "png: no memory for %d x %d pixels", image->width,
                           image->height);
    TRY(png_status(spng_decode_image(ctx, image->rgb, pixels * 3, SPNG_FMT_RGB8, 0)));
    return png_chunks_finish(chunks);
}

static enum status png_read(spng_ctx *ctx, struct png_chunks *chunks,
                            const struct image_limits *limits, struct image_receiver *receiver,
                            struct image *image)
{
    TRY(png_decode(ctx, chunks, limits, image));
    struct image_size size = {image->width, image->height, 1};
    struct image_window window;
    TRY(image_begin(receiver, &size, png_notes_orientation(&chunks->notes), &window));
    image_rows_of(receiver, image, &window);
    return STATUS_OK;
}

enum status image_read_png(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                           struct image_receiver *receiver)
{
    spng_ctx *ctx = spng_ctx_new2(&memory, 0);
    if (!ctx)
        return memory_check("png", STATUS_OUT_OF_MEMORY);
    struct image image = {0};
    struct png_chunks chunks;
    enum status status = png_chunks_open(&chunks, bytes, length);
    if (status == STATUS_OK)
        status = png_read(ctx, &chunks, limits, receiver, &image);
    spng_ctx_free(ctx);
    image_release(&image);
    png_chunks_release(&chunks);
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
