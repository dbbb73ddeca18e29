// server/safetensors.c, through checkpoint.c: what is well-formed is found, what is not is refused
// with an error that names the place. Each input lies in a heap block of its exact size, so that
// AddressSanitizer sees any read behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "checkpoint.h"
#include "failing_memory.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct bytes {
    uint8_t *at;
    size_t length;
};

// A file with this header and data_bytes bytes 0, 1, 2, ...
static struct bytes make_file(const char *header, size_t data_bytes)
{
    const size_t header_bytes = strlen(header);
    struct bytes file = {malloc(8 + header_bytes + data_bytes), 8 + header_bytes + data_bytes};
    assert_non_null(file.at);
    for (int i = 0; i < 8; i++)
        file.at[i] = (uint8_t)(header_bytes >> (8 * i));
    memcpy(file.at + 8, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++)
        file.at[8 + header_bytes + i] = (uint8_t)i;
    return file;
}

static void expect_refused(struct bytes file, const char *words)
{
    struct checkpoint *parsed = (struct checkpoint *)1;
    const enum status status = checkpoint_parse("safetensors", file.at, file.length, &parsed);
    if (status != STATUS_BAD_WEIGHTS || !strstr(status_detail(status), words))
        fail_msg("expected \"%s\", got %s: %s", words, status_code(status), status_detail(status));
    assert_null(parsed);
    free(file.at);
}

static const char good_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[10,34]},"
    "\"encoder.layers.encoder_layer_0.ln_1.weight\":"
    "{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[0,0]},"
    "\"scalar\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[8,10]},"
    "\"half\":{\"dtype\":\"F16\",\"shape\":[1,4],\"data_offsets\":[0,8]},"
    "\"none\":{\"dtype\":\"F64\",\"shape\":[0,5],\"data_offsets\":[9,9]}}   ";

static void check_good(const struct checkpoint *file)
{
    assert_int_equal(file->count, 5);
    assert_non_null(checkpoint_find(file, "encoder.layers.encoder_layer_0.ln_1.weight"));
    const struct checkpoint_tensor *w = checkpoint_find(file, "w");
    assert_non_null(w);
    assert_string_equal(w->name, "w");
    assert_int_equal(w->type, TENSOR_F32);
    assert_int_equal(w->rank, 2);
    assert_int_equal(w->shape[0], 2);
    assert_int_equal(w->shape[1], 3);
    assert_int_equal(w->bytes, 24);
    for (int i = 0; i < 24; i++)
        assert_int_equal(w->data[i], 10 + i);
    const struct checkpoint_tensor *scalar = checkpoint_find(file, "scalar");
    assert_non_null(scalar);
    assert_int_equal(scalar->type, TENSOR_BF16);
    assert_int_equal(scalar->rank, 0);
    assert_int_equal(scalar->bytes, 2);
    assert_int_equal(scalar->data[0], 8);
    assert_int_equal(checkpoint_find(file, "half")->type, TENSOR_F16);
    assert_int_equal(checkpoint_find(file, "none")->bytes, 0);
    assert_null(checkpoint_find(file, "__metadata__"));
    assert_null(checkpoint_find(file, "W"));
    assert_null(checkpoint_find(file, ""));
    for (size_t i = 0; i < file->count; i++) {
        const struct checkpoint_tensor *tensor = &file->tensors[i];
        assert_ptr_equal(checkpoint_find(file, tensor->name), tensor);
    }
}

static void test_well_formed(void **state)
{
    (void)state;
    struct bytes bytes = make_file(good_header, 34);
    struct checkpoint *file;
    assert_int_equal(checkpoint_parse("safetensors", bytes.at, bytes.length, &file), STATUS_OK);
    check_good(file);
    checkpoint_close(file);
    free(bytes.at);

    bytes = make_file("{}", 0);
    assert_int_equal(checkpoint_parse("safetensors", bytes.at, bytes.length, &file), STATUS_OK);
    assert_int_equal(file->count, 0);
    assert_null(checkpoint_find(file, "w"));
    checkpoint_close(file);
    free(bytes.at);
    checkpoint_close(NULL);
}

#define ENTRY(dtype, shape, offsets)                                                               \
    "{\"w\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define F32(shape, offsets) ENTRY("\"F32\"", shape, offsets)

