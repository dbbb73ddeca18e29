// server/report.c: the Markdown against the table that people compare with, the totals of all
// models against published ones, the JSON against the contract.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "failing_memory.h"
#include "report.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct catalog *catalog;

static int set_up(void **state)
{
    (void)state;
    return catalog_open(&catalog) == STATUS_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    catalog_close(catalog);
    return 0;
}

static const struct catalog_entry *find(const char *name)
{
    const struct catalog_entry *entry;
    assert_int_equal(catalog_find(catalog, name, &entry), STATUS_OK);
    return entry;
}

static char *report(const struct catalog_entry *entry, enum report_format format)
{
    char *text;
    assert_int_equal(report_write(entry, NULL, format, &text), STATUS_OK);
    return text;
}

static char *markdown(const struct catalog_entry *entry)
{
    return report(entry, REPORT_MARKDOWN);
}

static json_t *json(const struct catalog_entry *entry, const struct report_runtime *runtime)
{
    char *text;
    assert_int_equal(report_write(entry, runtime, REPORT_JSON, &text), STATUS_OK);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

static void test_markdown_equals_reference(void **state)
{
    (void)state;
    const char *shared = getenv("VITSERVE_SHARED");
    char path[512], expected[512];
    snprintf(path, sizeof path, "%s/reference/vit_b_32.md",
             shared ? shared : GOLDEN_DIR "/../../../shared");
    FILE *file = fopen(path, "r");
    if (!file) {
        print_message("no %s\n", path);
        skip();
    }
    char *text = markdown(find("vit_b_32"));
    const char *line = text;
    int pictures = 0;
    while (fgets(expected, sizeof expected, file)) {
        const size_t length = strcspn(line, "\n") + 1;
        if (strncmp(expected, "<img", 4) == 0) {
            pictures++;
            snprintf(expected, sizeof expected, "%s",
                     "<img src=\"/model?format=svg\" alt=\"pie_chart\" width=\"500\"/>\n");
        }
        if (strlen(expected) != length || strncmp(expected, line, length) != 0)
            fail_msg("expected %s, got %.*s", expected, (int)length, line);
        line += length;
    }
    assert_string_equal(line, "");
    assert_int_equal(pictures, 1);
    fclose(file);
    free(text);
}

static void test_markdown_of_vit_b_32(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "# vit_b_32 parameter information\n\n**Number of layers: [ 152 ]**\n\n"
        "**Number of parameters: [ 88.22M ]**\n\n**Proportional of each form** (%)\n\n"
        "| Vector | Matrix | Tensor rank 4 | \n|  --- | --- | --- |\n| 66.45 | 32.89 | 0.66 | \n\n"
        "**Proportional of parameters by form** (%)\n\n\n",
        "| 0.14 | 97.19 | 2.67 | \n\n<img src=\"/model?format=svg\" alt=\"pie_chart\" ",
        "\n| class_token | (1, 1, 768) | (768,) | 768 | Vector |\n",
        "\n| encoder.pos_embedding | (1, 50, 768) | (50, 768) | 38400 | Matrix |\n",
        "\n| encoder.layers.encoder_layer_11.mlp.3.weight | (768, 3072) | (768, 3072) | 2359296 | ",
        "\n| heads.head.bias | (1000,) | (1000,) | 1000 | Vector |\n\n",
    };
    char *text = markdown(find("vit_b_32"));
    const char *at = text;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const char *found = strstr(at, parts[i]);
        if (!found)
            fail_msg("missing: %s", parts[i]);
        assert_true(i > 0 || found == text);
        at = found + strlen(parts[i]) - 1; // the next part may begin with this line's end
    }
    assert_string_equal(at, "\n"); // the last part ends the text
    free(text);
}

