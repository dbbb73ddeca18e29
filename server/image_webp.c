// WebP, by libwebp, which hands out whole pictures: those columns and rows that the window does not
// need are left out, but for the rows below it, since damage there is damage. libwebpdemux takes
// the container apart and copies nothing of it. Of an animation the first frame is shown, on a
// black canvas where it does not fill it, as by Pillow. Memory: 3 bytes per pixel here; in libwebp
// 4 if the picture is lossless, 1 if it is lossy and has alpha.

#include "exif.h"
#include "image_format.h"
#include "memory.h"
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

// libwebp allocates through three functions that a program may put its own in the place of. These
// keep each picture to what an honest one may need: a hostile one of a megapixel, 300 kB long, can
// have 64 Ki groups of codes, whose tables take 0.8 GB.
enum {
    BYTES_OF_ANY = 64 << 20,
    BYTES_PER_BYTE = 8,       // of the file: what the demuxer notes of its chunks
    BYTES_PER_PIXEL = 16,     // once its size is known to be in order
    ADMITTED_BYTES = 4 << 20, // at a time, where the estimate was too low
};
static _Thread_local struct {
    struct image_receiver *receiver; // of the picture that this thread reads; NULL: none
    int64_t left;                    // bytes that it may still ask for
    int64_t admitted;                // of these, what has been estimated
    enum status refused;
} room;

static void grant(int64_t bytes)
{
    room.left += bytes;
}

static enum status ask_for(uint64_t count, size_t size)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > (uint64_t)room.left)
        return status_fail(STATUS_BAD_IMAGE,
                           "webp: the picture asks for far more memory than its size explains");
    room.left -= (int64_t)bytes;
    room.admitted -= (int64_t)bytes;
    if (room.admitted >= 0)
        return STATUS_OK;
    const int64_t more = ADMITTED_BYTES - room.admitted;
    TRY(image_admit(room.receiver, 0, more));
    room.admitted += more;
    return STATUS_OK;
}

static void *allocate(uint64_t count, size_t size, void *(*allocator)(size_t count, size_t size))
{
    if (room.receiver) {
        enum status status = ask_for(count, size);
        if (status != STATUS_OK) {
            room.refused = status;
            return NULL;
        }
    }
    return allocator(count, size);
}

static void *allocate_raw(size_t count, size_t size)
{
    return memory_allocate(count * size);
}

void *WebPSafeMalloc(uint64_t count, size_t size);
void *WebPSafeCalloc(uint64_t count, size_t size);
void WebPSafeFree(void *memory);

void *WebPSafeMalloc(uint64_t count, size_t size)
{
    return allocate(count, size, allocate_raw);
}

void *WebPSafeCalloc(uint64_t count, size_t size)
{
    return allocate(count, size, memory_clear);
}

void WebPSafeFree(void *memory)
{
    free(memory);
}

static enum status webp_status(VP8StatusCode code)
{
    if (code != VP8_STATUS_OK && room.refused != STATUS_OK)
        return room.refused;
    switch (code) {
    case VP8_STATUS_OK:
        return STATUS_OK;
    case VP8_STATUS_NOT_ENOUGH_DATA:
        return status_fail(STATUS_BAD_IMAGE, "webp: premature end of file");
    default:
        return status_fail(STATUS_BAD_IMAGE, "webp: the picture is damaged");
    }
}

// The file says how many bytes follow its first eight. *demuxer is the caller's to delete.
static enum status webp_open(const uint8_t *bytes, size_t length, WebPDemuxer **demuxer)
{
    WebPData file = {bytes, length};
    size_t follow =
        bytes[4] | (size_t)bytes[5] << 8 | (size_t)bytes[6] << 16 | (size_t)bytes[7] << 24;
    if (follow > length - 8)
        return status_fail(STATUS_BAD_IMAGE, "webp: premature end of file");
    *demuxer = WebPDemux(&file);
    if (!*demuxer)
        return status_fail(STATUS_BAD_IMAGE, "webp: the container is damaged");
    return STATUS_OK;
}

// Some programs put JPEG's prefix before the TIFF structure.
static int webp_orientation(const WebPDemuxer *demuxer)
{
    WebPChunkIterator exif;
    if (!WebPDemuxGetChunk(demuxer, "EXIF", 1, &exif))
        return 1;
    int orientation = exif_block_orientation(exif.chunk.bytes, exif.chunk.size);
    WebPDemuxReleaseChunkIterator(&exif);
    return orientation ? orientation : 1;
}

