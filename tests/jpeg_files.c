#include "jpeg_files.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jpeglib.h>

const struct jpeg_kind jpeg_kinds[JPEG_KINDS] = {
    {.name = "4:4:4", .components = 3, .h = 1, .v = 1},
    {.name = "4:2:2", .components = 3, .h = 2, .v = 1},
    {.name = "4:2:0", .components = 3, .h = 2, .v = 2},
    {.name = "4:4:0", .components = 3, .h = 1, .v = 2},
    {.name = "4:1:1", .components = 3, .h = 4, .v = 1},
    {.name = "4:1:0", .components = 3, .h = 4, .v = 2},
    {.name = "luma halved", .components = 3, .h = 1, .v = 1, .other_h = 2},
    {.name = "one chroma halved", .components = 3, .h = 2, .v = 1, .other_h = 2},
    {.name = "gray", .components = 1, .h = 1, .v = 1},
    {.name = "gray 2x2", .components = 1, .h = 2, .v = 2},
    {.name = "CMYK", .components = 4, .h = 1, .v = 1},
    {.name = "YCCK 4:2:0", .components = 4, .h = 2, .v = 2},
    {.name = "restarts", .components = 3, .h = 2, .v = 2, .restart = 3},
    {.name = "progressive", .components = 3, .h = 2, .v = 2, .progressive = true},
    {.name = "progressive gray",
     .components = 1,
     .h = 1,
     .v = 1,
     .progressive = true,
     .restart = 5},
    {.name = "a scan for each", .components = 3, .h = 2, .v = 2, .scans = true},
    {.name = "arithmetic", .components = 3, .h = 2, .v = 2, .arithmetic = true},
};
static uint32_t random_state = 1;

uint32_t jpeg_random(uint32_t below)
{
    random_state = random_state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

static int value_at(int x, int y, int c, bool smooth)
{
    if (smooth)
        return (int)(128 + 60 * sin(x / (40. + 9 * c)) + 60 * cos(y / (35. + 7 * c)));
    return x * (c + 1) + y * (3 - c) + ((x / 7 + y / 5 + c) % 3) * 60 + (int)jpeg_random(25);
}

static void set_kind(struct jpeg_compress_struct *cinfo, const struct jpeg_kind *kind)
{
    static const jpeg_scan_info scans[] = {
        {1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
    jpeg_set_defaults(cinfo);
    jpeg_set_quality(cinfo, 85, TRUE);
    if (kind->components == 4)
        jpeg_set_colorspace(cinfo, kind->h > 1 ? JCS_YCCK : JCS_CMYK);
    for (int i = 0; i < kind->components; i++) {
        bool full = i == 0 || i == 3;
        cinfo->comp_info[i].h_samp_factor = full ? kind->h : 1;
        cinfo->comp_info[i].v_samp_factor = full ? kind->v : 1;
    }
    if (kind->other_h)
        cinfo->comp_info[1].h_samp_factor = kind->other_h;
    cinfo->restart_interval = kind->restart;
    cinfo->arith_code = kind->arithmetic;
    if (kind->progressive)
        jpeg_simple_progression(cinfo);
    if (kind->scans) {
        cinfo->scan_info = scans;
        cinfo->num_scans = 3;
    }
}

struct jpeg_file jpeg_make(const struct jpeg_kind *kind, int width, int height, bool smooth)
{
    struct jpeg_file file = {0};
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr errors;
    cinfo.err = jpeg_std_error(&errors);
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &file.bytes, &file.length);
    cinfo.image_width = (JDIMENSION)width;
    cinfo.image_height = (JDIMENSION)height;
    cinfo.input_components = kind->components;
    cinfo.in_color_space = kind->components == 1   ? JCS_GRAYSCALE
                           : kind->components == 3 ? JCS_RGB
                                                   : JCS_CMYK;
    set_kind(&cinfo, kind);
    jpeg_start_compress(&cinfo, TRUE);
    uint8_t *row = malloc((size_t)width * (size_t)kind->components);
    assert_non_null(row);
    for (int y = 0; y < height; y++) {
        for (int i = 0; i < width * kind->components; i++)
            row[i] = (uint8_t)value_at(i / kind->components, y, i % kind->components, smooth);
        jpeg_write_scanlines(&cinfo, &row, 1);
    }
    jpeg_finish_compress(&cinfo);
    jpeg_destroy_compress(&cinfo);
    free(row);
    return file;
}
