// server/catalog.c: the entries as torchvision and timm have them, what a bad models.json is told,
// and the lists of class names.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "assets.h"
#include "catalog.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct catalog *open_ok(void)
{
    struct catalog *catalog;
    const enum status status = catalog_open(&catalog);
    if (status != STATUS_OK)
        fail_msg("%s", status_detail(status));
    return catalog;
}

static void expect_failure(enum status status, enum status expected, const char *words)
{
    if (status != expected || !strstr(status_detail(status), words))
        fail_msg("expected %s: \"%s\", got %s: %s", status_code(expected), words,
                 status_code(status), status_detail(status));
}

// S, P, C, L, NH, M and the recipe of facts that others published.
static const struct {
    const char *name;
    int S, P, C, L, NH, M, resize;
    enum interpolation interpolation;
} expected_entries[] = {
    {"vit_b_16", 224, 16, 768, 12, 12, 3072, 256, INTERPOLATION_BILINEAR},
    {"vit_b_32", 224, 32, 768, 12, 12, 3072, 256, INTERPOLATION_BILINEAR},
    {"vit_l_16", 224, 16, 1024, 24, 16, 4096, 242, INTERPOLATION_BILINEAR},
    {"vit_l_32", 224, 32, 1024, 24, 16, 4096, 256, INTERPOLATION_BILINEAR},
    {"vit_h_14", 224, 14, 1280, 32, 16, 5120, 224, INTERPOLATION_BICUBIC},
    {"deit_tiny_patch16_224", 224, 16, 192, 12, 3, 768, 256, INTERPOLATION_BICUBIC},
};

static void test_entries(void **state)
{
    (void)state;
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    struct catalog *catalog = open_ok();
    for (size_t i = 0; i < sizeof expected_entries / sizeof expected_entries[0]; i++) {
        const struct catalog_entry *entry;
        assert_int_equal(catalog_find(catalog, expected_entries[i].name, &entry), STATUS_OK);
        assert_string_equal(entry->name, expected_entries[i].name);
        assert_int_equal(entry->dims.S, expected_entries[i].S);
        assert_int_equal(entry->dims.P, expected_entries[i].P);
        assert_int_equal(entry->dims.C, expected_entries[i].C);
        assert_int_equal(entry->dims.L, expected_entries[i].L);
        assert_int_equal(entry->dims.NH, expected_entries[i].NH);
        assert_int_equal(entry->dims.M, expected_entries[i].M);
        assert_int_equal(entry->dims.K, 1000);
        assert_true(entry->dims.epsilon == 1e-6f);
        assert_int_equal(entry->preprocess.resize, expected_entries[i].resize);
        assert_int_equal(entry->preprocess.crop, 224);
        assert_int_equal(entry->preprocess.interpolation, expected_entries[i].interpolation);
        assert_memory_equal(entry->preprocess.mean, mean, sizeof mean);
        assert_memory_equal(entry->preprocess.std, std, sizeof std);
        assert_string_equal(entry->labels, "imagenet1k");
    }
    catalog_close(catalog);
    catalog_close(NULL);
}

// The name of each published file ends in the first digits of its SHA-256.
static void test_downloads(void **state)
{
    (void)state;
    static const char *const names[] = {"vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32",
                                        "deit_tiny_patch16_224"};
    static const char *const without[] = {"vit_h_14", "fashion_vit"};
    struct catalog *catalog = open_ok();
    const struct catalog_entry *entry;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char end[96];
        assert_int_equal(catalog_find(catalog, names[i], &entry), STATUS_OK);
        assert_int_equal(strlen(entry->sha256), 8);
        snprintf(end, sizeof end, "/%s-%s.pth", names[i], entry->sha256);
        assert_true(strlen(entry->url) > strlen(end));
        assert_string_equal(entry->url + strlen(entry->url) - strlen(end), end);
    }
    for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
        assert_int_equal(catalog_find(catalog, without[i], &entry), STATUS_OK);
        assert_string_equal(entry->url, "");
        assert_string_equal(entry->sha256, "");
    }
    catalog_close(catalog);
}

