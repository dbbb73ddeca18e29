// JPEG, by libjpeg-turbo, only as far as the window needs it: rows outside it are skipped, which
// leaves out all but the entropy decoder; columns outside it are, too. libjpeg reports an error by
// a callback that must not return: here it records the status and jumps back to
// jpeg_read_guarded(). What libjpeg allocates hangs on cinfo, as do our rows, so a jump leaks
// nothing. Defaults (islow DCT, fancy upsampling) are Pillow's.

#include "exif.h"
#include "image_format.h"
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

// Each scan of a progressive file is a pass over all of its components, however few bytes it has.
// Encoders write about ten, 14 samples a pixel; one per coefficient and component would be 190.
// JPEG_SCANNED_SAMPLES in all scans together take a third of a second; what is larger than pictures
// are by default may have JPEG_SCANNED_PASSES over the whole.
enum { JPEG_MAX_SCANS = 256, JPEG_SCANNED_PASSES = 32 };
#define JPEG_SCANNED_SAMPLES ((int64_t)1 << 31)

// Rows are skipped in pieces of so many pixels, since libjpeg says nothing meanwhile.
enum { JPEG_SKIPPED_PIXELS = 1 << 16 };

enum {
    JPEG_BLOCK = 1 << 16,    // Pillow's: what libjpeg sees of the file at a time
    JPEG_MAX_PREFIXES = 256, // pictures without pixels that come before the one that has some
};

