// See include/catalog.h. models.json is part of the binary, but people edit it: every field is
// checked, so that the code behind can divide and allocate by what it finds here.

#include "catalog.h"
#include "assets.h"
#include "memory.h"
#include "utf8.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct catalog {
    struct catalog_entry *entries;
    size_t count;
};

struct labels {
    char *text; // the lines, each zero-terminated
    const char **names;
};

// What models.json names and the binary holds.
struct builtin {
    const char *name, *begin, *end;
};

static const struct builtin builtin_labels[] = {
    {"imagenet1k", asset_imagenet1k_txt, asset_imagenet1k_txt_end},
    {"fashion_vit", asset_fashion_vit_labels_txt, asset_fashion_vit_labels_txt_end},
    {NULL, NULL, NULL},
};
static const struct builtin builtin_weights[] = {
    {"fashion_vit", asset_fashion_vit_safetensors, asset_fashion_vit_safetensors_end},
    {NULL, NULL, NULL},
};

enum { MAX_LABELS_BYTES = 16 << 20 }; // far above any list of class names

// An object of models.json, and where it stands for errors: "vit_b_16: architecture".
struct section {
    const char *entry, *name;
    json_t *object;
};

static enum status bad_field(const struct section *section, const char *field, const char *problem)
{
    return status_fail(STATUS_INTERNAL, "models.json: %.64s: %s%s%.64s: %s", section->entry,
                       section->name, section->name[0] ? "." : "", field, problem);
}

// Every key is one of the fields; that none is missing shows when they are read.
static enum status check_keys(const struct section *section, const char *const *fields)
{
    if (!json_is_object(section->object))
        return status_fail(STATUS_INTERNAL, "models.json: %.64s%s%s: expected an object",
                           section->entry, section->name[0] ? ": " : "", section->name);
    for (void *i = json_object_iter(section->object); i;
         i = json_object_iter_next(section->object, i)) {
        const char *key = json_object_iter_key(i);
        size_t field = 0;
        while (fields[field] && strcmp(fields[field], key) != 0)
            field++;
        if (!fields[field])
            return bad_field(section, key, "unknown field");
    }
    return STATUS_OK;
}

static enum status read_int(const struct section *section, const char *field, int min, int max,
                            int *value)
{
    const json_t *found = json_object_get(section->object, field);
    const json_int_t number = json_integer_value(found);
    if (!json_is_integer(found) || number < min || number > max) {
        char problem[64];
        snprintf(problem, sizeof problem, "expected an integer in %d..%d", min, max);
        return bad_field(section, field, problem);
    }
    *value = (int)number;
    return STATUS_OK;
}

static enum status check_number(const struct section *section, const char *field,
                                const json_t *found, double min, double max, float *value)
{
    const double number = json_number_value(found);
    if (!json_is_number(found) || number < min || number > max) {
        char problem[64];
        snprintf(problem, sizeof problem, "expected a number in %g..%g", min, max);
        return bad_field(section, field, problem);
    }
    *value = (float)number;
    return STATUS_OK;
}

static enum status read_rgb(const struct section *section, const char *field, double min,
                            double max, float value[3])
{
    const json_t *found = json_object_get(section->object, field);
    if (json_array_size(found) != 3)
        return bad_field(section, field, "expected a list of 3 numbers");
    for (size_t i = 0; i < 3; i++)
        TRY(check_number(section, field, json_array_get(found, i), min, max, &value[i]));
    return STATUS_OK;
}

static enum status read_architecture(const char *entry, json_t *object, struct vit_dims *dims)
{
    static const char *const fields[] = {"image_size",  "patch_size",         "hidden_size",
                                         "num_layers",  "num_heads",          "mlp_size",
                                         "num_classes", "layer_norm_epsilon", NULL};
    const struct section section = {entry, "architecture", object};
    TRY(check_keys(&section, fields));
    TRY(read_int(&section, "image_size", 1, 4096, &dims->S));
    TRY(read_int(&section, "patch_size", 1, dims->S, &dims->P));
    TRY(read_int(&section, "hidden_size", 1, 16384, &dims->C));
    TRY(read_int(&section, "num_layers", 1, 256, &dims->L));
    TRY(read_int(&section, "num_heads", 1, dims->C, &dims->NH));
    TRY(read_int(&section, "mlp_size", 1, 65536, &dims->M));
    TRY(read_int(&section, "num_classes", 1, 1000000, &dims->K));
    TRY(check_number(&section, "layer_norm_epsilon", json_object_get(object, "layer_norm_epsilon"),
                     1e-12, 0.1, &dims->epsilon));
    if (dims->S % dims->P != 0)
        return bad_field(&section, "patch_size", "expected a divisor of image_size");
    if (dims->C % dims->NH != 0)
        return bad_field(&section, "num_heads", "expected a divisor of hidden_size");
    return STATUS_OK;
}

