#pragma once
// The names of a Vision Transformer's tensors in the layouts that are around. Inside the program a
// tensor has one name, torchvision's; here is where the others are known.

#include "checkpoint.h"

enum layout {
    LAYOUT_TORCHVISION,
    LAYOUT_TORCHVISION_LEGACY,
    LAYOUT_TIMM,
    LAYOUT_HUGGING_FACE,
    LAYOUT_COUNT
};

// STATUS_BAD_WEIGHTS: the file has none of them. `name` says in the error which file it is.
enum status weights_find_layout(const char *name, const struct checkpoint *file,
                                enum layout *layout) CHECKED;

// How many tensors of a file make one of ours: 1, or 3 where query, key and value lie apart, which
// follow one another in ours.
int weights_parts(enum layout layout, const char *canonical);

struct file_name {
    char text[160];
};

// The name in the file of a canonical name, or of one of its parts.
struct file_name weights_translate(enum layout layout, const char *canonical, int part);
