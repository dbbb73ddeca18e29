#include "weights_names.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A file has a layout if it holds the layout's mark; the first that fits in the order tried here
// is taken, so a mark that another layout has too comes last.
static const struct {
    enum layout layout;
    const char *title, *mark;
} marks[] = {
    {LAYOUT_TIMM, "timm", "cls_token"},
    {LAYOUT_TORCHVISION_LEGACY, "torchvision before 0.14",
     "encoder.layers.encoder_layer_0.mlp.linear_1.weight"},
    {LAYOUT_HUGGING_FACE, "Hugging Face", "vit.embeddings.cls_token"},
    {LAYOUT_TORCHVISION, "torchvision", "class_token"},
};

// How a name begins in each layout; {i} is the number of the encoder layer, {qkv} stands for a
// tensor each of the query, the key and the value. What follows ("weight", "bias") is the same in
// all of them. NULL: as in torchvision. A name without a row is the same everywhere.
static const char *const names[][LAYOUT_COUNT] = {
    {"class_token", NULL, "cls_token", "vit.embeddings.cls_token"},
    {"conv_proj.", NULL, "patch_embed.proj.", "vit.embeddings.patch_embeddings.projection."},
    {"encoder.pos_embedding", NULL, "pos_embed", "vit.embeddings.position_embeddings"},
    {"encoder.layers.encoder_layer_{i}.ln_1.", NULL, "blocks.{i}.norm1.",
     "vit.encoder.layer.{i}.layernorm_before."},
    {"encoder.layers.encoder_layer_{i}.self_attention.in_proj_", NULL, "blocks.{i}.attn.qkv.",
     "vit.encoder.layer.{i}.attention.attention.{qkv}."},
    {"encoder.layers.encoder_layer_{i}.self_attention.out_proj.", NULL, "blocks.{i}.attn.proj.",
     "vit.encoder.layer.{i}.attention.output.dense."},
    {"encoder.layers.encoder_layer_{i}.ln_2.", NULL, "blocks.{i}.norm2.",
     "vit.encoder.layer.{i}.layernorm_after."},
    {"encoder.layers.encoder_layer_{i}.mlp.0.", "encoder.layers.encoder_layer_{i}.mlp.linear_1.",
     "blocks.{i}.mlp.fc1.", "vit.encoder.layer.{i}.intermediate.dense."},
    {"encoder.layers.encoder_layer_{i}.mlp.3.", "encoder.layers.encoder_layer_{i}.mlp.linear_2.",
     "blocks.{i}.mlp.fc2.", "vit.encoder.layer.{i}.output.dense."},
    {"encoder.ln.", NULL, "norm.", "vit.layernorm."},
    {"heads.head.", NULL, "head.", "classifier."},
};

// What follows the pattern in the name, NULL if the name does not begin with it.
static const char *match(const char *pattern, const char *name, int *layer)
{
    const char *hole = strstr(pattern, "{i}");
    const size_t head = hole ? (size_t)(hole - pattern) : strlen(pattern);
    if (strncmp(name, pattern, head) != 0)
        return NULL;
    name += head;
    if (!hole)
        return name;
    char *end;
    *layer = (int)strtol(name, &end, 10);
    const size_t tail = strlen(hole + 3);
    return end > name && strncmp(end, hole + 3, tail) == 0 ? end + tail : NULL;
}

// The pattern of the name in the layout, NULL if it is the canonical one; *rest follows it.
static const char *find_pattern(enum layout layout, const char *canonical, int *layer,
                                const char **rest)
{
    for (size_t row = 0; row < sizeof names / sizeof names[0]; row++) {
        *rest = match(names[row][LAYOUT_TORCHVISION], canonical, layer);
        if (*rest)
            return names[row][layout];
    }
    return NULL;
}

int weights_parts(enum layout layout, const char *canonical)
{
    int layer;
    const char *rest, *pattern = find_pattern(layout, canonical, &layer, &rest);
    return pattern && strstr(pattern, "{qkv}") ? 3 : 1;
}

struct file_name weights_translate(enum layout layout, const char *canonical, int part)
{
    static const char *const parts[] = {"query", "key", "value"};
    struct file_name out = {""};
    int layer = 0;
    const char *rest, *pattern = find_pattern(layout, canonical, &layer, &rest);
    if (!pattern) {
        snprintf(out.text, sizeof out.text, "%s", canonical);
        return out;
    }
    size_t used = 0;
    while (*pattern && used < sizeof out.text) {
        if (strncmp(pattern, "{i}", 3) == 0) {
            used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%d", layer);
            pattern += 3;
        } else if (strncmp(pattern, "{qkv}", 5) == 0) {
            used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%s", parts[part]);
            pattern += 5;
        } else {
            out.text[used++] = *pattern++;
        }
    }
    if (used < sizeof out.text)
        snprintf(out.text + used, sizeof out.text - used, "%s", rest);
    return out;
}

enum status weights_find_layout(const char *name, const struct checkpoint *file,
                                enum layout *layout)
{
    char expected[256] = "";
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        *layout = marks[i].layout;
        if (checkpoint_find(file, marks[i].mark))
            return STATUS_OK;
        const size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, "%s\"%s\" (%s)", i ? ", " : "",
                 marks[i].mark, marks[i].title);
    }
    return status_fail(STATUS_BAD_WEIGHTS,
                       "%s: not a Vision Transformer of a known layout: expected one of %s", name,
                       expected);
}