static enum status read_preprocess(const char *entry, json_t *object, int image_size,
                                   struct preprocess *recipe)
{
    static const char *const fields[] = {"resize", "crop", "interpolation", "mean", "std", NULL};
    const struct section section = {entry, "preprocess", object};
    TRY(check_keys(&section, fields));
    TRY(read_int(&section, "crop", 1, 4096, &recipe->crop));
    TRY(read_int(&section, "resize", recipe->crop, 8192, &recipe->resize));
    TRY(read_rgb(&section, "mean", 0, 1, recipe->mean));
    TRY(read_rgb(&section, "std", 0.001, 1, recipe->std));
    if (recipe->crop != image_size)
        return bad_field(&section, "crop", "expected the architecture's image_size");
    const char *name = json_string_value(json_object_get(object, "interpolation"));
    if (name && strcmp(name, "bilinear") == 0)
        recipe->interpolation = INTERPOLATION_BILINEAR;
    else if (name && strcmp(name, "bicubic") == 0)
        recipe->interpolation = INTERPOLATION_BICUBIC;
    else
        return bad_field(&section, "interpolation", "expected \"bilinear\" or \"bicubic\"");
    return STATUS_OK;
}

// NULL where the list has no such name.
static const struct builtin *find_builtin(const struct builtin *list, const char *name)
{
    while (list->name && strcmp(list->name, name) != 0)
        list++;
    return list->name ? list : NULL;
}

// Fields that name something built in; "" or, of the weights, nothing at all for none.
static enum status read_builtins(const struct section *section, struct catalog_entry *entry)
{
    const char *labels = json_string_value(json_object_get(section->object, "labels"));
    const json_t *checkpoint = json_object_get(section->object, "weights");
    if (!labels)
        return bad_field(section, "labels", "expected a string");
    if (labels[0] && !find_builtin(builtin_labels, labels))
        return bad_field(section, "labels", "expected the name of a built-in list or \"\"");
    snprintf(entry->labels, sizeof entry->labels, "%s", labels);
    if (!checkpoint)
        return STATUS_OK;
    const char *weights = json_string_value(checkpoint);
    const struct builtin *found = weights ? find_builtin(builtin_weights, weights) : NULL;
    if (!found)
        return bad_field(section, "weights", "expected the name of a built-in checkpoint");
    entry->weights = found->begin;
    entry->weights_end = found->end;
    return STATUS_OK;
}

static bool begins_sha256(const char *text)
{
    const size_t length = strlen(text);
    return length >= 8 && length <= 64 && strspn(text, "0123456789abcdef") == length;
}

// Where the checkpoint is published, if we know.
static enum status read_download(json_t *object, struct catalog_entry *entry)
{
    static const char *const fields[] = {"url", "sha256_prefix", NULL};
    const struct section section = {entry->name, "download", object};
    if (!object)
        return STATUS_OK;
    TRY(check_keys(&section, fields));
    const char *from = json_string_value(json_object_get(object, "url"));
    const char *digits = json_string_value(json_object_get(object, "sha256_prefix"));
    if (!from || strncmp(from, "https://", 8) != 0 || strlen(from) >= sizeof entry->url)
        return bad_field(&section, "url", "expected at most 127 bytes of https://...");
    if (!digits || !begins_sha256(digits))
        return bad_field(&section, "sha256_prefix", "expected 8..64 lower-case hex digits");
    snprintf(entry->url, sizeof entry->url, "%s", from);
    snprintf(entry->sha256, sizeof entry->sha256, "%s", digits);
    return STATUS_OK;
}

static enum status read_entry(const char *name, json_t *object, struct catalog_entry *entry)
{
    static const char *const fields[] = {"architecture", "preprocess", "labels",
                                         "weights",      "download",   NULL};
    const struct section section = {name, "", object};
    if (snprintf(entry->name, sizeof entry->name, "%s", name) >= (int)sizeof entry->name)
        return bad_field(&section, "name", "expected at most 63 bytes");
    TRY(check_keys(&section, fields));
    TRY(read_architecture(name, json_object_get(object, "architecture"), &entry->dims));
    TRY(read_preprocess(name, json_object_get(object, "preprocess"), entry->dims.S,
                        &entry->preprocess));
    TRY(read_download(json_object_get(object, "download"), entry));
    return read_builtins(&section, entry);
}

static enum status read_entries(json_t *root, struct catalog *catalog)
{
    if (!json_is_object(root) || json_object_size(root) == 0)
        return status_fail(STATUS_INTERNAL, "models.json: expected an object of models");
    catalog->entries = calloc(json_object_size(root), sizeof *catalog->entries);
    if (!catalog->entries)
        return status_fail(STATUS_OUT_OF_MEMORY, "models.json: no memory for %zu models",
                           json_object_size(root));
    const char *name;
    json_t *object;
    json_object_foreach(root, name, object)
    {
        TRY(read_entry(name, object, &catalog->entries[catalog->count]));
        catalog->count++;
    }
    return STATUS_OK;
}

enum status catalog_parse(const char *text, size_t length, struct catalog **catalog)
{
    *catalog = NULL;
    json_error_t error;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    enum status status = STATUS_OK;
    if (!root)
        status = status_fail(STATUS_INTERNAL, "models.json: line %d: %s", error.line, error.text);
    status = memory_check("models.json", status); // a name may have lost a letter for lack of it
    struct catalog *parsed = calloc(1, sizeof *parsed);
    if (!parsed)
        status = status_fail(STATUS_OUT_OF_MEMORY, "models.json: no memory for %zu bytes",
                             sizeof *parsed);
    if (status == STATUS_OK)
        status = read_entries(root, parsed);
    json_decref(root);
    if (status != STATUS_OK) {
        catalog_close(parsed);
        return status;
    }
    *catalog = parsed;
    return STATUS_OK;
}

