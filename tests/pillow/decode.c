// What the server makes of many pictures, in one process, for tests/pillow/run.py to compare with
// Pillow's. From standard input, for each: its length, 4 bytes, the lowest first, and the file. To
// standard output: a line "opened WIDTH HEIGHT", then the upright RGB pixels and the crop (resize
// RESIZE bicubic, crop CROP); or a line "refused STATUS DETAIL".

#include "preprocess.h"
#include <stdio.h>
#include <stdlib.h>

enum { RESIZE = 64, CROP = 56, MAX_PIXELS = 1 << 20 }; // as run.py has them

static bool decode(const uint8_t *bytes, size_t length)
{
    static const struct preprocess recipe = {
        .resize = RESIZE, .crop = CROP, .interpolation = INTERPOLATION_BICUBIC};
    struct image_limits limits = {.max_pixels = MAX_PIXELS, .apply_orientation = true};
    static uint8_t crop[CROP * CROP * 3];
    struct image image;
    struct preprocessed done;
    enum status status = image_decode(bytes, length, &limits, &image);
    if (status != STATUS_OK)
        printf("refused %s %s\n", status_code(status), status_detail(status));
    if (preprocess_bytes(&recipe, bytes, length, &limits, crop, &done) != status) {
        fprintf(stderr, "the crop's verdict is another than the picture's\n");
        return false;
    }
    if (status == STATUS_OK) {
        printf("opened %d %d\n", image.width, image.height);
        fwrite(image.rgb, 3, (size_t)image.width * (size_t)image.height, stdout);
        fwrite(crop, 1, sizeof crop, stdout);
    }
    image_release(&image);
    return fflush(stdout) == 0;
}

int main(void)
{
    uint8_t head[4];
    bool good = true;
    while (good && fread(head, 1, sizeof head, stdin) == sizeof head) {
        size_t length =
            (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
        uint8_t *bytes = malloc(length + 1); // of its own size, for a sanitizer to see
        good = bytes && fread(bytes, 1, length, stdin) == length && decode(bytes, length);
        free(bytes);
    }
    return good ? 0 : 1;
}
