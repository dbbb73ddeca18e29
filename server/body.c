#include "body.h"
#include "base64.h"
#include "json.h"
#include "multipart.h"
#include "utf8.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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
    if (name.length > 0 && name.length < sizeof image->name && utf8_valid(name.at, name.length) &&
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

struct form {
    struct multipart parts;
    bool seen[2]; // logits, top_k
    size_t used;  // of body->decoded
    int max_images;
};

static bool is_named(const struct part *part, const char *name)
{
    return part->name.length == strlen(name) && memcmp(part->name.at, name, strlen(name)) == 0;
}

static enum status set_field(struct body *body, const struct part *part, bool seen[2])
{
    bool top_k = is_named(part, "top_k");
    const char *name = top_k ? "top_k" : "logits";
    char *field = top_k ? body->top_k : body->logits;
    struct slice value = part->data;
    while (value.length > 0 && memchr(" \t\r\n", value.at[value.length - 1], 4))
        value.length--;
    if (seen[top_k])
        return status_fail(STATUS_BAD_REQUEST, "multipart: the form field \"%s\" comes twice",
                           name);
    if (value.length >= sizeof body->top_k || memchr(value.at, '\0', value.length))
        return status_fail(STATUS_BAD_REQUEST, "multipart: the form field \"%s\" is no short text",
                           name);
    seen[top_k] = true;
    memcpy(field, value.at, value.length);
    field[value.length] = '\0';
    return STATUS_OK;
}

// Whether a part without a file name is an image all the same, as clients send one that they hold
// in memory. Its type says so, or else its bytes: every image format has control characters that no
// text has, and text is a field that we do not know.
static bool is_image(const struct part *part)
{
    static const char *const types[] = {"image/", "application/octet-stream"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (part->type.length >= strlen(types[i]) &&
            strncasecmp(part->type.at, types[i], strlen(types[i])) == 0)
            return true;
    for (size_t i = 0; i < part->data.length; i++) {
        unsigned char c = (unsigned char)part->data.at[i];
        if (c < ' ' && !memchr("\t\n\v\f\r\033", c, 6))
            return true;
    }
    return false;
}

// Puts what base64 stands for in the place of the part's data.
static enum status decode_part(struct body *body, struct form *form, struct part *part)
{
    size_t length;
    if (!body->decoded) { // room for this part and all that follow
        size_t most = base64_max_bytes((size_t)(form->parts.end - part->data.at));
        TRY(charge(body, most));
        body->decoded = malloc(most + 1);
        if (!body->decoded)
            return status_fail(STATUS_OUT_OF_MEMORY, "no memory for images of %zu bytes", most);
    }
    uint8_t *bytes = body->decoded + form->used;
    enum status status = base64_decode(part->data.at, part->data.length, bytes, &length);
    if (status != STATUS_OK) {
        char problem[256];
        snprintf(problem, sizeof problem, "%s", status_detail(status));
        return status_fail(status, "multipart: a part in base64: %s", problem);
    }
    part->data = (struct slice){(const char *)bytes, length};
    form->used += length;
    return STATUS_OK;
}

static enum status take_part(struct body *body, struct form *form, struct part *part)
{
    char name[sizeof body->images->name];
    if (part->base64)
        TRY(decode_part(body, form, part));
    if (!part->is_file && (is_named(part, "top_k") || is_named(part, "logits")))
        return set_field(body, part, form->seen);
    // A file field of a page that was left empty has an empty name, and no bytes.
    bool left_empty =
        part->is_file && part->name.length + part->extended.length == 0 && part->data.length == 0;
    if (left_empty || (!part->is_file && !is_image(part)))
        return STATUS_OK;
    struct slice file_name = {name, multipart_file_name(part, name, sizeof name)};
    return add_image(body, file_name, part->data, form->max_images);
}

static enum status parse_form(struct body *body, const char *content_type, int max_images)
{
    struct form form = {.max_images = max_images};
    struct part part;
    bool found;
    TRY(multipart_begin(&form.parts, content_type, body->plain.bytes, body->plain.length));
    for (;;) {
        TRY(multipart_next(&form.parts, &part, &found));
        if (!found)
            break;
        TRY(take_part(body, &form, &part));
    }
    if (body->count == 0)
        return status_fail(STATUS_NO_IMAGE, "the form holds no file and no part that is an image");
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
        if (json_is_null(value)) // what clients that dump a whole object write for what is absent
            continue;
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

bool body_is_json(const char *content_type)
{
    return has_type(content_type, "application/json");
}

static enum status parse_image(struct body *body, int max_images)
{
    struct slice bytes = {(const char *)body->plain.bytes, body->plain.length};
    size_t start = utf8_mark(bytes.at, bytes.length);
    while (start < bytes.length && memchr(" \t\r\n", bytes.at[start], 4))
        start++;
    if (start < bytes.length && bytes.at[start] == '{')
        return status_fail(STATUS_UNSUPPORTED_IMAGE,
                           "not a format we know; JPEG, PNG and WebP are supported; JSON is sent "
                           "with \"Content-Type: application/json\"");
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
    if (body_is_json(source->content_type))
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
