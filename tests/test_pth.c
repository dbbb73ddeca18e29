// server/pth.c: files that torch.save wrote (tests/golden/make_pth.py), and archives whose pickle
// is not quite what it would write. Each of those lies in a heap block of its exact size.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "checkpoint.h"
#include "zip_files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void golden_path(char path[512], const char *name)
{
    snprintf(path, 512, GOLDEN_DIR "/pth/%s.pth", name);
}

static float value_of(const struct checkpoint_tensor *tensor, size_t i)
{
    double wide;
    float value;
    uint16_t half;
    uint32_t bits;
    switch (tensor->type) {
    case TENSOR_F32:
        memcpy(&value, tensor->data + 4 * i, 4);
        return value;
    case TENSOR_F64:
        memcpy(&wide, tensor->data + 8 * i, 8);
        return (float)wide;
    case TENSOR_BF16:
        memcpy(&half, tensor->data + 2 * i, 2);
        bits = (uint32_t)half << 16;
        memcpy(&value, &bits, 4);
        return value;
    default: // F16 of 1 .. 4
        memcpy(&half, tensor->data + 2 * i, 2);
        return half == 0x3c00   ? 1
               : half == 0x4000 ? 2
               : half == 0x4200 ? 3
               : half == 0x4400 ? 4
                                : -1;
    }
}

static const struct {
    const char *name;
    enum tensor_type type;
    int rank;
    int64_t shape[3];
    size_t elements;
    int first; // value of element 0
} golden_tensors[] = {
    {"matrix", TENSOR_F32, 2, {2, 3}, 6, 1}, {"half", TENSOR_F16, 1, {4}, 4, 1},
    {"brain", TENSOR_BF16, 1, {3}, 3, 1},    {"double", TENSOR_F64, 1, {2}, 2, 1},
    {"scalar", TENSOR_F32, 0, {0}, 1, 1},    {"none", TENSOR_F32, 2, {0, 5}, 0, 1},
    {"view", TENSOR_F32, 1, {4}, 4, 5},      {"strides", TENSOR_F32, 3, {1, 3, 1}, 3, 1},
    {"parameter", TENSOR_F32, 1, {2}, 2, 1}, {"tied", TENSOR_F32, 2, {2, 3}, 6, 1},
};

enum { GOLDEN_TENSORS = sizeof golden_tensors / sizeof golden_tensors[0] };

static void test_golden(void **state)
{
    (void)state;
    static const char *const names[] = {"state_dict", "wrapped", "protocol_4"};
    for (size_t i = 0; i < 3; i++) {
        char path[512];
        struct checkpoint *file;
        golden_path(path, names[i]);
        const enum status status = checkpoint_open(path, &file);
        if (status != STATUS_OK)
            fail_msg("%s", status_detail(status));
        assert_int_equal(file->count, GOLDEN_TENSORS);
        for (size_t j = 0; j < GOLDEN_TENSORS; j++) {
            const struct checkpoint_tensor *tensor = checkpoint_find(file, golden_tensors[j].name);
            assert_non_null(tensor);
            assert_string_equal(tensor->name, golden_tensors[j].name);
            assert_int_equal(tensor->type, golden_tensors[j].type);
            assert_int_equal(tensor->rank, golden_tensors[j].rank);
            assert_memory_equal(tensor->shape, golden_tensors[j].shape,
                                (size_t)tensor->rank * sizeof tensor->shape[0]);
            assert_int_equal(tensor->bytes,
                             golden_tensors[j].elements * tensor_type_bytes(tensor->type));
            for (size_t k = 0; k < golden_tensors[j].elements; k++)
                assert_true(value_of(tensor, k) == (float)(golden_tensors[j].first + (int)k));
        }
        assert_null(checkpoint_find(file, "name"));
        assert_null(checkpoint_find(file, "model"));
        checkpoint_close(file);
    }
}