// Each over 16 bytes of data.
static const struct {
    const char *header, *words;
} malformed[] = {
    {"", "byte 8: '[' or '{' expected"},
    {"[]", "byte 8: expected a JSON object"},
    {"{\"w\":}", "byte 14:"},
    {"{} {}", "end of file expected"},
    {"{\"w\":1,\"w\":2}", "duplicate object key"},
    {"{\"w\":1}", "\"w\": expected a dtype"},
    {"{\"w\":[]}", "\"w\": expected a dtype"},
    {"{\"w\":{}}", "\"w\": expected a dtype"},
    {"{\"\\u0000\":{}}", "byte"},
    {"{\"\xff\":{}}", "unable to decode byte 0xff"},
    {ENTRY("32", "[4]", "[0,16]"), "\"w\": expected a dtype"},
    {ENTRY("\"I64\"", "[2]", "[0,16]"), "\"w\": dtype I64, expected F32, F16, BF16 or F64"},
    {ENTRY("\"f32\"", "[4]", "[0,16]"), "\"w\": dtype f32, expected"},
    {F32("4", "[0,16]"), "\"w\": expected a shape of at most 8 numbers"},
    {F32("[1,1,1,1,1,1,1,1,4]", "[0,16]"), "\"w\": expected a shape of at most 8 numbers"},
    {F32("[-4]", "[0,16]"), "\"w\": shape[0]: expected an integer >= 0"},
    {F32("[4,1.0]", "[0,16]"), "\"w\": shape[1]: expected an integer >= 0"},
    {F32("[\"4\"]", "[0,16]"), "\"w\": shape[0]: expected an integer >= 0"},
    {F32("[9223372036854775808]", "[0,16]"), "too big integer"},
    {F32("[4294967296,4294967296]", "[0,16]"), "\"w\": the product of its shape overflows"},
    {F32("[4611686018427387904]", "[0,0]"), "\"w\": data_offsets [0, 0] hold 0 bytes"},
    {F32("[4]", "16"), "\"w\": expected data_offsets [begin, end]"},
    {F32("[4]", "[0]"), "\"w\": expected data_offsets [begin, end]"},
    {F32("[4]", "[0,16,32]"), "\"w\": expected data_offsets [begin, end]"},
    {F32("[4]", "[0,16.0]"), "\"w\": expected data_offsets [begin, end]"},
    {F32("[4]", "[1,17]"), "\"w\": data_offsets [1, 17], expected them within the 16 bytes"},
    {F32("[4]", "[-1,15]"), "\"w\": data_offsets [-1, 15], expected them within"},
    {F32("[4]", "[16,0]"), "\"w\": data_offsets [16, 0], expected them within"},
    {F32("[0]", "[17,17]"), "\"w\": data_offsets [17, 17], expected them within"},
    {F32("[4]", "[0,9223372036854775807]"), "expected them within the 16 bytes"},
    {F32("[3]", "[0,16]"), "\"w\": data_offsets [0, 16] hold 16 bytes, expected 3 elements of F32"},
    {ENTRY("\"BF16\"", "[4]", "[0,16]"), "hold 16 bytes, expected 4 elements of BF16"},
    {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "\"w\": expected a shape"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", "\"w\": expected data_offsets"},
    {"{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]},"
     "\"none\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]},"
     "\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[10,12]}}",
     "\"a\" at data offset 10 overlaps \"b\""},
    {"{\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[3,5]}}",
     "\"a\" at data offset 3 overlaps \"b\""},
    {"{\"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
     "\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}",
     "at data offset 0 overlaps"},
};

static void test_malformed_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        expect_refused(make_file(malformed[i].header, 16), malformed[i].words);
}

static void test_header_length(void **state)
{
    (void)state;
    struct bytes file = make_file("{}", 0);
    expect_refused((struct bytes){calloc(1, 7), 7}, "7 bytes, expected at least 8");
    expect_refused((struct bytes){malloc(1), 0}, "0 bytes, expected at least 8");
    file.at[0] = 3;
    expect_refused(file, "header of 3 bytes, but the file ends after 2");
    file = make_file("{}", 0);
    memset(file.at, 0xff, 8);
    expect_refused(file, "byte 0: header of 18446744073709551615 bytes, expected <= 100000000");
    file = make_file("{}", 0);
    const uint32_t over = 100 * 1000 * 1000 + 1;
    memcpy(file.at, &over, 4);
    expect_refused(file, "header of 100000001 bytes, expected <= 100000000");
}

