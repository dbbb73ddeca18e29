// server/weights.c over files: the layouts of names, what weights_check() says of a file that does
// not fit, and the exact conversion of every 16-bit value.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "vit.h"
#include "weights.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/test_weights_XXXXXX";
static char path[64]; // of the file that the tests write over and over

static int set_up(void **state)
{
    (void)state;
    const char *made = mkdtemp(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    return made ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

struct source {
    const char *name, *dtype;
    const struct tensor_info *info; // for the shape
    const void *data;
};

// pad: blanks behind the header, to shift the alignment of the data.
static void write_checkpoint(const struct source *sources, size_t count, int pad)
{
    json_t *header = json_object();
    int64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        const int64_t begin = end;
        json_t *shape = json_array();
        for (int j = 0; j < sources[i].info->rank; j++)
            json_array_append_new(shape, json_integer(sources[i].info->shape[j]));
        end += tensor_count(sources[i].info) * (strcmp(sources[i].dtype, "F32") == 0 ? 4 : 2);
        json_object_set_new(header, sources[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", sources[i].dtype, "shape",
                                      shape, "data_offsets", (json_int_t)begin, (json_int_t)end));
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    const uint64_t length = strlen(text) + (uint64_t)pad;
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(&length, 8, 1, file);
    fprintf(file, "%s%*s", text, pad, "");
    for (size_t i = 0; i < count; i++)
        fwrite(sources[i].data, (size_t)tensor_count(sources[i].info),
               strcmp(sources[i].dtype, "F32") == 0 ? 4 : 2, file);
    assert_int_equal(fclose(file), 0);
    free(text);
}

static struct weights *open_ok(const char *file)
{
    struct weights *weights;
    const enum status status = weights_open(file, &weights);
    if (status != STATUS_OK)
        fail_msg("%s: %s", file, status_detail(status));
    return weights;
}

static void check_ok(struct weights *weights, const struct tensor_info *rows, size_t count)
{
    const enum status status = weights_check(weights, rows, count);
    if (status != STATUS_OK)
        fail_msg("%s", status_detail(status));
}

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
            struct weights *weights = open_ok(path);
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
    struct weights *weights = open_ok(path);
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

static void test_what_cannot_be_opened(void **state)
{
    (void)state;
    struct weights *weights = (struct weights *)1;
    const struct tensor_info info = {"", 1, {2}};
    const float data[2] = {0};
    const struct source source = {"deit.embeddings.cls_token", "F32", &info, data};
    write_checkpoint(&source, 1, 0);
    expect_detail(weights_open(path, &weights),
                  "model.safetensors: not a Vision Transformer of a known layout: expected one of "
                  "\"cls_token\" (timm), ");
    assert_non_null(strstr(status_detail(STATUS_BAD_WEIGHTS),
                           "\"vit.embeddings.cls_token\" (Hugging Face), "
                           "\"class_token\" (torchvision)"));
    assert_null(weights);
    assert_int_equal(weights_open("/tmp/no/such.safetensors", &weights), STATUS_IO);
    assert_null(weights);
}

static float half_value(uint16_t half)
{
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    double value;
    if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexp(fraction, -24);
    else
        value = ldexp(1024 + fraction, exponent - 25);
    return (float)(half >> 15 ? -value : value);
}

// Every 16-bit pattern, from one file of two tensors.
static void test_conversions(void **state)
{
    (void)state;
    enum { COUNT = 65536 };
    static uint16_t patterns[COUNT];
    static float values[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        patterns[i] = (uint16_t)i;
    const struct tensor_info rows[2] = {{"class_token", 1, {COUNT}},
                                        {"encoder.ln.bias", 1, {COUNT}}};
    const struct source sources[2] = {{"class_token", "F16", &rows[0], patterns},
                                      {"encoder.ln.bias", "BF16", &rows[1], patterns}};
    write_checkpoint(sources, 2, 0);
    struct weights *weights = open_ok(path);
    check_ok(weights, rows, 2);
    assert_int_equal(weights_read(weights, &rows[0], values), STATUS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const float expected = half_value((uint16_t)i);
        if (isnan(expected))
            assert_true(isnan(values[i]));
        else
            assert_memory_equal(&values[i], &expected, sizeof expected);
    }
    assert_int_equal(weights_read(weights, &rows[1], values), STATUS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const uint32_t expected = (uint32_t)i << 16;
        assert_memory_equal(&values[i], &expected, sizeof expected);
    }
    weights_close(weights);
}

// Pages of mapped files that this process holds.
static long file_kilobytes(void)
{
    char line[256];
    long kilobytes = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "RssFile: %ld", &kilobytes) == 1)
            break;
    if (file)
        fclose(file);
    return kilobytes;
}

static void test_pages_are_dropped(void **state)
{
    (void)state;
    enum { COUNT = 8 << 20 };
    const struct tensor_info row = {"class_token", 1, {COUNT}};
    float *data = calloc(COUNT, sizeof *data), *values = calloc(COUNT, sizeof *values);
    assert_true(data && values);
    data[COUNT - 1] = 5;
    const struct source source = {"class_token", "F32", &row, data};
    write_checkpoint(&source, 1, 0);
    struct weights *weights = open_ok(path);
    const long before = file_kilobytes();
    if (before < 0) {
        print_message("no /proc/self/status here\n");
        skip();
    }
    assert_int_equal(weights_read(weights, &row, values), STATUS_OK);
    assert_true(file_kilobytes() - before < 4096); // of 32768
    assert_true(values[COUNT - 1] == 5);
    values[COUNT - 1] = 0;
    assert_int_equal(weights_read(weights, &row, values), STATUS_OK); // the pages come back
    assert_true(values[COUNT - 1] == 5);
    weights_close(weights);
    free(values);
    free(data);
}

// Files that PyTorch wrote, in the three layouts and the three types.
static void test_golden_networks(void **state)
{
    (void)state;
    static const char *const networks[] = {"hs16_f32", "hs80_bf16", "hs64_f16"};
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++) {
        char file[512];
        snprintf(file, sizeof file, GOLDEN_DIR "/networks/%s.json", networks[i]);
        json_t *network = json_load_file(file, 0, NULL);
        assert_non_null(network);
        struct vit_dims d;
        assert_int_equal(json_unpack(network, "{s:{s:i, s:i, s:i, s:i, s:i, s:i}}", "dims",
                                     "image_size", &d.S, "patch_size", &d.P, "hidden_size", &d.C,
                                     "num_layers", &d.L, "mlp_size", &d.M, "num_classes", &d.K),
                         0);
        struct tensor_info *rows;
        size_t count;
        assert_int_equal(vit_list_weights(&d, &rows, &count), STATUS_OK);
        snprintf(file, sizeof file, GOLDEN_DIR "/networks/%s",
                 json_string_value(json_object_get(network, "weights")));
        struct weights *weights = open_ok(file);
        check_ok(weights, rows, count);
        weights_close(weights);
        free(rows);
        json_decref(network);
    }
}

