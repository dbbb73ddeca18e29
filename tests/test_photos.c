// Decoding and preprocessing of real photos against Pillow and torchvision: the SHA-256 of each
// crop is in shared/data. Skipped where that folder is absent.

#include "image.h"
#include "preprocess.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static uint8_t *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*length);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *length, file), *length);
    fclose(file);
    return bytes;
}

// By coreutils, through a file.
static void sha256(const uint8_t *bytes, size_t length, char digest[65])
{
    char path[] = "/tmp/vitserve_photo_XXXXXX", command[128];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
    snprintf(command, sizeof command, "sha256sum %s", path);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    assert_int_equal(fread(digest, 1, 64, output), 64);
    digest[64] = '\0';
    pclose(output);
    unlink(path);
}

static void test_crops(void **state)
{
    (void)state;
    const char *given = getenv("VITSERVE_SHARED");
    const char *shared = given ? given : SHARED_DIR;
    const struct preprocess recipe = {
        .resize = 256, .crop = 224, .interpolation = INTERPOLATION_BICUBIC};
    const struct image_limits limits = {.max_pixels = 64000000};
    char path[1024], digest[65];
    snprintf(path, sizeof path, "%s/data/golden_deit_tiny.json", shared);
    if (access(path, R_OK) != 0) {
        print_message("no %s\n", path);
        skip();
    }
    json_t *golden = json_load_file(path, 0, NULL);
    assert_non_null(golden);
    assert_int_equal(json_object_size(golden), 10);
    uint8_t *pixels = malloc(224 * 224 * 3);
    const char *name;
    json_t *entry;
    json_object_foreach(golden, name, entry)
    {
        size_t length;
        struct image image;
        snprintf(path, sizeof path, "%s/data/photos/%s", shared, name);
        uint8_t *bytes = read_file(path, &length);
        assert_int_equal(image_decode(bytes, length, &limits, &image), STATUS_OK);
        assert_int_equal(preprocess_image(&recipe, &image, pixels), STATUS_OK);
        sha256(pixels, 224 * 224 * 3, digest);
        assert_string_equal(digest, json_string_value(json_object_get(entry, "pixels_sha256")));
        image_release(&image);

        struct preprocessed done;
        memset(pixels, 0, 224 * 224 * 3);
        assert_int_equal(preprocess_bytes(&recipe, bytes, length, &limits, pixels, &done),
                         STATUS_OK);
        sha256(pixels, 224 * 224 * 3, digest);
        assert_string_equal(digest, json_string_value(json_object_get(entry, "pixels_sha256")));
        free(bytes);
    }
    free(pixels);
    json_decref(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_crops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
