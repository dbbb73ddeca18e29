// Two decoders, one section each, and what they share: the limit on the pixels and the turn that
// EXIF asks for. A decoder fills *image in the order of the file and says the orientation.

#include "image.h"
#include "exif.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>
#include <spng.h>

// Allocates the pixels, once the size that the header declares is known to be within the limit.
static enum status image_allocate(struct image *image, const char *format, int64_t width,
                                  int64_t height, const struct image_limits *limits)
{
    if (width < 1 || height < 1)
        return status_fail(STATUS_BAD_IMAGE, "%s: an empty picture", format);
    if (width > limits->max_pixels / height)
        return status_fail(STATUS_IMAGE_TOO_LARGE,
                           "%s: %lld x %lld pixels, the limit is %lld pixels", format,
                           (long long)width, (long long)height, (long long)limits->max_pixels);
    image->rgb = reallocarray(NULL, (size_t)(width * height), 3);
    if (!image->rgb)
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: no memory for %lld x %lld pixels", format,
                           (long long)width, (long long)height);
    image->width = (int)width;
    image->height = (int)height;
    return STATUS_OK;
}

static uint8_t *image_row(const struct image *image, size_t y)
{
    return image->rgb + y * (size_t)image->width * 3;
}

// ---- JPEG
// ----------------------------------------------------------------------------------------- libjpeg
// reports an error by a callback that must not return: here it records the status and jumps back to
// jpeg_decode(). What libjpeg allocates hangs on cinfo, what we allocate on the image, so a jump
// leaks nothing. Defaults (islow DCT, fancy upsampling) are Pillow's.

// Each scan of a progressive file is a pass over the whole picture, however few bytes it has.
// Encoders write about ten; one per coefficient and component would be 190. Large pictures get
// fewer: JPEG_SCANNED_PIXELS in all passes together take a second or two.
enum { JPEG_MIN_SCANS = 32, JPEG_MAX_SCANS = 256 };
#define JPEG_SCANNED_PIXELS ((int64_t)1 << 31)

struct jpeg_reader {
    struct jpeg_decompress_struct cinfo; // its client_data is this reader
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    int max_scans;
    jmp_buf escape;
    enum status status; // why we escaped
};

_Noreturn static void jpeg_escape(j_common_ptr cinfo, enum status status)
{
    struct jpeg_reader *reader = cinfo->client_data;
    reader->status = status;
    longjmp(reader->escape, 1);
}

_Noreturn static void jpeg_error(j_common_ptr cinfo)
{
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    enum status status = STATUS_BAD_IMAGE;
    if (cinfo->err->msg_code == JERR_OUT_OF_MEMORY)
        status = STATUS_OUT_OF_MEMORY;
    if (cinfo->err->msg_code == JERR_IMAGE_TOO_BIG)
        status = STATUS_IMAGE_TOO_LARGE;
    jpeg_escape(cinfo, status_fail(status, "jpeg: %s", text));
}

static void jpeg_say_nothing(j_common_ptr cinfo)
{
    (void)cinfo;
}

static int jpeg_scans_allowed(int64_t pixels)
{
    int64_t scans = JPEG_SCANNED_PIXELS / pixels;
    if (scans < JPEG_MIN_SCANS)
        return JPEG_MIN_SCANS;
    return scans > JPEG_MAX_SCANS ? JPEG_MAX_SCANS : (int)scans;
}

static void jpeg_watch_scans(j_common_ptr cinfo)
{
    int limit = ((struct jpeg_reader *)cinfo->client_data)->max_scans;
    if (((j_decompress_ptr)cinfo)->input_scan_number > limit)
        jpeg_escape(cinfo, status_fail(STATUS_BAD_IMAGE, "jpeg: more than %d scans", limit));
}