static void test_deit_tiny(void **state)
{
    (void)state;
    const char *shared = getenv("VITSERVE_SHARED");
    char file[512];
    snprintf(file, sizeof file, "%s/data/deit_tiny_patch16_224.timm.safetensors",
             shared ? shared : GOLDEN_DIR "/../../../shared");
    if (access(file, R_OK) != 0) {
        print_message("no %s\n", file);
        skip();
    }
    const struct vit_dims dims = {
        .S = 224, .P = 16, .C = 192, .L = 12, .NH = 3, .M = 768, .K = 1000};
    struct tensor_info *rows;
    size_t count;
    int64_t parameters = 0;
    assert_int_equal(vit_list_weights(&dims, &rows, &count), STATUS_OK);
    assert_int_equal(count, 152);
    struct weights *weights = open_ok(file);
    check_ok(weights, rows, count);
    float *values = malloc(768 * 768 * sizeof *values); // the largest is the patch embedding
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        assert_true(tensor_count(&rows[i]) <= 768 * 768);
        assert_int_equal(weights_read(weights, &rows[i], values), STATUS_OK);
        for (int64_t j = 0; j < tensor_count(&rows[i]); j++)
            assert_true(fabsf(values[j]) < 100);
        parameters += tensor_count(&rows[i]);
    }
    assert_int_equal(parameters, 5717416);
    free(values);
    weights_close(weights);
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_what_cannot_be_opened),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_pages_are_dropped),
        cmocka_unit_test(test_golden_networks),
        cmocka_unit_test(test_deit_tiny),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
