// server/weights.c over files: the layouts of names, and what weights_check() says of a file that
// does not fit.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "vit.h"
#include "written_checkpoint.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect_detail(enum status status, const char *words)
{
    if (status != STATUS_BAD_WEIGHTS || !strstr(status_detail(status), words))
        fail_msg("expected \"%s\", got %s: %s", words, status_code(status), status_detail(status));
}

enum { TORCHVISION, LEGACY, TIMM, LAYOUTS, FIRST_ROWS = 4, LAYER_ROWS = 12, LAST_ROWS = 4 };

// In the order of the table of vit.c; a stem of a layer has a weight and a bias.
static const char *const timm_first[FIRST_ROWS] = {"cls_token", "patch_embed.proj.weight",
                                                   "patch_embed.proj.bias", "pos_embed"};
static const char *const timm_stems[LAYER_ROWS / 2] = {"norm1", "attn.qkv", "attn.proj",
                                                       "norm2", "mlp.fc1",  "mlp.fc2"};
static const char *const timm_last[LAST_ROWS] = {"norm.weight", "norm.bias", "head.weight",
                                                 "head.bias"};

// Twelve layers, so that numbers of two digits occur.
static const struct vit_dims small = {
    .S = 8, .P = 4, .C = 4, .L = 12, .NH = 2, .M = 6, .K = 3, .epsilon = 1e-6f};

enum { ROWS = FIRST_ROWS + 12 * LAYER_ROWS + LAST_ROWS, MAX_VALUES = 192 };

// A checkpoint of `small` in one layout, before it is written.
struct checkpoint {
    struct tensor_info *rows;
    struct source sources[ROWS + 1]; // room for a surplus one
    char names[ROWS][96];
    float data[ROWS][MAX_VALUES]; // value j of row i is i + j / 256
};

static void name_row(char name[96], int layout, size_t i, const char *canonical)
{
    const char *mlp = strstr(canonical, "mlp.");
    if (layout == LEGACY && mlp)
        snprintf(name, 96, "%.*smlp.linear_%d%s", (int)(mlp - canonical), canonical,
                 mlp[4] == '0' ? 1 : 2, mlp + 5);
    else if (layout != TIMM)
        snprintf(name, 96, "%s", canonical);
    else if (i < FIRST_ROWS)
        snprintf(name, 96, "%s", timm_first[i]);
    else if (i >= ROWS - LAST_ROWS)
        snprintf(name, 96, "%s", timm_last[i - (ROWS - LAST_ROWS)]);
    else
        snprintf(name, 96, "blocks.%zu.%s.%s", (i - FIRST_ROWS) / LAYER_ROWS,
                 timm_stems[(i - FIRST_ROWS) % LAYER_ROWS / 2], i % 2 ? "bias" : "weight");
}

static void make_checkpoint(struct checkpoint *checkpoint, int layout)
{
    size_t count;
    assert_int_equal(vit_list_weights(&small, &checkpoint->rows, &count), STATUS_OK);
    assert_int_equal(count, ROWS);
    for (size_t i = 0; i < ROWS; i++) {
        name_row(checkpoint->names[i], layout, i, checkpoint->rows[i].name);
        assert_true(tensor_count(&checkpoint->rows[i]) <= MAX_VALUES);
        for (size_t j = 0; j < MAX_VALUES; j++)
            checkpoint->data[i][j] = (float)i + (float)j / 256;
        checkpoint->sources[i] =
            (struct source){checkpoint->names[i], "F32", &checkpoint->rows[i], checkpoint->data[i]};
    }
}

static void test_layouts(void **state)
{
    (void)state;
    static struct checkpoint checkpoint;
    for (int layout = 0; layout < LAYOUTS; layout++) {
        make_checkpoint(&checkpoint, layout);
        // The data behind a header of any length, so at any alignment.
        for (int pad = 0; pad < 4; pad++) {
            write_checkpoint(checkpoint.sources, ROWS, pad);
            struct weights *weights = open_ok(checkpoint_path);
            assert_string_equal(weights_source(weights), "file");
            check_ok(weights, checkpoint.rows, ROWS);
            for (size_t i = 0; i < ROWS; i++) {
                float values[MAX_VALUES + 1];
                const size_t count = (size_t)tensor_count(&checkpoint.rows[i]);
                values[count] = -1;
                assert_int_equal(weights_read(weights, &checkpoint.rows[i], values), STATUS_OK);
                assert_memory_equal(values, checkpoint.data[i], count * sizeof values[0]);
                assert_true(values[count] == -1);
            }
            weights_close(weights);
        }
        free(checkpoint.rows);
    }
    weights_close(NULL);
}

// Writes the first sources, and expects weights_check() to say words.
static void expect_refused(const struct checkpoint *checkpoint, size_t count, const char *words)
{
    write_checkpoint(checkpoint->sources, count, 0);
    struct weights *weights = open_ok(checkpoint_path);
    expect_detail(weights_check(weights, checkpoint->rows, ROWS), words);
    weights_close(weights);
}

