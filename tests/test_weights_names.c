// server/weights_names.c: one network of random weights, written under the names of each layout, in
// fp32 and in fp64, gives the same tensors; what is said of a file under Hugging Face's names that
// does not fit. The names are spelled here once more, in the order of the table of weights.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "vit.h"
#include "weights.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Twelve layers, so that numbers of two digits occur.
static const struct vit_dims small = {
    .S = 8, .P = 4, .C = 4, .L = 12, .NH = 2, .M = 6, .K = 3, .epsilon = 1e-6f};

enum {
    FIRST_ROWS = 4,
    LAYER_ROWS = 12,
    LAST_ROWS = 4,
    ROWS = FIRST_ROWS + 12 * LAYER_ROWS + LAST_ROWS
};
enum { IN_PROJ = 2, MAX_VALUES = 192, MAX_TENSORS = ROWS + 12 * 4 };
enum { TORCHVISION, LEGACY, TIMM, HUGGING_FACE, LAYOUTS };

// %zu: the layer.
static const struct {
    const char *first[FIRST_ROWS], *layer[LAYER_ROWS / 2], *last[LAST_ROWS / 2];
} names[LAYOUTS] = {
    [TORCHVISION] = {{"class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding"},
                     {"encoder.layers.encoder_layer_%zu.ln_1.",
                      "encoder.layers.encoder_layer_%zu.self_attention.in_proj_",
                      "encoder.layers.encoder_layer_%zu.self_attention.out_proj.",
                      "encoder.layers.encoder_layer_%zu.ln_2.",
                      "encoder.layers.encoder_layer_%zu.mlp.0.",
                      "encoder.layers.encoder_layer_%zu.mlp.3."},
                     {"encoder.ln.", "heads.head."}},
    [LEGACY] = {{"class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding"},
                {"encoder.layers.encoder_layer_%zu.ln_1.",
                 "encoder.layers.encoder_layer_%zu.self_attention.in_proj_",
                 "encoder.layers.encoder_layer_%zu.self_attention.out_proj.",
                 "encoder.layers.encoder_layer_%zu.ln_2.",
                 "encoder.layers.encoder_layer_%zu.mlp.linear_1.",
                 "encoder.layers.encoder_layer_%zu.mlp.linear_2."},
                {"encoder.ln.", "heads.head."}},
    [TIMM] = {{"cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"},
              {"blocks.%zu.norm1.", "blocks.%zu.attn.qkv.", "blocks.%zu.attn.proj.",
               "blocks.%zu.norm2.", "blocks.%zu.mlp.fc1.", "blocks.%zu.mlp.fc2."},
              {"norm.", "head."}},
    [HUGGING_FACE] =
        {{"vit.embeddings.cls_token", "vit.embeddings.patch_embeddings.projection.weight",
          "vit.embeddings.patch_embeddings.projection.bias", "vit.embeddings.position_embeddings"},
         {"vit.encoder.layer.%zu.layernorm_before.", "vit.encoder.layer.%zu.attention.attention.",
          "vit.encoder.layer.%zu.attention.output.dense.", "vit.encoder.layer.%zu.layernorm_after.",
          "vit.encoder.layer.%zu.intermediate.dense.", "vit.encoder.layer.%zu.output.dense."},
         {"vit.layernorm.", "classifier."}},
};

struct tensor {
    char name[96];
    struct tensor_info info; // for the shape
    const float *values;
};

// A network before it is written.
struct network {
    struct tensor_info *rows;
    float values[ROWS][MAX_VALUES];
    struct tensor tensors[MAX_TENSORS + 1]; // room for a surplus one
    size_t count;
};

static void make_network(struct network *network)
{
    size_t count;
    struct weights *random;
    assert_int_equal(vit_list_weights(&small, &network->rows, &count), STATUS_OK);
    assert_int_equal(count, ROWS);
    assert_int_equal(weights_open_random(5, &random), STATUS_OK);
    for (size_t i = 0; i < ROWS; i++) {
        assert_true(tensor_count(&network->rows[i]) <= MAX_VALUES);
        assert_int_equal(weights_read(random, &network->rows[i], network->values[i]), STATUS_OK);
    }
    weights_close(random);
}

static void add(struct network *network, const char *stem, size_t layer, const char *part,
                size_t row)
{
    struct tensor *tensor = &network->tensors[network->count++];
    char pattern[96];
    snprintf(pattern, sizeof pattern, "%s%s", stem, part);
    const char *hole = strstr(pattern, "%zu");
    if (hole)
        snprintf(tensor->name, sizeof tensor->name, "%.*s%zu%s", (int)(hole - pattern), pattern,
                 layer, hole + 3);
    else
        snprintf(tensor->name, sizeof tensor->name, "%s", pattern);
    tensor->info = network->rows[row];
    tensor->values = network->values[row];
}

// Query, key and value: thirds of what we hold as one.
static void add_apart(struct network *network, const char *stem, size_t layer, const char *part,
                      size_t row)
{
    static const char *const thirds[] = {"query.", "key.", "value."};
    for (int i = 0; i < 3; i++) {
        char full[96];
        snprintf(full, sizeof full, "%s%s", stem, thirds[i]);
        add(network, full, layer, part, row);
        struct tensor *tensor = &network->tensors[network->count - 1];
        tensor->info.shape[0] /= 3;
        tensor->values += i * tensor_count(&tensor->info);
    }
}

