#pragma once
// The models we know: config/models.json, embedded in the binary. An entry is everything about a
// model but its weights.

#include "preprocess.h"
#include "vit.h"

struct catalog_entry {
    char name[64];
    struct vit_dims dims;
    struct preprocess preprocess;
    char labels[64];                   // which built-in list of class names; "" for none
    const char *weights, *weights_end; // the built-in checkpoint (safetensors); NULL for none
    char url[128];                     // of the published checkpoint; "" for none that we know
    char sha256[65];                   // its SHA-256, or the first 8 digits and more of it
};

struct catalog;

// Parses the embedded catalogue. Fails only where the binary was built from a bad models.json.
enum status catalog_open(struct catalog **catalog) CHECKED;

// The same over a text. STATUS_INTERNAL names the model, the field and what was expected.
enum status catalog_parse(const char *text, size_t length, struct catalog **catalog) CHECKED;
void catalog_close(struct catalog *catalog);

// STATUS_USAGE if there is no such model: the detail lists those there are.
enum status catalog_find(const struct catalog *catalog, const char *name,
                         const struct catalog_entry **entry) CHECKED;

// The names of K classes, line n = class n.
struct labels;

// path: a file, or NULL for the entry's built-in list. STATUS_IO, or STATUS_USAGE where the file
// does not hold exactly K lines.
enum status labels_open(const struct catalog_entry *entry, const char *path,
                        struct labels **labels) CHECKED;
const char *labels_name(const struct labels *labels, int class_index);
void labels_close(struct labels *labels);
