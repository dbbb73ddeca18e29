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

// Between two rows there is time to look at the guard; within one there is none.
enum { PNG_MAX_SIDE = 1 << 20 };

static enum status png_status(int code)
{
    switch (code) {
    case SPNG_OK:
        return STATUS_OK;
    case SPNG_EUSER_WIDTH:
    case SPNG_EUSER_HEIGHT:
    case SPNG_EOVERFLOW:
        return status_fail(STATUS_IMAGE_TOO_LARGE, "png: a side of more than %d pixels",
                           PNG_MAX_SIDE);
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

static int png_read_header(spng_ctx *ctx, struct png_chunks *chunks, struct spng_ihdr *header)
{
    int code = spng_set_png_stream(ctx, png_serve, chunks);
    if (!code)
        code = spng_set_image_limits(ctx, PNG_MAX_SIDE, PNG_MAX_SIDE);
    if (!code)
        code = spng_get_ihdr(ctx, header);
    return code;
}

// As spng_decode_image() does it, but for the looks at the guard. An interlaced picture has rows
// in seven passes, of which each adds to those that are there.
static enum status png_decode_rows(spng_ctx *ctx, struct image_receiver *receiver,
                                   const struct image *image)
{
    const size_t stride = (size_t)image->width * 3;
    int code = spng_decode_image(ctx, NULL, 0, SPNG_FMT_RGB8, SPNG_DECODE_PROGRESSIVE);
    while (code == 0) {
        struct spng_row_info row;
        code = spng_get_row_info(ctx, &row);
        if (code == 0)
            code = spng_decode_row(ctx, image->rgb + row.row_num * stride, stride);
        TRY(image_check(receiver, image->width));
    }
    return png_status(code == SPNG_EOI ? SPNG_OK : code);
}

// Held at once: the picture, libspng's rows, and the turned picture.
static int64_t png_bytes(const struct image *image)
{
    enum { ROW_BYTES = 64, PIXEL_BYTES = 3 + 3 };
    return (int64_t)image->width * ROW_BYTES + (int64_t)image->width * image->height * PIXEL_BYTES;
}

// *image is the caller's to release, also where this fails.
static enum status png_decode(spng_ctx *ctx, struct png_chunks *chunks,
                              const struct image_limits *limits, struct image_receiver *receiver,
                              struct image *image)
{
    struct spng_ihdr header;
    TRY(png_status(png_read_header(ctx, chunks, &header)));
    TRY(image_check_size("png", header.width, header.height, limits));
    *image = (struct image){.width = (int)header.width, .height = (int)header.height};
    const size_t pixels = (size_t)header.width * header.height;
    TRY(image_admit(receiver, (int64_t)pixels, png_bytes(image)));
    image->rgb = reallocarray(NULL, pixels, 3);
    if (!image->rgb)
        return status_fail(STATUS_OUT_OF_MEMORY, "png: no memory for %d x %d pixels", image->width,
                           image->height);
    TRY(png_decode_rows(ctx, receiver, image));
    return png_chunks_finish(chunks);
}

static enum status png_read(spng_ctx *ctx, struct png_chunks *chunks,
                            const struct image_limits *limits, struct image_receiver *receiver,
                            struct image *image)
{
    TRY(png_decode(ctx, chunks, limits, receiver, image));
    struct image_size size = {image->width, image->height, 1};
    struct image_window window;
    TRY(image_begin(receiver, &size, png_notes_orientation(&chunks->notes), &window));
    return image_rows_of(receiver, image, &window);
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