static void test_unknown_model(void **state)
{
    (void)state;
    struct catalog *catalog = open_ok();
    const struct catalog_entry *entry;
    expect_failure(catalog_find(catalog, "vit_x", &entry), STATUS_USAGE,
                   "model \"vit_x\": expected one of vit_b_16, vit_b_32, vit_l_16, vit_l_32, "
                   "vit_h_14, deit_tiny_patch16_224, fashion_vit");
    assert_null(entry);
    expect_failure(catalog_find(catalog, "", &entry), STATUS_USAGE, "expected one of");
    catalog_close(catalog);
}

// Each puts one mistake into the first entry of the catalogue.
static const struct {
    const char *from, *to, *words;
} mistakes[] = {
    {"{", "[", "models.json: line 2:"},
    {"\"image_size\": 224", "\"image_size\": \"224\"",
     "models.json: vit_b_16: architecture.image_size: expected an integer in 1..4096"},
    {"\"image_size\": 224", "\"image_size\": 0", "architecture.image_size: expected an integer"},
    {"\"image_size\": 224", "\"image_size\": 4294967520", "architecture.image_size: expected"},
    {"\"image_size\": 224", "\"image_size\": 240", "preprocess.crop: expected the architecture's"},
    {"\"image_size\": 224,", "", "architecture.image_size: expected an integer"},
    {"\"patch_size\": 16", "\"patch_size\": 0", "architecture.patch_size: expected an integer in"},
    {"\"patch_size\": 16", "\"patch_size\": 15", "patch_size: expected a divisor of image_size"},
    {"\"patch_size\": 16", "\"patch_size\": 448", "patch_size: expected an integer in 1..224"},
    {"\"hidden_size\": 768", "\"hidden_size\": 7.5", "architecture.hidden_size: expected"},
    {"\"num_layers\": 12", "\"num_layers\": -1", "architecture.num_layers: expected"},
    {"\"num_heads\": 12", "\"num_heads\": 0", "architecture.num_heads: expected an integer in"},
    {"\"num_heads\": 12", "\"num_heads\": 11", "num_heads: expected a divisor of hidden_size"},
    {"\"mlp_size\": 3072", "\"mlp_size\": null", "architecture.mlp_size: expected an integer"},
    {"\"num_classes\": 1000", "\"num_classes\": 0", "architecture.num_classes: expected"},
    {"1e-6", "0", "architecture.layer_norm_epsilon: expected a number in 1e-12..0.1"},
    {"1e-6", "\"1e-6\"", "architecture.layer_norm_epsilon: expected a number"},
    {"\"num_heads\"", "\"heads\"", "architecture.heads: unknown field"},
    {"\"num_heads\"", "\"num_layers\"", "duplicate object key"},
    {"\"architecture\": {", "\"architecture\": 1, \"x\": {", "vit_b_16: x: unknown field"},
    {"\"architecture\": {", "\"labels\": {", "duplicate object key"},
    {"\"resize\": 256", "\"resize\": 223", "preprocess.resize: expected an integer in 224..8192"},
    {"\"crop\": 224", "\"crop\": 200", "preprocess.crop: expected the architecture's image_size"},
    {"\"crop\": 224", "\"crop\": 225", "preprocess.crop: expected the architecture's image_size"},
    {"\"crop\": 224,", "", "preprocess.crop: expected an integer"},
    {"\"bilinear\"", "\"nearest\"", "preprocess.interpolation: expected \"bilinear\" or"},
    {"\"bilinear\"", "3", "preprocess.interpolation: expected \"bilinear\" or"},
    {"[0.485, 0.456, 0.406]", "[0.485, 0.456]", "preprocess.mean: expected a list of 3 numbers"},
    {"[0.485, 0.456, 0.406]", "0.5", "preprocess.mean: expected a list of 3 numbers"},
    {"[0.485, 0.456, 0.406]", "[1, 1, 255]", "preprocess.mean: expected a number in 0..1"},
    {"[0.229, 0.224, 0.225]", "[0.2, 0, 0.2]", "preprocess.std: expected a number in 0.001..1"},
    {"[0.229, 0.224, 0.225]", "[0.2, {}, 0.2]", "preprocess.std: expected a number in 0.001..1"},
    {"\"labels\": \"imagenet1k\"", "\"labels\": 1", "vit_b_16: labels: expected a string"},
    {"imagenet1k", "imagenet22k", "vit_b_16: labels: expected the name of a built-in list"},
    {"\"labels\"", "\"weights\": \"x\", \"labels\"",
     "vit_b_16: weights: expected the name of a built-in checkpoint"},
    {"\"labels\"", "\"weights\": 1, \"labels\"", "vit_b_16: weights: expected the name"},
    {"\"download\": {", "\"download\": 1, \"x\": {", "vit_b_16: x: unknown field"},
    {"\"url\": \"", "\"bytes\": 1, \"url\": \"", "download.bytes: unknown field"},
    {"https://", "http://", "vit_b_16: download.url: expected at most 127 bytes of https://..."},
    {"https://",
     "https://0123456789012345678901234567890123456789012345678901234567890123456789012",
     "download.url: expected at most 127 bytes"},
    {"\"url\"", "\"sha256_prefix\"", "duplicate object key"},
    {"\"c867db91\"", "1", "download.sha256_prefix: expected 8..64 lower-case hex digits"},
    {"\"c867db91\"", "\"c867db9\"", "download.sha256_prefix: expected 8..64"},
    {"\"c867db91\"", "\"c867db9 \"", "download.sha256_prefix: expected 8..64"},
    {"\"c867db91\"", "\"C867DB91\"", "download.sha256_prefix: expected 8..64"},
    {"\"c867db91\"", "\"01234567890123456789012345678901234567890123456789012345678901234\"",
     "download.sha256_prefix: expected 8..64"},
    {"vit_b_16", "a_name_that_is_longer_than_the_sixty_three_bytes_for_which_there_is_room",
     "name: expected at most 63 bytes"},
};