static void name_tensors(struct network *network, int layout)
{
    network->count = 0;
    for (size_t row = 0; row < ROWS; row++) {
        const size_t inner = row - FIRST_ROWS, last = ROWS - LAST_ROWS;
        const char *part = row % 2 ? "bias" : "weight";
        if (row < FIRST_ROWS)
            add(network, names[layout].first[row], 0, "", row);
        else if (row >= last)
            add(network, names[layout].last[(row - last) / 2], 0, part, row);
        else if (layout == HUGGING_FACE && inner % LAYER_ROWS / 2 == IN_PROJ / 2)
            add_apart(network, names[layout].layer[1], inner / LAYER_ROWS, part, row);
        else
            add(network, names[layout].layer[inner % LAYER_ROWS / 2], inner / LAYER_ROWS, part,
                row);
    }
}

static void write_tensor(FILE *file, const struct tensor *tensor, size_t size)
{
    for (int64_t i = 0; i < tensor_count(&tensor->info); i++) {
        const double wide = tensor->values[i];
        fwrite(size == 8 ? (const void *)&wide : &tensor->values[i], size, 1, file);
    }
}

// Of 4 or 8 bytes an element.
static struct weights *write_and_open(const struct network *network, size_t size)
{
    char path[] = "/tmp/test_weights_names_XXXXXX";
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    FILE *file = fdopen(descriptor, "wb");
    assert_non_null(file);
    json_t *header = json_object();
    int64_t end = 0;
    for (size_t i = 0; i < network->count; i++) {
        const struct tensor_info *info = &network->tensors[i].info;
        const int64_t begin = end;
        json_t *shape = json_array();
        for (int j = 0; j < info->rank; j++)
            json_array_append_new(shape, json_integer(info->shape[j]));
        end += tensor_count(info) * (int64_t)size;
        json_object_set_new(header, network->tensors[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", size == 8 ? "F64" : "F32",
                                      "shape", shape, "data_offsets", (json_int_t)begin,
                                      (json_int_t)end));
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    const uint64_t length = strlen(text);
    fwrite(&length, 8, 1, file);
    fputs(text, file);
    free(text);
    for (size_t i = 0; i < network->count; i++)
        write_tensor(file, &network->tensors[i], size);
    assert_int_equal(fclose(file), 0);
    struct weights *weights;
    const enum status status = weights_open(path, &weights);
    unlink(path);
    if (status != STATUS_OK)
        fail_msg("%s", status_detail(status));
    return weights;
}

static void test_layouts(void **state)
{
    (void)state;
    static struct network network;
    make_network(&network);
    for (int layout = 0; layout < LAYOUTS; layout++) {
        name_tensors(&network, layout);
        assert_int_equal(network.count, layout == HUGGING_FACE ? MAX_TENSORS : ROWS);
        for (size_t size = 4; size <= 8; size += 4) {
            struct weights *weights = write_and_open(&network, size);
            const enum status status = weights_check(weights, network.rows, ROWS);
            if (status != STATUS_OK)
                fail_msg("%s", status_detail(status));
            for (size_t i = 0; i < ROWS; i++) {
                float values[MAX_VALUES + 1];
                const size_t count = (size_t)tensor_count(&network.rows[i]);
                values[count] = 77;
                assert_int_equal(weights_read(weights, &network.rows[i], values), STATUS_OK);
                assert_memory_equal(values, network.values[i], count * sizeof values[0]);
                assert_true(values[count] == 77);
            }
            weights_close(weights);
        }
    }
    free(network.rows);
}

static void expect_refused(const struct network *network, const char *words)
{
    struct weights *weights = write_and_open(network, 4);
    const enum status status = weights_check(weights, network->rows, ROWS);
    if (status != STATUS_BAD_WEIGHTS || !strstr(status_detail(status), words))
        fail_msg("expected \"%s\", got %s: %s", words, status_code(status), status_detail(status));
    weights_close(weights);
}

static struct tensor *find(struct network *network, const char *name)
{
    for (size_t i = 0; i < network->count; i++)
        if (strcmp(network->tensors[i].name, name) == 0)
            return &network->tensors[i];
    fail_msg("no %s", name);
    return NULL;
}

static void test_what_does_not_fit(void **state)
{
    (void)state;
    static const char key[] = "vit.encoder.layer.11.attention.attention.key.weight";
    static struct network network;
    make_network(&network);
    name_tensors(&network, HUGGING_FACE);
    find(&network, key)->info.shape[0] = 5;
    expect_refused(&network, "tensor \"vit.encoder.layer.11.attention.attention.key.weight\" "
                             "(encoder.layers.encoder_layer_11.self_attention.in_proj_weight): "
                             "expected shape [4, 4], found [5, 4]");
    find(&network, key)->info.shape[0] = 4;
    snprintf(find(&network, key)->name, 96, "vit.encoder.layer.11.attention.attention.qkv.weight");
    expect_refused(&network, "attention.key.weight\" (encoder.layers.encoder_layer_11."
                             "self_attention.in_proj_weight) is missing: expected shape [4, 4]");
    name_tensors(&network, HUGGING_FACE);
    add(&network, "vit.pooler.dense.bias", 0, "", 0);
    expect_refused(&network, "tensor \"vit.pooler.dense.bias\" of shape [1, 1, 4] has no place in "
                             "this model, which expects 200 tensors (the file holds 201)");
    free(network.rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