// What to decode of a frame for a window of it. Chroma is upsampled from samples up to two pixels
// away, which must be there; libwebp cuts lossy pictures at even places only.
static struct image_window webp_part(const struct image_window *window, const WebPIterator *frame)
{
    enum { MARGIN = 2 };
    struct image_window part = {
        .left = window->left > MARGIN ? (window->left - MARGIN) & ~1 : 0,
        .top = window->top > MARGIN ? (window->top - MARGIN) & ~1 : 0,
    };
    int right = window->left + window->width + MARGIN;
    part.width = (right < frame->width ? right : frame->width) - part.left;
    part.height = frame->height - part.top;
    return part;
}

// canvas: that part of the canvas; all of it if the frame does not fill it.
static enum status webp_decode(const WebPIterator *frame, bool fills,
                               const struct image_window *part, struct image *canvas)
{
    *canvas = (struct image){calloc((size_t)part->width * (size_t)part->height, 3), part->width,
                             part->height};
    if (!canvas->rgb)
        return status_fail(STATUS_OUT_OF_MEMORY, "webp: no memory for %d x %d pixels",
                           canvas->width, canvas->height);
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config))
        return status_fail(STATUS_INTERNAL, "webp: not the libwebp that this was built for");
    size_t stride = (size_t)canvas->width * 3, at = 0;
    if (fills) {
        config.options.use_cropping = 1;
        config.options.crop_left = part->left;
        config.options.crop_top = part->top;
        config.options.crop_width = part->width;
        config.options.crop_height = part->height;
    } else { // the demuxer has seen to it that the frame lies within the canvas
        at = (size_t)frame->y_offset * stride + (size_t)frame->x_offset * 3;
    }
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = canvas->rgb + at;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = stride * (size_t)canvas->height - at;
    return webp_status(WebPDecode(frame->fragment.bytes, frame->fragment.size, &config));
}

// An estimate of what honest pictures need; what libwebp allocates beyond it is admitted when it
// is. It decodes a picture in one go, at some fifty million pixels a second.
static enum status webp_admit(const WebPIterator *frame, const struct image_size *size, bool turns,
                              struct image_receiver *receiver)
{
    WebPBitstreamFeatures features;
    TRY(webp_status(WebPGetFeatures(frame->fragment.bytes, frame->fragment.size, &features)));
    const int64_t pixels = (int64_t)size->width * size->height;
    const bool lossless = features.format == 2;
    enum { ROWS_BYTES = 256 }; // for each column
    const int64_t theirs = pixels * (lossless ? 4 : features.has_alpha) +
                           (int64_t)size->width * ROWS_BYTES + ADMITTED_BYTES;
    TRY(image_admit(receiver, pixels, pixels * (turns ? 6 : 3) + theirs));
    room.admitted += theirs;
    return image_unwatched(receiver, pixels);
}

static enum status webp_read(const WebPDemuxer *demuxer, const struct image_limits *limits,
                             struct image_receiver *receiver, struct image *canvas)
{
    uint32_t width = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH);
    uint32_t height = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT);
    TRY(image_check_size("webp", width, height, limits));
    grant(BYTES_PER_PIXEL * (int64_t)width * (int64_t)height);
    WebPIterator frame;
    if (!WebPDemuxGetFrame(demuxer, 1, &frame))
        return status_fail(STATUS_BAD_IMAGE, "webp: no picture in the file");
    struct image_size size = {(int)width, (int)height, 1};
    struct image_window window;
    const int orientation = webp_orientation(demuxer);
    enum status status = webp_admit(&frame, &size, image_turns(receiver, orientation), receiver);
    if (status == STATUS_OK)
        status = image_begin(receiver, &size, orientation, &window);
    if (status == STATUS_OK) {
        bool fills = frame.width == size.width && frame.height == size.height;
        struct image_window part = {.width = size.width, .height = size.height};
        if (fills)
            part = webp_part(&window, &frame);
        window.left -= part.left;
        window.top -= part.top;
        status = webp_decode(&frame, fills, &part, canvas);
    }
    WebPDemuxReleaseIterator(&frame);
    return status == STATUS_OK ? image_rows_of(receiver, canvas, &window) : status;
}

enum status image_read_webp(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                            struct image_receiver *receiver)
{
    WebPDemuxer *demuxer = NULL;
    struct image canvas = {0};
    room.receiver = receiver;
    room.left = 0;
    room.admitted = BYTES_PER_BYTE * (int64_t)length; // as little as the file itself
    room.refused = STATUS_OK;
    grant(BYTES_OF_ANY + BYTES_PER_BYTE * (int64_t)length);
    enum status status = webp_open(bytes, length, &demuxer);
    if (status == STATUS_OK)
        status = webp_read(demuxer, limits, receiver, &canvas);
    WebPDemuxDelete(demuxer);
    room.receiver = NULL;
    image_release(&canvas);
    return memory_check("webp", status);
}