static void test_many_tensors(void **state)
{
    (void)state;
    char path[512], name[32];
    struct checkpoint *file;
    golden_path(path, "many");
    assert_int_equal(checkpoint_open(path, &file), STATUS_OK);
    assert_int_equal(file->count, 120);
    for (int i = 0; i < 120; i++) {
        snprintf(name, sizeof name, "tensor_%d", i);
        const struct checkpoint_tensor *tensor = checkpoint_find(file, name);
        assert_non_null(tensor);
        assert_int_equal(tensor->shape[0], 120 - i);
        assert_true(value_of(tensor, 0) == (float)(i + 1));
        assert_true(value_of(tensor, (size_t)(119 - i)) == 120);
    }
    checkpoint_close(file);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *words;
    } cases[] = {
        {"before_1_6", "before_1_6.pth: written by PyTorch before 1.6: load it and save it again "
                       "with torch.save(..., _use_new_zipfile_serialization=True)"},
        {"integers", "integers.pth: tensor \"matrix\": torch.LongStorage, expected one of Float"},
        {"transposed", "transposed.pth: tensor \"matrix\" is not contiguous"},
        {"expanded", "expanded.pth: tensor \"matrix\" is not contiguous"},
        {"list", "list.pth: data.pkl is no dict of tensors"},
        {"module", "wants torch.nn.modules.linear.Linear: refused"},
        {"evil", "evil.pth: data.pkl: byte 191: the pickle wants posix.system: refused"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[512];
        struct checkpoint *file = (struct checkpoint *)1;
        golden_path(path, cases[i].name);
        const enum status status = checkpoint_open(path, &file);
        if (status != STATUS_BAD_WEIGHTS || !strstr(status_detail(status), cases[i].words))
            fail_msg("expected \"%s\", got %s: %s", cases[i].words, status_code(status),
                     status_detail(status));
        assert_null(file);
    }
}

// Pieces of a pickle, as string literals that may hold zeros.
#define TEXT(length, text) "\x8c" length text // SHORT_BINUNICODE
#define STORAGE(class, key)                                                                        \
    "(" TEXT("\7", "storage") "ctorch\n" class "\n" key TEXT("\3", "cpu") "K\6tQ"
#define FLOATS                                  STORAGE("FloatStorage", TEXT("\1", "0"))
#define CALL(arguments)                         "ctorch._utils\n_rebuild_tensor_v2\n(" arguments "tR"
#define TENSOR(storage, offset, sizes, strides) CALL(storage offset sizes strides "\x89}")
#define PARAMETER(tensor)                       "ctorch._utils\n_rebuild_parameter\n" tensor "\x88}\x87R"
#define DICT(value)                             "\x80\2}" TEXT("\1", "w") value "s."
#define SIZES                                   "K\2K\3\x86"
#define STRIDES                                 "K\3K\1\x86"
#define MATRIX                                  TENSOR(FLOATS, "K\0", SIZES, STRIDES)

struct text {
    const char *bytes;
    size_t length;
};
#define PICKLE(literal)                                                                            \
    {                                                                                              \
        literal, sizeof literal - 1                                                                \
    }

// An archive of a pickle and a storage of 24 bytes.
static struct zip_file make_file(struct text pickle)
{
    const struct zip_part parts[] = {
        {"a/data.pkl", pickle.bytes, pickle.length},
        {"a/data/0", "123456781234567812345678", 24},
        {"a/byteorder", "little", 6},
    };
    return zip_make(parts, 3, 0);
}

static void expect(struct zip_file file, const char *words)
{
    struct checkpoint *parsed = (struct checkpoint *)1;
    const enum status status = checkpoint_parse("pth", file.bytes, file.length, &parsed);
    if (words) {
        if (status != STATUS_BAD_WEIGHTS || !strstr(status_detail(status), words))
            fail_msg("expected \"%s\", got %s: %s", words, status_code(status),
                     status_detail(status));
        assert_null(parsed);
    } else {
        if (status != STATUS_OK)
            fail_msg("%s", status_detail(status));
        assert_int_equal(parsed->count, 1);
        assert_string_equal(parsed->tensors[0].name, "w");
    }
    checkpoint_close(parsed);
    free(file.bytes);
}