enum status catalog_open(struct catalog **catalog)
{
    return catalog_parse(asset_models_json, (size_t)(asset_models_json_end - asset_models_json),
                         catalog);
}

void catalog_close(struct catalog *catalog)
{
    if (!catalog)
        return;
    free(catalog->entries);
    free(catalog);
}

enum status catalog_find(const struct catalog *catalog, const char *name,
                         const struct catalog_entry **entry)
{
    char known[384] = "";
    size_t used = 0;
    for (size_t i = 0; i < catalog->count; i++) {
        *entry = &catalog->entries[i];
        if (strcmp((*entry)->name, name) == 0)
            return STATUS_OK;
        if (used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                     (*entry)->name);
    }
    *entry = NULL;
    return status_fail(STATUS_USAGE, "model \"%.64s\": expected one of %s", name, known);
}

// Text is malloc'ed, with one byte to spare behind its length.
static enum status copy_builtin(const struct catalog_entry *entry, char **text, size_t *length)
{
    const struct builtin *list = find_builtin(builtin_labels, entry->labels);
    if (!list)
        return status_fail(STATUS_USAGE, "%s has no built-in class names: give a file of %d lines",
                           entry->name, entry->dims.K);
    *length = (size_t)(list->end - list->begin);
    *text = malloc(*length + 1);
    if (!*text)
        return status_fail(STATUS_OUT_OF_MEMORY, "class names: no memory for %zu bytes", *length);
    memcpy(*text, list->begin, *length);
    return STATUS_OK;
}

static enum status read_file(const char *path, char **text, size_t *length)
{
    enum status status = STATUS_OK;
    FILE *file = fopen(path, "re");
    if (!file)
        return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
    *text = malloc(MAX_LABELS_BYTES + 1);
    if (!*text) {
        status =
            status_fail(STATUS_OUT_OF_MEMORY, "%s: no memory for %d bytes", path, MAX_LABELS_BYTES);
        goto out;
    }
    *length = fread(*text, 1, MAX_LABELS_BYTES, file);
    if (ferror(file))
        status = status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
    else if (*length == MAX_LABELS_BYTES)
        status = status_fail(STATUS_USAGE, "%s: expected less than %d bytes of class names", path,
                             MAX_LABELS_BYTES);
    char *fitting = status == STATUS_OK ? realloc(*text, *length + 1) : NULL;
    if (fitting)
        *text = fitting;
out:
    fclose(file);
    return status;
}

// Cuts the text into lines. Names go into JSON later, which takes UTF-8 alone. Blank lines after
// the last name are what editors and heredocs leave.
static enum status split_lines(struct labels *labels, size_t length, const char *path, int K)
{
    char *line = labels->text + utf8_mark(labels->text, length), *end = labels->text + length;
    int found = 0, named = 0; // lines, and those up to the last that is not blank
    *end = '\n';              // where the last line lacks it
    for (; line < end; found++) {
        char *stop = memchr(line, '\n', (size_t)(end - line) + 1), *next = stop + 1;
        if (stop > line && stop[-1] == '\r')
            stop--;
        *stop = 0;
        if (!utf8_valid(line, (size_t)(stop - line)))
            return status_fail(STATUS_USAGE, "%s: line %d is not UTF-8", path, found + 1);
        if (found < K)
            labels->names[found] = line;
        named = line[strspn(line, " \t")] != '\0' ? found + 1 : named;
        line = next;
    }
    found = found > K && named <= K ? K : found;
    if (found != K)
        return status_fail(STATUS_USAGE, "%s: %d lines, expected %d, one for each class", path,
                           found, K);
    return STATUS_OK;
}

enum status labels_open(const struct catalog_entry *entry, const char *path, struct labels **labels)
{
    enum status status;
    size_t length = 0;
    *labels = NULL;
    struct labels *opened = calloc(1, sizeof *opened);
    if (opened)
        opened->names = calloc((size_t)entry->dims.K, sizeof *opened->names);
    if (!opened || !opened->names)
        status = status_fail(STATUS_OUT_OF_MEMORY, "class names: no memory for %d pointers",
                             entry->dims.K);
    else if (path)
        status = read_file(path, &opened->text, &length);
    else
        status = copy_builtin(entry, &opened->text, &length);
    if (status == STATUS_OK)
        status = split_lines(opened, length, path ? path : entry->labels, entry->dims.K);
    if (status != STATUS_OK) {
        labels_close(opened);
        return status;
    }
    *labels = opened;
    return STATUS_OK;
}

const char *labels_name(const struct labels *labels, int class_index)
{
    return labels->names[class_index];
}

void labels_close(struct labels *labels)
{
    if (!labels)
        return;
    free(labels->names);
    free(labels->text);
    free(labels);
}
