#include "oip_data.h"
#include "base64.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static enum status allocate(struct oip_request *request, size_t bytes)
{
    TRY(budget_take(request->budget, (int64_t)bytes));
    request->charged += (int64_t)bytes;
    request->memory = malloc(bytes + 1); // so that nothing is a pointer too
    return request->memory ? STATUS_OK
                           : status_fail(STATUS_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
}

// Each image: its length in four bytes, the lowest first, then the image.
static enum status slice_images(const struct oip_input *input, struct oip_request *request)
{
    size_t at = 0, end = input->binary_length;
    for (int i = 0; i < request->count; i++) {
        const uint8_t *prefix = input->binary + at;
        if (end - at < 4)
            return status_fail(STATUS_BAD_REQUEST,
                               "image %d: the tensor ends at byte %zu, within its length", i + 1,
                               end);
        size_t length = (size_t)prefix[0] | (size_t)prefix[1] << 8 | (size_t)prefix[2] << 16 |
                        (size_t)prefix[3] << 24;
        at += 4;
        if (length > end - at)
            return status_fail(STATUS_BAD_REQUEST,
                               "image %d: its length says %zu bytes, but the tensor has %zu more",
                               i + 1, length, end - at);
        request->images[i].bytes = input->binary + at;
        request->images[i].length = length;
        at += length;
    }
    return at == end
               ? STATUS_OK
               : status_fail(STATUS_BAD_REQUEST,
                             "image: %zu bytes are left over behind the last image", end - at);
}

// An image's base64: data is a flat list, or one of lists of one where the shape is [n, 1].
static const json_t *image_text(const struct oip_input *input, size_t index)
{
    const json_t *text = json_array_get(input->data, index);
    if (input->rank == 2 && json_array_size(text) == 1)
        text = json_array_get(text, 0);
    return json_is_string(text) ? text : NULL;
}

static enum status decode_images(const struct oip_input *input, struct oip_request *request)
{
    size_t room = 0, count = (size_t)request->count;
    if (!json_is_array(input->data) || json_array_size(input->data) != count)
        return status_fail(STATUS_BAD_REQUEST, "image: data is not a list of %zu strings", count);
    for (size_t i = 0; i < count; i++) {
        const json_t *text = image_text(input, i);
        if (!text)
            return status_fail(STATUS_BAD_REQUEST, "image %zu: data[%zu] is not a string", i + 1,
                               i);
        room += base64_max_bytes(json_string_length(text));
    }
    TRY(allocate(request, room));
    uint8_t *bytes = request->memory;
    for (size_t i = 0; i < count; i++) {
        struct upload *image = &request->images[i];
        const json_t *text = image_text(input, i);
        enum status status =
            base64_decode(json_string_value(text), json_string_length(text), bytes, &image->length);
        if (status != STATUS_OK) {
            char detail[256];
            snprintf(detail, sizeof detail, "%s", status_detail(status));
            return status_fail(status, "image %zu: %s", i + 1, detail);
        }
        image->bytes = bytes;
        bytes += image->length;
    }
    return STATUS_OK;
}

static enum status take_pixels(const struct oip_input *input, struct oip_request *request)
{
    size_t side = (size_t)input->S, crop = side * side * 3;
    size_t size = crop * (size_t)request->count;
    const uint8_t *bytes = input->binary;
    if (!input->data && input->binary_length != size)
        return status_fail(STATUS_BAD_REQUEST,
                           "pixels: binary_data_size is %zu, but the shape holds %zu bytes",
                           input->binary_length, size);
    if (input->data && !input->numbers.text)
        return status_fail(STATUS_BAD_REQUEST, "pixels: data is not a list of numbers");
    if (input->data) {
        // A number and its comma: what cannot hold them all is not worth the memory.
        if (input->numbers.length / 2 < size)
            return status_fail(STATUS_BAD_REQUEST,
                               "pixels: data is too short for the %zu numbers of the shape", size);
        TRY(allocate(request, size));
        TRY(oip_numbers_read(&input->numbers, input->shape, input->rank, request->memory, size));
        bytes = request->memory;
    }
    for (int i = 0; i < request->count; i++)
        request->images[i] =
            (struct upload){.bytes = bytes + crop * (size_t)i, .length = crop, .cropped = true};
    return STATUS_OK;
}

enum status oip_data_read(const struct oip_input *input, struct oip_request *request)
{
    request->images = calloc((size_t)input->shape[0], sizeof *request->images);
    if (!request->images)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    request->count = (int)input->shape[0];
    if (input->pixels)
        return take_pixels(input, request);
    return input->data ? decode_images(input, request) : slice_images(input, request);
}
