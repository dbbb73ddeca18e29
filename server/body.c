#include "body.h"
#include "base64.h"
#include "json.h"
#include "multipart.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_utf8(struct slice text)
{
    const unsigned char *c = (const unsigned char *)text.at, *end = c + text.length;
    while (c < end) {
        int more = *c < 0x80                 ? 0
                   : *c >= 0xc2 && *c < 0xe0 ? 1
                   : (*c & 0xf0) == 0xe0     ? 2
                   : *c >= 0xf0 && *c < 0xf5 ? 3
                                             : -1;
        if (more < 0 || end - c <= more)
            return false;
        bool overlong = (*c == 0xe0 && c[1] < 0xa0) || (*c == 0xf0 && c[1] < 0x90);
        bool outside = (*c == 0xed && c[1] > 0x9f) || (*c == 0xf4 && c[1] > 0x8f);
        if (overlong || outside)
            return false;
        for (c++; more > 0; more--, c++)
            if ((*c & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static enum status too_many(int max_images)
{
    return status_fail(STATUS_TOO_MANY_IMAGES, "more than %d images in one request (--max-images)",
                       max_images);
}

static enum status add_image(struct body *body, struct slice name, struct slice data,
                             int max_images)
{
    if (body->count == max_images)
        return too_many(max_images);
    struct upload *image = &body->images[body->count++];
    image->bytes = (const uint8_t *)data.at;
    image->length = data.length;
    if (name.length > 0 && name.length < sizeof image->name && is_utf8(name) &&
        !memchr(name.at, '\0', name.length))
        snprintf(image->name, sizeof image->name, "%.*s", (int)name.length, name.at);
    else
        snprintf(image->name, sizeof image->name, "image-%d", body->count);
    return STATUS_OK;
}

static enum status charge(struct body *body, size_t bytes)
{
    if (body->budget)
        TRY(budget_take(body->budget, (int64_t)bytes));
    body->charged += (int64_t)bytes;
    return STATUS_OK;
}

static void discharge(struct body *body, int64_t bytes)
{
    if (body->budget)
        budget_give(body->budget, bytes);
    body->charged -= bytes;
}

// ---- multipart/form-data ------------------------------------------------------------------------

static enum status add_field(struct body *body, const struct part *part, bool seen[2])
{
    struct slice name = part->name;
    bool top_k = name.length == 5 && memcmp(name.at, "top_k", 5) == 0;
    char *field = top_k ? body->top_k : body->logits;
    if (!top_k && !(name.length == 6 && memcmp(name.at, "logits", 6) == 0))
        return status_fail(STATUS_BAD_REQUEST,
                           "multipart: the form field \"%.*s\" is neither a file nor top_k nor "
                           "logits",
                           (int)(name.length < 64 ? name.length : 64), name.at);
    if (seen[top_k])
        return status_fail(STATUS_BAD_REQUEST, "multipart: the form field \"%.*s\" comes twice",
                           (int)name.length, name.at);
    if (part->data.length >= sizeof body->top_k || memchr(part->data.at, '\0', part->data.length))
        return status_fail(STATUS_BAD_REQUEST,
                           "multipart: the form field \"%.*s\" is no short text", (int)name.length,
                           name.at);
    seen[top_k] = true;
    memcpy(field, part->data.at, part->data.length);
    field[part->data.length] = '\0';
    return STATUS_OK;
}

static enum status parse_form(struct body *body, const char *content_type, int max_images)
{
    struct multipart form;
    struct part part;
    bool found, seen[2] = {false, false};
    TRY(multipart_begin(&form, content_type, body->plain.bytes, body->plain.length));
    for (;;) {
        TRY(multipart_next(&form, &part, &found));
        if (!found)
            break;
        if (part.is_file)
            TRY(add_image(body, part.name, part.data, max_images));
        else
            TRY(add_field(body, &part, seen));
    }
    if (body->count == 0)
        return status_fail(STATUS_NO_IMAGE, "the form holds no file");
    return STATUS_OK;
}

// ---- application/json ---------------------------------------------------------------------------

// Decodes into body->decoded, at *used.
static enum status decode_image(struct body *body, const json_t *text, size_t *used, int max_images)
{
    uint8_t *bytes = body->decoded + *used;
    size_t length;
    enum status status =
        base64_decode(json_string_value(text), json_string_length(text), bytes, &length);
    if (status != STATUS_OK) {
        char problem[256];
        snprintf(problem, sizeof problem, "%s", status_detail(status));
        return status_fail(status, "images[%d]: %s", body->count, problem);
    }
    *used += length;
    return add_image(body, (struct slice){"", 0}, (struct slice){(const char *)bytes, length},
                     max_images);
}

static enum status read_images(struct body *body, const json_t *list, int max_images)
{
    size_t count = json_array_size(list), most = 0, used = 0;
    if (list && !json_is_array(list))
        return status_fail(STATUS_BAD_REQUEST, "images: expected a list of strings");
    if (count == 0)
        return status_fail(STATUS_NO_IMAGE,
                           "images: expected a list of base64 strings or data: URIs, one or more");
    if (count > (size_t)max_images)
        return too_many(max_images);
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_array_get(list, i);
        if (!json_is_string(text))
            return status_fail(STATUS_BAD_REQUEST,
                               "images[%zu]: expected a string of base64 or a data: URI", i);
        most += base64_max_bytes(json_string_length(text));
    }
    TRY(charge(body, most));
    body->decoded = malloc(most + 1); // not nothing, for which there might be no pointer
    if (!body->decoded)
        return status_fail(STATUS_OUT_OF_MEMORY, "no memory for images of %zu bytes", most);
    for (size_t i = 0; i < count; i++)
        TRY(decode_image(body, json_array_get(list, i), &used, max_images));
    return STATUS_OK;
}

static enum status read_object(struct body *body, json_t *object, int max_images)
{
    const char *key;
    json_t *value, *images = NULL;
    if (!json_is_object(object))
        return status_fail(STATUS_BAD_REQUEST, "json: expected an object: {\"images\": [...]}");
    json_object_foreach(object, key, value)
    {
        if (strcmp(key, "images") == 0)
            images = value;
        else if (strcmp(key, "top_k") == 0 && json_is_integer(value))
            snprintf(body->top_k, sizeof body->top_k, "%lld", json_integer_value(value));
        else if (strcmp(key, "top_k") == 0)
            return status_fail(STATUS_BAD_TOP_K, "top_k: expected a whole number");
        else if (strcmp(key, "logits") == 0 && (json_is_boolean(value) || json_is_integer(value)))
            snprintf(body->logits, sizeof body->logits, "%lld",
                     json_is_integer(value) ? json_integer_value(value) : json_is_true(value));
        else if (strcmp(key, "logits") == 0)
            return status_fail(STATUS_BAD_REQUEST, "logits: expected true or false, 1 or 0");
        else
            return status_fail(STATUS_BAD_REQUEST,
                               "json: the key \"%.64s\" is none of images, top_k, logits", key);
    }
    return read_images(body, images, max_images);
}

// The images are copies, so that the text and its values are given back here.
static enum status parse_json(struct body *body, int max_images)
{
    const char *text = (const char *)body->plain.bytes;
    size_t memory_bytes, length = body->plain.length;
    json_t *root;
    TRY(json_measure(text, length, &memory_bytes));
    TRY(charge(body, memory_bytes));
    enum status status = json_parse(text, length, &root);
    inflate_release(&body->plain);
    if (status == STATUS_OK) {
        status = read_object(body, root, max_images);
        json_decref(root);
    }
    discharge(body, (int64_t)memory_bytes);
    return status;
}

// ---- all of them --------------------------------------------------------------------------------

static bool has_type(const char *content_type, const char *type)
{
    size_t length = strlen(type);
    return content_type && strncasecmp(content_type, type, length) == 0 &&
           (content_type[length] == '\0' || strchr("; \t", content_type[length]));
}

static enum status parse_image(struct body *body, int max_images)
{
    struct slice bytes = {(const char *)body->plain.bytes, body->plain.length};
    size_t start = 0;
    while (start < bytes.length && memchr(" \t\r\n", bytes.at[start], 4))
        start++;
    if (start < bytes.length && bytes.at[start] == '{')
        return status_fail(STATUS_UNSUPPORTED_IMAGE,
                           "not a format we know; JPEG and PNG are supported; JSON is sent with "
                           "\"Content-Type: application/json\"");
    return add_image(body, (struct slice){"", 0}, bytes, max_images);
}

static enum status parse(const struct body_source *source, struct body *body)
{
    TRY(inflate_body(source->content_encoding, source->bytes, source->length, source->max_bytes,
                     source->budget, &body->plain));
    if (body->plain.length == 0)
        return status_fail(STATUS_NO_IMAGE, "the body is empty: send the image in it");
    if (has_type(source->content_type, "multipart/form-data"))
        return parse_form(body, source->content_type, source->max_images);
    if (has_type(source->content_type, "application/json"))
        return parse_json(body, source->max_images);
    return parse_image(body, source->max_images);
}

enum status body_parse(const struct body_source *source, struct body *body)
{
    *body = (struct body){.budget = source->budget};
    body->images = calloc((size_t)source->max_images, sizeof *body->images);
    if (!body->images)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    enum status status = parse(source, body);
    if (status != STATUS_OK)
        body_release(body);
    return status;
}

void body_release(struct body *body)
{
    free(body->images);
    free(body->decoded);
    inflate_release(&body->plain);
    discharge(body, body->charged);
    *body = (struct body){0};
}
