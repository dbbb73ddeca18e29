#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "parsed_oip.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void parse_bytes(struct parsed *parsed, const char *json_length, const void *bytes, size_t length)
{
    *parsed =
        (struct parsed){.bytes = malloc(length + (length == 0)), .budget = {.limit = 1 << 20}};
    assert_non_null(parsed->bytes);
    for (size_t i = 0; i < length; i++)
        parsed->bytes[i] = ((const uint8_t *)bytes)[i];
    struct oip_source source = {.json_length = json_length,
                                .bytes = parsed->bytes,
                                .length = length,
                                .S = S,
                                .K = K,
                                .max_images = MAX_IMAGES,
                                .budget = &parsed->budget};
    parsed->status = oip_request_parse(&source, &parsed->request);
    if (parsed->status != STATUS_OK) {
        assert_null(parsed->request.images);
        assert_int_equal(parsed->budget.used, 0);
    }
}

void release(struct parsed *parsed)
{
    oip_request_release(&parsed->request);
    assert_int_equal(parsed->budget.used, 0);
    free(parsed->bytes);
}

void parse_good(struct parsed *parsed, const char *json)
{
    parse_bytes(parsed, NULL, json, strlen(json));
    if (parsed->status != STATUS_OK)
        fail_msg("%s: %s", json, status_detail(parsed->status));
}

void parse_binary(struct parsed *parsed, const char *json, const void *tensor, size_t length)
{
    char json_length[24], *body = malloc(strlen(json) + length + 1);
    assert_non_null(body);
    snprintf(json_length, sizeof json_length, "%zu", strlen(json));
    snprintf(body, strlen(json) + 1, "%s", json);
    for (size_t i = 0; i < length; i++)
        body[strlen(json) + i] = ((const char *)tensor)[i];
    parse_bytes(parsed, json_length, body, strlen(json) + length);
    free(body);
}

void expect_refusal(struct parsed *parsed, const char *what, enum status status, const char *words)
{
    if (parsed->status != status || !strstr(status_detail(status), words))
        fail_msg("%s: %s: %s", what, status_code(parsed->status), status_detail(parsed->status));
    release(parsed);
}

void refuse_as(const char *json, enum status status, const char *words)
{
    struct parsed parsed;
    parse_bytes(&parsed, NULL, json, strlen(json));
    expect_refusal(&parsed, json, status, words);
}

void refuse(const char *json, const char *words)
{
    refuse_as(json, STATUS_BAD_REQUEST, words);
}

void refuse_binary(const char *json, const void *tensor, size_t length, const char *words)
{
    struct parsed parsed;
    parse_binary(&parsed, json, tensor, length);
    expect_refusal(&parsed, json, STATUS_BAD_REQUEST, words);
}

void expect_image(const struct parsed *parsed, int index, const char *text)
{
    assert_in_range(index, 0, parsed->request.count - 1);
    const struct upload *image = &parsed->request.images[index];
    assert_false(image->cropped);
    assert_int_equal(image->length, strlen(text));
    assert_memory_equal(image->bytes, text, image->length);
}

void expect_crops(const struct parsed *parsed, int count)
{
    assert_int_equal(parsed->request.count, count);
    for (int i = 0; i < count; i++) {
        const struct upload *image = &parsed->request.images[i];
        assert_true(image->cropped);
        assert_int_equal(image->length, CROP);
        for (int j = 0; j < CROP; j++)
            assert_int_equal(image->bytes[j], i * CROP + j);
    }
}