// Each puts the most or the least that there may be into the first entry.
static const struct {
    const char *from, *to;
} extremes[] = {
    {"\"resize\": 256", "\"resize\": 224"},
    {"\"resize\": 256", "\"resize\": 8192"},
    {"\"patch_size\": 16", "\"patch_size\": 1"},
    {"\"patch_size\": 16", "\"patch_size\": 224"},
    {"\"hidden_size\": 768", "\"hidden_size\": 16380"}, // of 12 heads
    {"\"num_layers\": 12", "\"num_layers\": 1"},
    {"\"num_layers\": 12", "\"num_layers\": 256"},
    {"\"num_heads\": 12", "\"num_heads\": 1"},
    {"\"num_heads\": 12", "\"num_heads\": 768"},
    {"\"mlp_size\": 3072", "\"mlp_size\": 65536"},
    {"\"num_classes\": 1000", "\"num_classes\": 1000000"},
    {"1e-6", "1e-12"},
    {"1e-6", "0.1"},
    {"[0.485, 0.456, 0.406]", "[0, 1, 0.5]"},
    {"[0.229, 0.224, 0.225]", "[0.001, 1, 0.5]"},
    {"\"c867db91\"", "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\""},
    {"vit_b_16", "a_name_of_sixty_three_bytes_01234567890123456789012345678901234"},
    {"\"labels\": \"imagenet1k\"", "\"labels\": \"\""},
    {"\"labels\"", "\"weights\": \"fashion_vit\", \"labels\""},
};