static const struct {
    struct text pickle;
    const char *words; // NULL: it is fine
} pickles[] = {
    {PICKLE(DICT(MATRIX)), NULL},
    {PICKLE(DICT(PARAMETER(MATRIX))), NULL},
    {PICKLE(DICT(TENSOR(FLOATS, "K\5", "K\1\x85", "K\1\x85"))), NULL},
    {PICKLE(DICT(TENSOR(FLOATS, "K\6", "K\0\x85", "K\1\x85"))), NULL},
    {PICKLE(DICT(TENSOR(FLOATS, "K\7", "K\0\x85", "K\1\x85"))),
     "0 elements of 4 bytes from element 7"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\1", SIZES, STRIDES))),
     "pth: tensor \"w\": 6 elements of 4 bytes from element 1, expected them within the 24 bytes"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", "K\7\x85", "K\1\x85"))), "7 elements of 4 bytes"},
    {PICKLE(DICT(TENSOR(FLOATS, "J\xff\xff\xff\xff", SIZES, STRIDES))), "from element -1"},
    {PICKLE(DICT(TENSOR(FLOATS, "\x8a\10\0\0\0\0\0\0\0\x40", SIZES, STRIDES))),
     "from element 4611686018427387904"},
    {PICKLE(DICT(TENSOR(FLOATS, "N", SIZES, STRIDES))), "expected them within the 24 bytes"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", "\x8a\10\0\0\0\0\0\0\0\x40\x85", "K\1\x85"))),
     "4611686018427387904 elements of 4 bytes"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", "\x8a\5\0\0\0\0\1\x8a\5\0\0\0\0\1\x86", STRIDES))),
     "\"w\": the product of its shape overflows"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", "J\xff\xff\xff\xff\x85", "K\1\x85"))),
     "\"w\": shape[0]: expected an integer >= 0"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", "K\2N\x86", STRIDES))), "\"w\": shape[1]: expected an int"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", "N", STRIDES))), "expected a shape of at most 8 numbers"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", STRIDES))),
     "expected a shape of at most 8 numbers"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", SIZES, "K\1K\2\x86"))), "\"w\" is not contiguous"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", SIZES, "K\0K\0\x86"))), "\"w\" is not contiguous"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", SIZES, "K\1\x85"))), "\"w\" is not contiguous"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", SIZES, "K\3K\1K\1\x87"))), "\"w\" is not contiguous"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", SIZES, "K\3N\x86"))), "\"w\" is not contiguous"},
    {PICKLE(DICT(TENSOR(FLOATS, "K\0", SIZES, "N"))), "\"w\" is not contiguous"},
    {PICKLE(DICT(TENSOR(STORAGE("HalfStorage", TEXT("\1", "0")), "K\7", "K\5\x85", "K\1\x85"))),
     NULL},
    {PICKLE(DICT(TENSOR(STORAGE("BoolStorage", TEXT("\1", "0")), "K\0", SIZES, STRIDES))),
     "\"w\": torch.BoolStorage, expected one of Float, Half, BFloat16, Double"},
    {PICKLE(DICT(TENSOR(STORAGE("FloatStorage", TEXT("\1", "1")), "K\0", SIZES, STRIDES))),
     "\"w\": its storage data/1 is not in the file"},
    {PICKLE(DICT(TENSOR(STORAGE("FloatStorage", TEXT("\2", "0\0")), "K\0", SIZES, STRIDES))),
     "is not in the file"},
    {PICKLE(DICT(TENSOR(STORAGE("FloatStorage", "K\0"), "K\0", SIZES, STRIDES))),
     "the key of its storage is not a short string"},
    {PICKLE(DICT(TENSOR("N", "K\0", SIZES, STRIDES))), "\"w\" is no tensor that can be read"},
    {PICKLE(DICT(TENSOR(")Q", "K\0", SIZES, STRIDES))), "\"w\": it has no storage"},
    {PICKLE(
         DICT(TENSOR("(" TEXT("\7", "storage") "K\2" TEXT("\1", "0") "tQ", "K\0", SIZES, STRIDES))),
     "\"w\": it has no storage"},
    {PICKLE(DICT(CALL(""))), "\"w\" is no tensor that can be read"},
    {PICKLE(DICT(CALL(FLOATS))), "expected a shape of at most 8 numbers"},
    {PICKLE(DICT("ctorch\nFloatStorage\n)R")), "\"w\" is no tensor that can be read"},
    {PICKLE(DICT(PARAMETER("N"))), "\"w\" is no tensor that can be read"},
    {PICKLE(DICT(PARAMETER(PARAMETER(MATRIX)))), "\"w\" is no tensor that can be read"},
    {PICKLE(MATRIX "."), "data.pkl is no dict of tensors"},
    {PICKLE("N."), "data.pkl is no dict of tensors"},
    {PICKLE("}" TEXT("\2", "w\0") MATRIX "s."), "tensor \"w\" has a zero in its name"},
    {PICKLE("}" TEXT("\1", "w") MATRIX "s" TEXT("\1", "w") MATRIX "s."),
     "pth: two tensors are named \"w\""},
    // Wrapped, and wrapped in itself.
    {PICKLE("}q\0" TEXT("\5", "model") "h\0s" TEXT("\1", "w") MATRIX "s."), NULL},
    {PICKLE("}" TEXT("\5", "model") "}" TEXT("\1", "w") MATRIX "ss."), NULL},
    {PICKLE("}" TEXT("\12", "state_dict") "}" TEXT("\1", "w") MATRIX
            "ss" TEXT("\5", "model") "}s."),
     NULL},
    {PICKLE("}" TEXT("\12", "state_dict") "Ns" TEXT("\1", "w") MATRIX "s."), NULL},
    {PICKLE("cos\nsystem\n."), "pth: data.pkl: byte 11: the pickle wants os.system: refused"},
};