static void test_what_does_not_fit(void **state)
{
    (void)state;
    static struct checkpoint c;
    static const float data[64];
    const struct tensor_info seven = {"", 1, {7}}, column = {"", 2, {4, 1}};

    make_checkpoint(&c, TIMM);
    expect_refused(&c, ROWS - 1,
                   "model.safetensors: tensor \"head.bias\" (heads.head.bias) is missing: "
                   "expected shape [3]");
    c.sources[ROWS] = (struct source){"dist_token", "F32", &seven, data};
    expect_refused(&c, ROWS + 1,
                   "tensor \"dist_token\" of shape [7] has no place in this model, which expects "
                   "152 tensors (the file holds 153)");
    c.sources[ROWS].name = "zz"; // the last by its name too
    expect_refused(&c, ROWS + 1, "tensor \"zz\" of shape [7] has no place");
    // Torchvision's own names are no part of timm's layout.
    c.sources[ROWS].name = "encoder.ln.weight";
    expect_refused(&c, ROWS + 1, "tensor \"encoder.ln.weight\" of shape [7] has no place");
    const size_t row = FIRST_ROWS + 11 * LAYER_ROWS; // of layer 11: ln_1.weight
    c.sources[row].info = &seven;
    expect_refused(&c, ROWS,
                   "tensor \"blocks.11.norm1.weight\" "
                   "(encoder.layers.encoder_layer_11.ln_1.weight): expected shape [4], found [7]");
    free(c.rows);

    make_checkpoint(&c, TORCHVISION);
    c.sources[row + 1].info = &column;
    expect_refused(&c, ROWS,
                   "tensor \"encoder.layers.encoder_layer_11.ln_1.bias\": expected shape [4], "
                   "found [4, 1]");
    expect_refused(&c, 2, "tensor \"conv_proj.bias\" is missing: expected shape [4]");
    free(c.rows);
}

// One tensor has this shape; all the others fit.
static void expect_shape_refused(struct checkpoint *c, size_t row, const struct tensor_info *wrong)
{
    static const float data[1024];
    char words[128];
    assert_true(tensor_count(wrong) <= 1024);
    c->sources[row].info = wrong;
    c->sources[row].data = data;
    snprintf(words, sizeof words, "tensor \"%s\"", c->names[row]);
    expect_refused(c, ROWS, words);
    assert_non_null(strstr(status_detail(STATUS_BAD_WEIGHTS), ": expected shape ["));
    c->sources[row].info = &c->rows[row];
    c->sources[row].data = c->data[row];
}

// Of each tensor, each side that is too long, and each two that are exchanged.
static void test_every_side_counts(void **state)
{
    (void)state;
    static struct checkpoint c;
    for (int layout = TORCHVISION; layout <= TIMM; layout += TIMM) {
        make_checkpoint(&c, layout);
        for (size_t row = 0; row < ROWS; row++) {
            if (row >= FIRST_ROWS + LAYER_ROWS && row < ROWS - LAST_ROWS)
                continue; // as in the first layer
            for (int side = 0; side < c.rows[row].rank; side++) {
                struct tensor_info wrong = c.rows[row];
                wrong.shape[side]++;
                expect_shape_refused(&c, row, &wrong);
                wrong = c.rows[row];
                const int64_t *before = &c.rows[row].shape[side > 0 ? side - 1 : 0];
                wrong.shape[side > 0 ? side - 1 : 0] = c.rows[row].shape[side];
                wrong.shape[side] = *before;
                if (*before != c.rows[row].shape[side])
                    expect_shape_refused(&c, row, &wrong);
            }
        }
        free(c.rows);
    }
}

static void test_what_cannot_be_opened(void **state)
{
    (void)state;
    struct weights *weights = (struct weights *)1;
    const struct tensor_info info = {"", 1, {2}};
    const float data[2] = {0};
    const struct source source = {"deit.embeddings.cls_token", "F32", &info, data};
    write_checkpoint(&source, 1, 0);
    expect_detail(weights_open(checkpoint_path, &weights),
                  "model.safetensors: not a Vision Transformer of a known layout: expected one of "
                  "\"cls_token\" (timm), ");
    assert_non_null(strstr(status_detail(STATUS_BAD_WEIGHTS),
                           "\"vit.embeddings.cls_token\" (Hugging Face), "
                           "\"class_token\" (torchvision)"));
    assert_null(weights);
    assert_int_equal(weights_open("/tmp/no/such.safetensors", &weights), STATUS_IO);
    assert_null(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_every_side_counts),
        cmocka_unit_test(test_what_cannot_be_opened),
    };
    return cmocka_run_group_tests(tests, checkpoint_set_up, checkpoint_tear_down);
}