static void test_deep_nesting(void **state)
{
    (void)state;
    char header[100001];
    memset(header, '[', sizeof header - 1);
    header[sizeof header - 1] = 0;
    expect_refused(make_file(header, 0), "header: json: line 1, column 65: more levels of nesting");
}

// The longest header could hold 33 million empty lists, which are gigabytes. The parser gets no
// memory here, so that whatever reaches it is another failure.
static void test_many_values(void **state)
{
    (void)state;
    enum { LENGTH = 1000 * 1000 };
    char *header = malloc(LENGTH + 1);
    assert_non_null(header);
    for (int i = 0; i < LENGTH; i++)
        header[i] = "[],"[i % 3];
    header[0] = '[', header[1] = ' ', header[LENGTH] = 0;
    fail_allocation(0);
    expect_refused(make_file(header, 0),
                   "header: json: line 1, column 300001: more values and keys");
    allocation_failed();
    free(header);
}

// Names have no limit in the format; an error must stay readable all the same.
static void test_long_names(void **state)
{
    (void)state;
    enum { LENGTH = 100000 };
    char *name = malloc(LENGTH + 1), *header = malloc(LENGTH + 200);
    memset(name, 'n', LENGTH);
    name[LENGTH] = 0;
    snprintf(header, LENGTH + 200,
             "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", name);
    struct bytes bytes = make_file(header, 4);
    struct checkpoint *file;
    assert_int_equal(checkpoint_parse("safetensors", bytes.at, bytes.length, &file), STATUS_OK);
    assert_non_null(checkpoint_find(file, name));
    checkpoint_close(file);
    free(bytes.at);
    expect_refused(make_file(header, 3), "nnn\": data_offsets [0, 4], expected them within");
    free(header);
    free(name);
}

static void write_file(const char *path, const void *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void test_open(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_safetensors_XXXXXX", path[64];
    struct checkpoint *file;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.safetensors", folder);

    assert_int_equal(checkpoint_open(path, &file), STATUS_IO);
    assert_non_null(strstr(status_detail(STATUS_IO), "a.safetensors: No such file"));
    assert_int_equal(checkpoint_open(folder, &file), STATUS_IO);
    assert_non_null(strstr(status_detail(STATUS_IO), "not a regular file"));
    write_file(path, "", 0);
    assert_int_equal(checkpoint_open(path, &file), STATUS_BAD_WEIGHTS);
    assert_non_null(strstr(status_detail(STATUS_BAD_WEIGHTS), "the file is empty"));

    struct bytes bytes = make_file(good_header, 34);
    write_file(path, bytes.at, bytes.length);
    assert_int_equal(checkpoint_open(path, &file), STATUS_OK);
    check_good(file);
    checkpoint_close(file);
    write_file(path, bytes.at, bytes.length - 1);
    assert_int_equal(checkpoint_open(path, &file), STATUS_BAD_WEIGHTS);
    assert_null(file);
    assert_non_null(
        strstr(status_detail(STATUS_BAD_WEIGHTS), "a.safetensors: tensor \"w\": data_"));
    free(bytes.at);
    unlink(path);
    rmdir(folder);
}

// Jansson's memory runs out at every step in turn: a status each time, and nothing leaks.
static void test_out_of_memory(void **state)
{
    (void)state;
    struct bytes bytes = make_file(good_header, 34);
    struct checkpoint *file = NULL;
    enum status status = STATUS_OUT_OF_MEMORY;
    int steps = 0;
    for (; status != STATUS_OK && steps < 1000; steps++) {
        fail_allocation(steps);
        status = checkpoint_parse("safetensors", bytes.at, bytes.length, &file);
        assert_int_equal(status, allocation_failed() ? STATUS_OUT_OF_MEMORY : STATUS_OK);
        assert_true((status == STATUS_OK) == (file != NULL));
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(steps > 20);
    check_good(file);
    checkpoint_close(file);
    free(bytes.at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well_formed),   cmocka_unit_test(test_malformed_headers),
        cmocka_unit_test(test_header_length), cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_many_values),   cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_open),          cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