static void test_pickles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pickles / sizeof pickles[0]; i++)
        expect(make_file((struct text)pickles[i].pickle), pickles[i].words);
}

static void test_archives(void **state)
{
    (void)state;
    static const char pickle[] = DICT(MATRIX);
    static const char data[24];
    char prefix[260];
    const struct zip_part good[] = {{"any name/data.pkl", pickle, sizeof pickle - 1},
                                    {"any name/data/0", data, 24}};
    expect(zip_make(good, 2, 0), NULL);
    expect(zip_make(good, 2, 1), NULL);
    expect(zip_make(good, 1, 0), "its storage data/0 is not in the file");
    expect(zip_make(good + 1, 1, 0), "pth: no data.pkl: not a file of torch.save");
    const struct zip_part deep[] = {{"a/b/data.pkl", pickle, sizeof pickle - 1},
                                    {"data.pkl", "", 0}};
    expect(zip_make(deep, 2, 0), "pth: no data.pkl");
    const struct zip_part two[] = {good[0], good[1], {"b/data.pkl", "", 0}};
    expect(zip_make(two, 3, 0), "pth: two pickles, expected one");
    const struct zip_part big[] = {good[0], good[1], {"any name/byteorder", "big", 3}};
    expect(zip_make(big, 3, 0), "pth: byteorder big, expected little");
    memset(prefix, 'p', sizeof prefix);
    memcpy(prefix + sizeof prefix - 10, "/data.pkl", 10);
    const struct zip_part longest[] = {{prefix, pickle, sizeof pickle - 1}};
    expect(zip_make(longest, 1, 0), "its storage data/0 is not in the file");
    expect((struct zip_file){.bytes = memcpy(malloc(4), "PK\3\4", 4), .length = 4},
           "is the file cut short?");
}

// Names that are referred to rather than repeated would take far more than the pickle once copied.
static void test_repeated_names(void **state)
{
    (void)state;
    enum { NAME = 50000, REFERENCES = 4000 };
    static const char matrix[] = MATRIX "q\1", head[] = "X\x50\xc3\0\0"; // 50000
    static char pickle[1 << 17];
    memcpy(pickle, head, sizeof head - 1);
    size_t used = sizeof head - 1;
    memset(pickle + used, 'n', NAME);
    used += NAME;
    memcpy(pickle + used, "q\0", 2);
    used += 2;
    memcpy(pickle + used, matrix, sizeof matrix - 1);
    used += sizeof matrix - 1;
    memcpy(pickle + used, "}(", 2);
    used += 2;
    for (int i = 0; i < REFERENCES; i++, used += 4)
        memcpy(pickle + used, "h\0h\1", 4);
    memcpy(pickle + used, "u.", 2);
    used += 2;
    expect(make_file((struct text){pickle, used}), "pth: the names of tensors repeat themselves");
}

// Every prefix and every changed byte of what torch.save wrote: an error or tensors that can be
// read.
static void test_every_byte(void **state)
{
    (void)state;
    char path[512];
    static uint8_t bytes[1 << 14];
    golden_path(path, "state_dict");
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    const size_t length = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_true(length > 1000 && length < sizeof bytes);
    for (size_t i = 0; i < length; i++) {
        static const uint8_t changes[] = {0x01, 0x02, 0x80, 0xff};
        struct checkpoint *parsed;
        assert_int_equal(checkpoint_parse("pth", bytes, i, &parsed), STATUS_BAD_WEIGHTS);
        for (size_t j = 0; j < sizeof changes; j++) {
            uint8_t *changed = malloc(length);
            assert_non_null(changed);
            memcpy(changed, bytes, length);
            changed[i] ^= changes[j];
            const enum status status = checkpoint_parse("pth", changed, length, &parsed);
            assert_true(status == STATUS_OK || status == STATUS_BAD_WEIGHTS);
            float sum = 0;
            for (size_t k = 0; parsed && k < parsed->count; k++)
                for (size_t at = 0; at < parsed->tensors[k].bytes; at++)
                    sum += parsed->tensors[k].data[at];
            assert_true(sum >= 0);
            checkpoint_close(parsed);
            free(changed);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),     cmocka_unit_test(test_many_tensors),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_pickles),
        cmocka_unit_test(test_archives),   cmocka_unit_test(test_repeated_names),
        cmocka_unit_test(test_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