static json_int_t integer(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void check_string(const json_t *object, const char *name, const char *expected)
{
    const char *value = json_string_value(json_object_get(object, name));
    assert_non_null(value);
    assert_string_equal(value, expected);
}

static void check_real(const json_t *value, double expected)
{
    assert_true(json_is_real(value));
    assert_true(fabs(json_real_value(value) - expected) < 1e-9);
}

// The numbers of parameters that torchvision publishes.
static void test_totals_of_all_models(void **state)
{
    (void)state;
    static const struct {
        const char *name, *human;
        json_int_t layers, parameters;
    } models[] = {
        {"vit_b_16", "86.57M", 152, 86567656},   {"vit_b_32", "88.22M", 152, 88224232},
        {"vit_l_16", "304.33M", 296, 304326632}, {"vit_l_32", "306.54M", 296, 306535400},
        {"vit_h_14", "632.05M", 392, 632045800}, {"deit_tiny_patch16_224", "5.72M", 152, 5717416},
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        json_t *root = json(find(models[i].name), NULL);
        check_string(root, "name", models[i].name);
        check_string(root, "num_parameters_human", models[i].human);
        assert_int_equal(integer(root, "num_layers"), models[i].layers);
        assert_int_equal(integer(root, "num_parameters"), models[i].parameters);
        assert_int_equal(json_array_size(json_object_get(root, "layers")), models[i].layers);
        assert_null(json_object_get(root, "runtime"));
        json_decref(root);
    }
}

static void test_json_forms_and_layers(void **state)
{
    (void)state;
    static const struct {
        const char *form;
        json_int_t layers, parameters;
        double layers_percent, parameters_percent;
    } forms[] = {
        {"Vector", 101, 123880, 66.45, 0.14},
        {"Matrix", 50, 85741056, 32.89, 97.19},
        {"Tensor rank 4", 1, 2359296, 0.66, 2.67},
    };
    json_t *root = json(find("vit_b_32"), NULL);
    const json_t *list = json_object_get(root, "forms");
    assert_int_equal(json_array_size(list), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *form = json_array_get(list, i);
        check_string(form, "form", forms[i].form);
        assert_int_equal(integer(form, "layers"), forms[i].layers);
        assert_int_equal(integer(form, "parameters"), forms[i].parameters);
        check_real(json_object_get(form, "layers_percent"), forms[i].layers_percent);
        check_real(json_object_get(form, "parameters_percent"), forms[i].parameters_percent);
    }
    const json_t *position = json_array_get(json_object_get(root, "layers"), 3);
    json_t *expected = json_pack("{s:s, s:[i, i, i], s:[i, i], s:i, s:s}", "name",
                                 "encoder.pos_embedding", "shape", 1, 50, 768, "squeezed_shape", 50,
                                 768, "num_parameters", 38400, "form", "Matrix");
    assert_true(json_equal(position, expected));
    json_decref(expected);
    json_decref(root);
}

static void test_json_of_a_loaded_model(void **state)
{
    (void)state;
    const struct report_runtime runtime = {.device = "cpu",
                                           .device_name = "a processor",
                                           .precision = "bf16",
                                           .weights_source = "random",
                                           .version = "1.2",
                                           .weights_bytes = 5000000000,
                                           .max_batch = 32};
    json_t *root = json(find("vit_b_32"), &runtime);
    json_t *expected = json_pack(
        "{s:s, s:s, s:s, s:I, s:i, s:I, s:s, s:s}", "device", "cpu", "device_name", "a processor",
        "precision", "bf16", "weights_bytes", (json_int_t)5000000000, "max_batch", 32,
        "flops_per_image", (json_int_t)8818372608, "weights_source", "random", "version", "1.2");
    assert_true(json_equal(json_object_get(root, "runtime"), expected));
    json_decref(expected);
    expected = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "image_size", 224, "patch_size", 32,
                         "hidden_size", 768, "num_layers", 12, "num_heads", 12, "mlp_size", 3072,
                         "num_classes", 1000);
    assert_true(json_equal(json_object_get(root, "architecture"), expected));
    json_decref(expected);
    const json_t *recipe = json_object_get(root, "preprocess");
    assert_int_equal(json_object_size(recipe), 5);
    assert_int_equal(integer(recipe, "resize"), 256);
    assert_int_equal(integer(recipe, "crop"), 224);
    check_string(recipe, "interpolation", "bilinear");
    check_real(json_array_get(json_object_get(recipe, "mean"), 0), 0.485);
    check_real(json_array_get(json_object_get(recipe, "mean"), 2), 0.406);
    check_real(json_array_get(json_object_get(recipe, "std"), 0), 0.229);
    check_real(json_array_get(json_object_get(recipe, "std"), 1), 0.224);
    assert_int_equal(json_object_size(root), 9);
    json_decref(root);
}

// Its layers are more than its heads, and its recipe is the other one.
static void test_json_of_vit_h_14(void **state)
{
    (void)state;
    json_t *root = json(find("vit_h_14"), NULL);
    json_t *expected = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "image_size", 224,
                                 "patch_size", 14, "hidden_size", 1280, "num_layers", 32,
                                 "num_heads", 16, "mlp_size", 5120, "num_classes", 1000);
    assert_true(json_equal(json_object_get(root, "architecture"), expected));
    const json_t *recipe = json_object_get(root, "preprocess");
    assert_int_equal(integer(recipe, "resize"), 224);
    assert_int_equal(integer(recipe, "crop"), 224);
    check_string(recipe, "interpolation", "bicubic");
    json_decref(expected);
    json_decref(root);
}

// The smallest network there is: its shapes are nearly all 1s.
static const struct catalog_entry tiny = {
    .name = "tiny", .dims = {.S = 1, .P = 1, .C = 1, .L = 1, .NH = 1, .M = 1, .K = 1}};

static void test_shapes_of_ones(void **state)
{
    (void)state;
    char *text = markdown(&tiny);
    assert_non_null(strstr(text, "**Number of parameters: [ 27 ]**"));
    assert_non_null(strstr(text, "| Tensor rank 0 | Vector | \n|  --- | --- |\n"));
    assert_non_null(strstr(text, "| class_token | (1, 1, 1) | () | 1 | Tensor rank 0 |\n"));
    assert_non_null(strstr(text, "| conv_proj.weight | (1, 3, 1, 1) | (3,) | 3 | Vector |\n"));
    free(text);
}