static void jpeg_source_nothing(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

// The source holds the whole file from the start: asking for more is the end of it. (libjpeg's own
// memory source feigns an end marker there, which fills the rest of a truncated picture with gray.)
static boolean jpeg_source_fill(j_decompress_ptr cinfo)
{
    jpeg_escape((j_common_ptr)cinfo, status_fail(STATUS_BAD_IMAGE, "jpeg: premature end of file"));
}

static void jpeg_source_skip(j_decompress_ptr cinfo, long count)
{
    if (count <= 0)
        return;
    if ((size_t)count > cinfo->src->bytes_in_buffer)
        jpeg_source_fill(cinfo);
    cinfo->src->next_input_byte += count;
    cinfo->src->bytes_in_buffer -= (size_t)count;
}

// libjpeg may fail here already.
static void jpeg_reader_init(struct jpeg_reader *reader, const uint8_t *bytes, size_t length)
{
    reader->cinfo.err = jpeg_std_error(&reader->errors);
    reader->cinfo.client_data = reader;
    reader->errors.error_exit = jpeg_error;
    reader->errors.output_message = jpeg_say_nothing;
    jpeg_create_decompress(&reader->cinfo);
    reader->source = (struct jpeg_source_mgr){
        .next_input_byte = bytes,
        .bytes_in_buffer = length,
        .init_source = jpeg_source_nothing,
        .fill_input_buffer = jpeg_source_fill,
        .skip_input_data = jpeg_source_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = jpeg_source_nothing,
    };
    reader->cinfo.src = &reader->source;
    reader->progress.progress_monitor = jpeg_watch_scans;
    reader->cinfo.progress = &reader->progress;
}

// round(a * b / 255), as Pillow does it.
static int multiply_255(int a, int b)
{
    int product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

// inverted: what Adobe's programs, hence nearly all, store: 255 - ink.
static void cmyk_to_rgb(const uint8_t *inverted, uint8_t *rgb, int width)
{
    for (int x = 0; x < width; x++, inverted += 4, rgb += 3) {
        int light = inverted[3];
        for (int c = 0; c < 3; c++) {
            int value = light - multiply_255(255 - inverted[c], light);
            rgb[c] = (uint8_t)(value < 0 ? 0 : value);
        }
    }
}

static int jpeg_orientation(const struct jpeg_decompress_struct *cinfo)
{
    static const char prefix[6] = "Exif\0";
    for (jpeg_saved_marker_ptr marker = cinfo->marker_list; marker; marker = marker->next)
        if (marker->data_length > sizeof prefix && memcmp(marker->data, prefix, sizeof prefix) == 0)
            return exif_orientation(marker->data + sizeof prefix,
                                    marker->data_length - sizeof prefix);
    return 1;
}

static enum status jpeg_read(struct jpeg_reader *reader, const struct image_limits *limits,
                             struct image *image, int *orientation)
{
    struct jpeg_decompress_struct *cinfo = &reader->cinfo;
    jpeg_save_markers(cinfo, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(cinfo, TRUE);
    int components = cinfo->num_components;
    if (components != 1 && components != 3 && components != 4)
        return status_fail(STATUS_BAD_IMAGE, "jpeg: %d colour components", components);
    TRY(image_allocate(image, "jpeg", cinfo->image_width, cinfo->image_height, limits));

    reader->max_scans = jpeg_scans_allowed((int64_t)image->width * image->height);
    cinfo->out_color_space = components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(cinfo);
    JSAMPARRAY cmyk = NULL; // one row; freed with cinfo
    if (components == 4)
        cmyk =
            cinfo->mem->alloc_sarray((j_common_ptr)cinfo, JPOOL_IMAGE, cinfo->image_width * 4, 1);
    while (cinfo->output_scanline < cinfo->output_height) {
        JSAMPROW row = image_row(image, cinfo->output_scanline);
        jpeg_read_scanlines(cinfo, cmyk ? cmyk : &row, 1);
        if (cmyk)
            cmyk_to_rgb(cmyk[0], row, image->width);
    }
    *orientation = jpeg_orientation(cinfo); // what comes next frees the markers
    jpeg_finish_decompress(cinfo); // reads up to the end marker: without one the file is truncated
    return STATUS_OK;
}

// The frame that jumps end in.
static enum status jpeg_read_guarded(struct jpeg_reader *reader, const uint8_t *bytes,
                                     size_t length, const struct image_limits *limits,
                                     struct image *image, int *orientation)
{
    if (setjmp(reader->escape) != 0)
        return reader->status;
    jpeg_reader_init(reader, bytes, length);
    return jpeg_read(reader, limits, image, orientation);
}

static enum status jpeg_decode(const uint8_t *bytes, size_t length,
                               const struct image_limits *limits, struct image *image,
                               int *orientation)
{
    struct jpeg_reader reader = {0};
    enum status status = jpeg_read_guarded(&reader, bytes, length, limits, image, orientation);
    jpeg_destroy_decompress(&reader.cinfo);
    return status;
}

// ---- PNG
// ------------------------------------------------------------------------------------------
// libspng scales 1, 2 and 4-bit gray to 8 bits and keeps the high byte of 16; asked for RGB8 it
// ignores tRNS, gAMA and sBIT, as we want.

// Compressed text and colour profiles, which libspng unpacks although nobody asks: one, and all.
enum { PNG_MAX_UNPACKED_BYTES = 1 << 20, PNG_MAX_ALL_UNPACKED_BYTES = 8 << 20 };

static enum status png_status(int code)
{
    switch (code) {
    case SPNG_OK:
        return STATUS_OK;
    case SPNG_EMEM:
    case SPNG_EZLIB_INIT:
        return status_fail(STATUS_OUT_OF_MEMORY, "png: out of memory");
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

static enum status png_read(spng_ctx *ctx, const uint8_t *bytes, size_t length,
                            const struct image_limits *limits, struct image *image,
                            int *orientation)
{
    struct spng_ihdr header;
    TRY(png_status(png_read_header(ctx, bytes, length, limits, &header)));
    TRY(image_allocate(image, "png", header.width, header.height, limits));
    if (header.color_type == SPNG_COLOR_TYPE_INDEXED)
        TRY(png_status(png_complete_palette(ctx, header.bit_depth)));
    size_t size = (size_t)image->width * (size_t)image->height * 3;
    TRY(png_status(spng_decode_image(ctx, image->rgb, size, SPNG_FMT_RGB8, 0)));
    TRY(png_status(spng_decode_chunks(ctx))); // the last CRC, the end; eXIf may come this late
    struct spng_exif exif;
    if (spng_get_exif(ctx, &exif) == SPNG_OK)
        *orientation = exif_orientation((const uint8_t *)exif.data, exif.length);
    return STATUS_OK;
}

static enum status png_decode(const uint8_t *bytes, size_t length,
                              const struct image_limits *limits, struct image *image,
                              int *orientation)
{
    spng_ctx *ctx = spng_ctx_new(0);
    if (!ctx)
        return status_fail(STATUS_OUT_OF_MEMORY, "png: out of memory");
    enum status status = png_read(ctx, bytes, length, limits, image, orientation);
    spng_ctx_free(ctx);
    return status;
}

// ---- both
// -----------------------------------------------------------------------------------------

// Turns and mirrors the picture upright. Orientations 5 to 8 exchange rows and columns.
static enum status image_turn(struct image *image, int orientation)
{
    enum { TILE = 64 }; // columns of the source read as rows: a tile of them stays in the cache
    bool exchange = orientation >= 5;
    bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    int width = exchange ? image->height : image->width;
    int height = exchange ? image->width : image->height;
    ptrdiff_t along_x = mirror_x ? -3 : 3; // one pixel to the right, as the file stores it
    ptrdiff_t along_y = (mirror_y ? -3 : 3) * (ptrdiff_t)image->width;
    ptrdiff_t step_x = exchange ? along_y : along_x; // the same, as it is looked at
    ptrdiff_t step_y = exchange ? along_x : along_y;

    struct image turned = {.width = width, .height = height};
    turned.rgb = reallocarray(NULL, (size_t)width * (size_t)height, 3);
    if (!turned.rgb)
        return status_fail(STATUS_OUT_OF_MEMORY, "no memory to turn %d x %d pixels", width, height);
    const uint8_t *origin = image->rgb;
    origin += mirror_x ? 3 * ((ptrdiff_t)image->width - 1) : 0;
    origin += mirror_y ? 3 * (ptrdiff_t)image->width * ((ptrdiff_t)image->height - 1) : 0;
    for (int left = 0; left < width; left += TILE) {
        int right = left + TILE < width ? left + TILE : width;
        for (int y = 0; y < height; y++) {
            uint8_t *to = image_row(&turned, (size_t)y) + (size_t)left * 3;
            for (int x = left; x < right; x++, to += 3)
                memcpy(to, origin + x * step_x + y * step_y, 3);
        }
    }
    image_release(image);
    *image = turned;
    return STATUS_OK;
}

enum status image_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                         struct image *image)
{
    static const uint8_t jpeg_start[] = {0xff, 0xd8, 0xff};
    static const uint8_t png_start[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    *image = (struct image){0};
    if (length == 0)
        return status_fail(STATUS_UNSUPPORTED_IMAGE, "empty; JPEG and PNG are supported");

    enum status status;
    int orientation = 1;
    if (length >= sizeof jpeg_start && memcmp(bytes, jpeg_start, sizeof jpeg_start) == 0)
        status = jpeg_decode(bytes, length, limits, image, &orientation);
    else if (length >= sizeof png_start && memcmp(bytes, png_start, sizeof png_start) == 0)
        status = png_decode(bytes, length, limits, image, &orientation);
    else
        return status_fail(STATUS_UNSUPPORTED_IMAGE,
                           "not a format we know; JPEG and PNG are supported");
    if (status == STATUS_OK && limits->apply_orientation && orientation != 1)
        status = image_turn(image, orientation);
    if (status != STATUS_OK)
        image_release(image);
    return status;
}

void image_release(struct image *image)
{
    free(image->rgb);
    *image = (struct image){0};
}