static char *changed(const char *from, const char *to)
{
    static char text[8192];
    const char *at = strstr(asset_models_json, from);
    assert_non_null(at);
    const int length = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - asset_models_json),
                                asset_models_json, to, at + strlen(from));
    assert_true(length < (int)sizeof text);
    return text;
}

static void test_extremes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++) {
        struct catalog *catalog;
        const char *text = changed(extremes[i].from, extremes[i].to);
        if (catalog_parse(text, strlen(text), &catalog) != STATUS_OK)
            fail_msg("%s: %s", extremes[i].to, status_detail(STATUS_INTERNAL));
        catalog_close(catalog);
    }
}

static enum status parse_with_hash(const char *digits)
{
    char hash[80];
    struct catalog *catalog;
    snprintf(hash, sizeof hash, "\"%s\"", digits);
    const char *text = changed("\"c867db91\"", hash);
    const enum status status = catalog_parse(text, strlen(text), &catalog);
    catalog_close(catalog);
    return status;
}

static void test_hashes(void **state)
{
    (void)state;
    static const char digits[] =
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0";
    for (size_t length = 0; length <= 65; length++) {
        char text[sizeof digits];
        snprintf(text, sizeof text, "%.*s", (int)length, digits);
        const bool right = length >= 8 && length <= 64;
        assert_int_equal(parse_with_hash(text), right ? STATUS_OK : STATUS_INTERNAL);
    }
    assert_int_equal(parse_with_hash("0123456789abcdeF"), STATUS_INTERNAL);
    assert_int_equal(parse_with_hash("0123456789abcdeg"), STATUS_INTERNAL);
    assert_int_equal(parse_with_hash("0123456789abcde "), STATUS_INTERNAL);
}

static void expect_refused(const char *text, const char *words)
{
    struct catalog *catalog = (struct catalog *)1;
    expect_failure(catalog_parse(text, strlen(text), &catalog), STATUS_INTERNAL, words);
    assert_null(catalog);
}

static void test_bad_models_json(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++)
        expect_refused(changed(mistakes[i].from, mistakes[i].to), mistakes[i].words);
    expect_refused("", "models.json: line 1:");
    expect_refused("{}", "expected an object of models");
    expect_refused("[]", "expected an object of models");
    expect_refused("{\"a\": 1}", "a: expected an object");
    expect_refused("{\"a\": {}}", "a: architecture: expected an object");
    expect_refused("{\"a\": {}, \"a\": {}}", "duplicate object key");
}

static void test_builtin_labels(void **state)
{
    (void)state;
    struct catalog *catalog = open_ok();
    const struct catalog_entry *entry;
    struct labels *labels;
    assert_int_equal(catalog_find(catalog, "vit_b_32", &entry), STATUS_OK);
    assert_int_equal(labels_open(entry, NULL, &labels), STATUS_OK);
    assert_string_equal(labels_name(labels, 0), "tench");
    assert_string_equal(labels_name(labels, 84), "peacock");
    assert_string_equal(labels_name(labels, 285), "Egyptian cat");
    assert_string_equal(labels_name(labels, 999), "toilet tissue");
    for (int i = 0; i < 1000; i++)
        assert_true(labels_name(labels, i)[0] != 0);
    labels_close(labels);
    labels_close(NULL);

    struct catalog_entry other = *entry;
    other.labels[0] = 0;
    expect_failure(labels_open(&other, NULL, &labels), STATUS_USAGE,
                   "vit_b_32 has no built-in class names: give a file of 1000 lines");
    assert_null(labels);
    other = *entry;
    other.dims.K = 1001;
    expect_failure(labels_open(&other, NULL, &labels), STATUS_USAGE,
                   "imagenet1k: 1000 lines, expected 1001");
    catalog_close(catalog);
}