// Three digits at most stand before the point.
static void test_counts_for_people(void **state)
{
    (void)state;
    static const struct {
        int count;
        const char *human;
    } rows[] = {
        {27, "27"},
        {999, "999"},
        {1000, "1.00K"},
        {1005, "1.00K"}, // as printf() rounds 1.00499...
        {1006, "1.01K"},
        {99999, "100.00K"},
        {999994, "999.99K"},
        {999995, "1.00M"},
        {999999, "1.00M"},
        {1000000, "1.00M"},
        {999994999, "999.99M"},
        {999995000, "1.00B"},
        {1234567890, "1.23B"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct catalog_entry entry = tiny; // of 22 + 3 M + 2 K parameters
        entry.dims.M = rows[i].count % 2 ? 1 : 2;
        entry.dims.K = (rows[i].count - 22 - 3 * entry.dims.M) / 2;
        json_t *root = json(&entry, NULL);
        assert_int_equal(integer(root, "num_parameters"), rows[i].count);
        check_string(root, "num_parameters_human", rows[i].human);
        json_decref(root);
    }
}

static void test_text_of_vit_b_32(void **state)
{
    (void)state;
    static const char start[] = "vit_b_32: 152 layers, 88224232 parameters (88.22M)\n\n"
                                "Form           Layers              Parameters\n"
                                "Vector            101   66.45 %        123880    0.14 %\n"
                                "Matrix             50   32.89 %      85741056   97.19 %\n"
                                "Tensor rank 4       1    0.66 %       2359296    2.67 %\n\n";
    static const char *const rows[][4] = {
        {"Name", "Shape", "Parameters", "Form"},
        {"class_token", "(1, 1, 768)", "768", "Vector"},
        {"conv_proj.weight", "(768, 3, 32, 32)", "2359296", "Tensor rank 4"},
        {"conv_proj.bias", "(768,)", "768", "Vector"},
    };
    const int names = (int)strlen("encoder.layers.encoder_layer_10.self_attention.out_proj.weight");
    const int shapes = (int)strlen("(768, 3, 32, 32)");
    char *text = report(find("vit_b_32"), REPORT_TEXT), line[256];
    assert_true(strncmp(text, start, strlen(start)) == 0);
    const char *at = text + strlen(start);
    for (int i = 0; i < 153; i++, at = strchr(at, '\n') + 1) {
        if (i < 4) {
            snprintf(line, sizeof line, "%-*s  %-*s  %12s  %s\n", names, rows[i][0], shapes,
                     rows[i][1], rows[i][2], rows[i][3]);
            assert_true(strncmp(at, line, strlen(line)) == 0);
        }
        // Two blanks end each column; a number begins none.
        const char *const shape = at + names + 2, *const form = shape + shapes + 2 + 12 + 2;
        assert_true(strncmp(shape - 2, "  ", 2) == 0 && *shape == (i ? '(' : 'S'));
        assert_true(strncmp(form - 2, "  ", 2) == 0 && strchr("FVMT", *form) && form[-3] != ' ');
    }
    assert_string_equal(at, "");
    free(text);
}

// tests/test_pie.c looks at the picture.
static void test_svg(void **state)
{
    (void)state;
    char *text = report(find("vit_b_32"), REPORT_SVG);
    assert_non_null(strstr(text, "<title>vit_b_32: 88.22M parameters by form</title>\n"
                                 "<desc>Vector: 0.14 %, 123.88K; Matrix: 97.19 %, 85.74M; "
                                 "Tensor rank 4: 2.67 %, 2.36M</desc>\n"));
    free(text);
}

// Each allocation of jansson fails in turn: a status every time, and nothing leaks.
static void test_out_of_memory(void **state)
{
    (void)state;
    static const struct report_runtime runtime = {"a", "b", "c", "d", "e", 1, 1};
    char *text = NULL;
    int steps = 0;
    for (;; steps++) {
        fail_allocation(steps);
        const enum status status = report_write(&tiny, &runtime, REPORT_JSON, &text);
        if (!allocation_failed())
            break; // it needs no more than this
        assert_int_equal(status, STATUS_OUT_OF_MEMORY);
        assert_null(text);
    }
    assert_non_null(text);
    assert_true(steps > 200);
    free(text);
}

static void test_text_that_is_no_utf8(void **state)
{
    (void)state;
    const struct report_runtime runtime = {"cpu", "\xff", "fp32", "file", "1", 1, 1};
    char *text = (char *)1;
    assert_int_equal(report_write(&tiny, &runtime, REPORT_JSON, &text), STATUS_INTERNAL);
    assert_null(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_markdown_equals_reference),
        cmocka_unit_test(test_markdown_of_vit_b_32),
        cmocka_unit_test(test_totals_of_all_models),
        cmocka_unit_test(test_json_forms_and_layers),
        cmocka_unit_test(test_json_of_a_loaded_model),
        cmocka_unit_test(test_json_of_vit_h_14),
        cmocka_unit_test(test_shapes_of_ones),
        cmocka_unit_test(test_counts_for_people),
        cmocka_unit_test(test_text_of_vit_b_32),
        cmocka_unit_test(test_svg),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_text_that_is_no_utf8),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