struct jpeg_reader {
    struct jpeg_decompress_struct cinfo; // its client_data is this reader
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    const uint8_t *bytes, *seen, *end; // the file: its start, what the source has had, its end
    bool complete;                     // all the rows are there
    struct image_receiver *receiver;
    struct jpeg_progress_mgr progress;
    int scan;                 // the one that was looked at last
    int64_t samples, allowed; // in the scans up to it, and in all that there may be
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

static int64_t jpeg_scanned_samples(const struct jpeg_decompress_struct *cinfo)
{
    int64_t samples = 0;
    for (int i = 0; i < cinfo->comps_in_scan; i++)
        samples += (int64_t)cinfo->cur_comp_info[i]->width_in_blocks *
                   cinfo->cur_comp_info[i]->height_in_blocks * DCTSIZE2;
    return samples;
}

static enum status jpeg_check_scans(struct jpeg_reader *reader)
{
    const struct jpeg_decompress_struct *cinfo = &reader->cinfo;
    if (cinfo->input_scan_number == reader->scan)
        return STATUS_OK;
    reader->scan = cinfo->input_scan_number;
    reader->samples += jpeg_scanned_samples(cinfo);
    if (reader->scan > JPEG_MAX_SCANS)
        return status_fail(STATUS_BAD_IMAGE, "jpeg: more than %d scans", JPEG_MAX_SCANS);
    if (reader->samples > reader->allowed)
        return status_fail(STATUS_BAD_IMAGE, "jpeg: %d scans pass over more than %lld samples",
                           reader->scan, (long long)reader->allowed);
    return STATUS_OK;
}

static void jpeg_check(struct jpeg_reader *reader, int64_t pixels)
{
    enum status status = image_check(reader->receiver, pixels);
    if (status != STATUS_OK)
        jpeg_escape((j_common_ptr)&reader->cinfo, status);
}

// libjpeg calls this before each row of blocks of a scan, and for each row that it puts out.
static void jpeg_watch(j_common_ptr common)
{
    struct jpeg_reader *reader = common->client_data;
    const struct jpeg_decompress_struct *cinfo = &reader->cinfo;
    const int rows = cinfo->output_scanline == 0 ? cinfo->max_v_samp_factor * DCTSIZE : 1;
    enum status status = jpeg_check_scans(reader);
    if (status != STATUS_OK)
        jpeg_escape(common, status);
    jpeg_check(reader, (int64_t)cinfo->image_width * rows);
}

static void jpeg_source_nothing(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

static void jpeg_source_show(struct jpeg_reader *reader, const uint8_t *from)
{
    size_t room = (size_t)(reader->end - from);
    size_t count = JPEG_BLOCK - (size_t)(from - reader->bytes) % JPEG_BLOCK;
    reader->seen = from + (count < room ? count : room);
    reader->source.next_input_byte = from;
    reader->source.bytes_in_buffer = (size_t)(reader->seen - from);
}

// The end of the file before the end of the picture is damage. (libjpeg's own memory source feigns
// an end marker there, which fills the rest of a truncated picture with gray.) Once all the rows
// are there, a missing end marker is none, and nobody looks further than Pillow, which has had the
// file in blocks: damage after the one that holds the last row is never seen.
static boolean jpeg_source_fill(j_decompress_ptr cinfo)
{
    struct jpeg_reader *reader = cinfo->client_data;
    if (reader->complete)
        return FALSE;
    if (reader->seen == reader->end)
        jpeg_escape((j_common_ptr)cinfo,
                    status_fail(STATUS_BAD_IMAGE, "jpeg: premature end of file"));
    jpeg_source_show(reader, reader->seen);
    return TRUE;
}

static void jpeg_source_skip(j_decompress_ptr cinfo, long count)
{
    struct jpeg_reader *reader = cinfo->client_data;
    struct jpeg_source_mgr *source = &reader->source;
    if (count <= 0)
        return;
    if ((size_t)count <= source->bytes_in_buffer) {
        source->next_input_byte += count;
        source->bytes_in_buffer -= (size_t)count;
    } else if (reader->complete) {
        source->bytes_in_buffer = 0;
    } else if (count > reader->end - source->next_input_byte) {
        reader->seen = reader->end;
        jpeg_source_fill(cinfo);
    } else {
        jpeg_source_show(reader, source->next_input_byte + count);
    }
}

// libjpeg may fail here already.
static void jpeg_reader_init(struct jpeg_reader *reader, const uint8_t *bytes, size_t length)
{
    reader->cinfo.err = jpeg_std_error(&reader->errors);
    reader->cinfo.client_data = reader;
    reader->errors.error_exit = jpeg_error;
    reader->errors.output_message = jpeg_say_nothing;
    jpeg_create_decompress(&reader->cinfo);
    reader->bytes = reader->seen = bytes;
    reader->end = bytes + length;
    reader->source = (struct jpeg_source_mgr){
        .init_source = jpeg_source_nothing,
        .fill_input_buffer = jpeg_source_fill,
        .skip_input_data = jpeg_source_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = jpeg_source_nothing,
    };
    reader->cinfo.src = &reader->source;
    reader->progress.progress_monitor = jpeg_watch;
    reader->cinfo.progress = &reader->progress;
}

// round(a * b / 255), as Pillow does it.
static int multiply_255(int a, int b)
{
    int product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

// inverted: what Adobe's programs, hence nearly all, store: 255 - ink. rgb may be the same place.
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

static bool jpeg_stands_alone(uint8_t marker) // no length and no data follow
{
    return marker == 0xc8 || (marker >= 0xd0 && marker <= 0xd9) ||
           (marker >= 0xf0 && marker <= 0xfd);
}

// Walks the markers up to the first scan as Pillow does. The first EXIF decides, be it a useless
// one; libjpeg would tell nothing of those before a second start of the picture.
static enum status jpeg_read_orientation(const uint8_t *bytes, size_t length, int *orientation)
{
    enum { SOF0 = 0xc0, SOS = 0xda, APP1 = 0xe1 };
    *orientation = 0;
    bool decided = false;
    for (size_t at = 2; at + 4 <= length;) {
        uint8_t marker = bytes[at + 1];
        if (bytes[at] != 0xff || marker == 0xff) {
            at++;
        } else if (marker == 0 || jpeg_stands_alone(marker)) {
            at += 2;
        } else if (marker < SOF0) {
            return status_fail(STATUS_BAD_IMAGE, "jpeg: byte %zu: no marker", at);
        } else {
            size_t segment = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
            segment = segment > 2 ? segment - 2 : 0;
            at += 4;
            if (segment > length - at || marker == SOS)
                break;
            if (!decided && marker == APP1 && segment >= 5 && memcmp(bytes + at, "Exif", 5) == 0) {
                *orientation = exif_block_orientation(bytes + at, segment);
                decided = true;
            }
            at += segment;
        }
    }
    if (*orientation == 0)
        *orientation = 1;
    return STATUS_OK;
}

// How much smaller fast decoding makes the picture: what libjpeg does in the inverse DCT.
static int jpeg_reduction(const struct jpeg_decompress_struct *cinfo,
                          const struct image_limits *limits, int shortest)
{
    JDIMENSION width = cinfo->image_width, height = cinfo->image_height;
    JDIMENSION side = width < height ? width : height;
    int reduction = 8;
    if (!limits->fast_decode || shortest < 1)
        return 1;
    while (reduction > 1 && side / (JDIMENSION)reduction < (JDIMENSION)shortest)
        reduction /= 2;
    return reduction;
}

// Whether columns and rows may be left out. Not of a file of several scans: they are gathered
// before, so little would be saved, and of coefficients that are missing libjpeg guesses some from
// blocks further away. Not where fast decoding may scale chroma less than luma and still has to
// upsample it: libjpeg-turbo 2.1 then takes the width for half of what it is.
static bool jpeg_can_crop(struct jpeg_decompress_struct *cinfo)
{
    bool common = cinfo->max_h_samp_factor <= 2 && cinfo->max_v_samp_factor <= 2;
    return !jpeg_has_multiple_scans(cinfo) && (cinfo->scale_denom == 1 || common);
}

// Pieces of whole rows of blocks give what one skip over all of them would.
static void jpeg_skip(struct jpeg_decompress_struct *cinfo, JDIMENSION rows)
{
    const JDIMENSION block_row = (JDIMENSION)(cinfo->max_v_samp_factor * DCTSIZE);
    const JDIMENSION piece = (JPEG_SKIPPED_PIXELS / cinfo->image_width / block_row + 1) * block_row;
    while (rows > 0) {
        const JDIMENSION count = rows < piece ? rows : piece;
        jpeg_skip_scanlines(cinfo, count);
        jpeg_check(cinfo->client_data, (int64_t)cinfo->image_width * count);
        rows -= count;
    }
}

// Leaves the rows above the window out, and the columns beside it but for a margin: upsampling
// chroma takes the last column that is decoded for the edge of the picture, so that columns up to
// one block further must be there. Returns how many columns are left of the window.
static int jpeg_select(struct jpeg_decompress_struct *cinfo, const struct image_window *window,
                       int reduction)
{
    if (!jpeg_can_crop(cinfo))
        return window->left;
    JDIMENSION block = (JDIMENSION)(cinfo->max_h_samp_factor * DCTSIZE / reduction);
    JDIMENSION left = (JDIMENSION)window->left, right = left + (JDIMENSION)window->width;
    left = left > block ? left - block : 0;
    right = right + block < cinfo->output_width ? right + block : cinfo->output_width;
    JDIMENSION width = right - left;
    jpeg_crop_scanline(cinfo, &left, &width);
    jpeg_skip(cinfo, (JDIMENSION)window->top);
    return window->left - (int)left;
}

// To the end of the picture, since damage there is damage: libjpeg does not look at what a skip to
// the last row leaves out, so that row is read.
static void jpeg_read_rest(struct jpeg_decompress_struct *cinfo, JSAMPARRAY row)
{
    JDIMENSION rest = cinfo->output_height - cinfo->output_scanline;
    if (rest > 1 && jpeg_can_crop(cinfo))
        jpeg_skip(cinfo, rest - 1);
    while (cinfo->output_scanline < cinfo->output_height)
        jpeg_read_scanlines(cinfo, row, 1);
    ((struct jpeg_reader *)cinfo->client_data)->complete = true;
    jpeg_finish_decompress(cinfo); // reads up to the end marker if there is one
}

static void jpeg_read_window(struct jpeg_decompress_struct *cinfo,
                             const struct image_window *window, int reduction,
                             struct image_receiver *receiver)
{
    int margin = jpeg_select(cinfo, window, reduction);
    int samples = cinfo->output_components;
    JSAMPARRAY lines = cinfo->mem->alloc_sarray(
        (j_common_ptr)cinfo, JPOOL_IMAGE, cinfo->output_width * (JDIMENSION)samples, IMAGE_ROWS);
    for (JDIMENSION y = cinfo->output_scanline; y < (JDIMENSION)window->top; y++)
        jpeg_read_scanlines(cinfo, lines, 1);
    for (int y = 0, count; y < window->height; y += count) {
        const uint8_t *rows[IMAGE_ROWS];
        for (count = 0; count < IMAGE_ROWS && y + count < window->height; count++) {
            jpeg_read_scanlines(cinfo, lines + count, 1);
            uint8_t *row = lines[count] + (ptrdiff_t)margin * samples;
            if (samples == 4)
                cmyk_to_rgb(row, row, window->width);
            rows[count] = row;
        }
        image_rows(receiver, rows, count);
    }
    jpeg_read_rest(cinfo, lines);
}

// A picture without pixels is one for the tables of those that follow; programs for Flash put an
// empty one before each of theirs.
static enum status jpeg_read_headers(struct jpeg_decompress_struct *cinfo)
{
    for (int i = 0; i <= JPEG_MAX_PREFIXES; i++)
        if (jpeg_read_header(cinfo, FALSE) != JPEG_HEADER_TABLES_ONLY)
            return STATUS_OK;
    return status_fail(STATUS_BAD_IMAGE, "jpeg: more than %d empty pictures before the first",
                       JPEG_MAX_PREFIXES);
}

// The most that is held at once. Of several scans libjpeg keeps every coefficient; they are gone
// before a picture is turned.
static int64_t jpeg_bytes(struct jpeg_decompress_struct *cinfo, bool turns)
{
    enum { ROWS_BYTES = 512 }; // for each column: rows of samples and of blocks, ours and libjpeg's
    int64_t coefficients = 0, turned = 0;
    for (int i = 0; jpeg_has_multiple_scans(cinfo) && i < cinfo->num_components; i++) {
        const jpeg_component_info *component = &cinfo->comp_info[i];
        coefficients += ((int64_t)component->width_in_blocks + component->h_samp_factor) *
                        ((int64_t)component->height_in_blocks + component->v_samp_factor) *
                        (int64_t)sizeof(JBLOCK);
    }
    if (turns)
        turned = (int64_t)cinfo->image_width * cinfo->image_height * 3;
    return (int64_t)cinfo->image_width * ROWS_BYTES + turned +
           (coefficients > turned ? coefficients : turned);
}

static enum status jpeg_read(struct jpeg_reader *reader, const struct image_limits *limits,
                             struct image_receiver *receiver, int shortest)
{
    struct jpeg_decompress_struct *cinfo = &reader->cinfo;
    TRY(jpeg_read_headers(cinfo));
    int components = cinfo->num_components;
    if (components != 1 && components != 3 && components != 4)
        return status_fail(STATUS_BAD_IMAGE, "jpeg: %d colour components", components);
    TRY(image_check_size("jpeg", cinfo->image_width, cinfo->image_height, limits));

    struct image_size size = {(int)cinfo->image_width, (int)cinfo->image_height,
                              jpeg_reduction(cinfo, limits, shortest)};
    const int64_t pixels = (int64_t)size.width * size.height;
    struct image_window window;
    int orientation;
    TRY(jpeg_read_orientation(reader->bytes, (size_t)(reader->end - reader->bytes), &orientation));
    TRY(image_admit(receiver, pixels, jpeg_bytes(cinfo, image_turns(receiver, orientation))));
    TRY(image_begin(receiver, &size, orientation, &window));
    reader->allowed = pixels * components * JPEG_SCANNED_PASSES;
    if (reader->allowed < JPEG_SCANNED_SAMPLES)
        reader->allowed = JPEG_SCANNED_SAMPLES;
    cinfo->out_color_space = components == 4 ? JCS_CMYK : JCS_RGB;
    cinfo->scale_num = 1;
    cinfo->scale_denom = (unsigned)size.reduction;
    jpeg_start_decompress(cinfo);
    jpeg_read_window(cinfo, &window, size.reduction, receiver);
    return STATUS_OK;
}

// The frame that jumps end in.
static enum status jpeg_read_guarded(struct jpeg_reader *reader, const uint8_t *bytes,
                                     size_t length, const struct image_limits *limits,
                                     struct image_receiver *receiver, int shortest)
{
    if (setjmp(reader->escape) != 0)
        return reader->status;
    jpeg_reader_init(reader, bytes, length);
    return jpeg_read(reader, limits, receiver, shortest);
}

enum status image_read_jpeg(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                            struct image_receiver *receiver, int shortest)
{
    struct jpeg_reader reader = {.receiver = receiver};
    enum status status = jpeg_read_guarded(&reader, bytes, length, limits, receiver, shortest);
    jpeg_destroy_decompress(&reader.cinfo);
    return status;
}