// One model brings its weights along, and they fit it.
static void test_builtin_weights(void **state)
{
    (void)state;
    struct catalog *catalog = open_ok();
    const struct catalog_entry *entry;
    struct labels *labels;
    assert_int_equal(catalog_find(catalog, "vit_b_32", &entry), STATUS_OK);
    assert_null(entry->weights);
    assert_int_equal(catalog_find(catalog, "fashion_vit", &entry), STATUS_OK);
    assert_int_equal(labels_open(entry, NULL, &labels), STATUS_OK);
    assert_string_equal(labels_name(labels, 0), "T-shirt/top");
    assert_string_equal(labels_name(labels, 9), "Ankle boot");
    labels_close(labels);

    size_t bytes = (size_t)(entry->weights_end - entry->weights), count;
    assert_in_range(bytes, 1, 2000000);
    struct weights *weights;
    struct tensor_info *rows;
    assert_int_equal(weights_open_memory("fashion_vit", entry->weights, bytes, &weights),
                     STATUS_OK);
    assert_string_equal(weights_source(weights), "built-in");
    assert_int_equal(vit_list_weights(&entry->dims, &rows, &count), STATUS_OK);
    assert_int_equal(weights_check(weights, rows, count), STATUS_OK);
    weights_close(weights);
    expect_failure(weights_open_memory("fashion_vit", entry->weights, bytes - 1, &weights),
                   STATUS_BAD_WEIGHTS, "fashion_vit");
    free(rows);
    catalog_close(catalog);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static const char *const good_files[] = {"a\nb b\nc\n",
                                         "a\nb b\nc",
                                         "a\r\nb b\r\nc\r\n",
                                         "a\r\nb b\nc\r",
                                         "a\nb b\nc\n\n",
                                         "a\nb b\nc\n \t\n\n",
                                         "a\r\nb b\r\nc\r\n\r\n",
                                         ("\xef\xbb\xbf"
                                          "a\nb b\nc\n")};

static const struct {
    const char *text, *words;
} bad_files[] = {
    {"", "labels.txt: 0 lines, expected 3"},
    {"a\nb\n", "labels.txt: 2 lines, expected 3"},
    {"a\nb\nc\nd\n", "labels.txt: 4 lines, expected 3"},
    {"a\nb\nc\n\nd\n", "labels.txt: 5 lines, expected 3"},
    {"\xef\xbb\xbf", "labels.txt: 0 lines, expected 3"},
    {"a\n\xff\nc\n", "labels.txt: line 2 is not UTF-8"},
};

static void test_label_files(void **state)
{
    (void)state;
    struct catalog_entry entry = {.name = "three", .dims = {.K = 3}};
    struct labels *labels;
    char folder[] = "/tmp/test_catalog_XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/labels.txt", folder);
    for (size_t i = 0; i < sizeof good_files / sizeof good_files[0]; i++) {
        write_file(path, good_files[i]);
        assert_int_equal(labels_open(&entry, path, &labels), STATUS_OK);
        assert_string_equal(labels_name(labels, 0), "a");
        assert_string_equal(labels_name(labels, 1), "b b");
        assert_string_equal(labels_name(labels, 2), "c");
        labels_close(labels);
    }
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        write_file(path, bad_files[i].text);
        expect_failure(labels_open(&entry, path, &labels), STATUS_USAGE, bad_files[i].words);
        assert_null(labels);
    }
    unlink(path);
    expect_failure(labels_open(&entry, path, &labels), STATUS_IO, "labels.txt: No such file");
    expect_failure(labels_open(&entry, folder, &labels), STATUS_IO, "Is a directory");
    expect_failure(labels_open(&entry, "/dev/zero", &labels), STATUS_USAGE, "expected less than");
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),        cmocka_unit_test(test_downloads),
        cmocka_unit_test(test_unknown_model),  cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_hashes),         cmocka_unit_test(test_bad_models_json),
        cmocka_unit_test(test_builtin_labels), cmocka_unit_test(test_builtin_weights),
        cmocka_unit_test(test_label_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
