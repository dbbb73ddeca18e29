// libFuzzer entry for image_decode(): any bytes give pixels or an error.
// Corpus: tests/golden/images.

#include "image.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const struct image_limits limits = {.max_pixels = 1 << 18, .apply_orientation = true};
    static volatile uint8_t last;
    struct image image;
    if (image_decode(bytes, length, &limits, &image) == STATUS_OK)
        last = image.rgb[(size_t)image.width * (size_t)image.height * 3 - 1];
    image_release(&image);
    return 0;
}
