// server/pickle.c: the values of a pickle, and what hostile pickles try: globals, numbers of the
// memo, a stack without what is asked for, endless nesting, values that hold themselves. Each
// pickle lies in a heap block of its exact size, so that AddressSanitizer sees any read behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "pickle.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const globals[] = {"torch.FloatStorage", "torch._utils.rebuild", NULL};

// Opcodes with their arguments, as a string literal that may hold zeros.
#define TEXT(length, text) "\x8c" length text // SHORT_BINUNICODE
#define TUPLE1             "\x85"
#define TUPLE2             "\x86"
#define TUPLE3             "\x87"
#define MEMOIZE            "\x94"
#define STACK_GLOBAL       "\x93"
#define REBUILD            "ctorch._utils\nrebuild\n"
#define ORDERED_DICT       "ccollections\nOrderedDict\n)R"

struct text {
    const char *bytes;
    size_t length;
};
#define PICKLE(literal)                                                                            \
    {                                                                                              \
        literal, sizeof literal - 1                                                                \
    }

static uint8_t *copy(struct text text)
{
    uint8_t *bytes = malloc(text.length ? text.length : 1);
    assert_non_null(bytes);
    memcpy(bytes, text.bytes, text.length);
    return bytes;
}

static struct pickle *open_ok(const uint8_t *bytes, size_t length)
{
    struct pickle *pickle;
    const enum status status = pickle_open("pickle", bytes, length, globals, &pickle);
    if (status != STATUS_OK)
        fail_msg("%s", status_detail(status));
    return pickle;
}

static void expect_refused(struct text text, const char *words)
{
    uint8_t *bytes = copy(text);
    struct pickle *pickle = (struct pickle *)1;
    const enum status status = pickle_open("pickle", bytes, text.length, globals, &pickle);
    if (status != STATUS_BAD_WEIGHTS || !strstr(status_detail(status), words))
        fail_msg("expected \"%s\", got %s: %s", words, status_code(status), status_detail(status));
    assert_null(pickle);
    free(bytes);
}

static void test_plain_values(void **state)
{
    (void)state;
    static const struct {
        struct text text;
        enum pickle_kind kind;
        int64_t number;
    } cases[] = {
        {PICKLE("\x80\2N."), PICKLE_OTHER, 0},
        {PICKLE("\x88."), PICKLE_OTHER, 0},
        {PICKLE("\x89."), PICKLE_OTHER, 0},
        {PICKLE("G\1\2\3\4\5\6\7\10."), PICKLE_OTHER, 0},
        {PICKLE("K\xff."), PICKLE_INTEGER, 255},
        {PICKLE("M\xff\xff."), PICKLE_INTEGER, 65535},
        {PICKLE("J\xff\xff\xff\x7f."), PICKLE_INTEGER, INT32_MAX},
        {PICKLE("J\xfe\xff\xff\xff."), PICKLE_INTEGER, -2},
        {PICKLE("\x8a\0."), PICKLE_INTEGER, 0},
        {PICKLE("\x8a\1\x80."), PICKLE_INTEGER, -128},
        {PICKLE("\x8a\2\x80\0."), PICKLE_INTEGER, 128},
        {PICKLE("\x8a\5\0\0\0\0\1."), PICKLE_INTEGER, INT64_C(1) << 32},
        {PICKLE("\x8a\3\xfd\xff\xff."), PICKLE_INTEGER, -3},
        {PICKLE("\x8a\4\0\0\0\x80."), PICKLE_INTEGER, INT32_MIN},
        {PICKLE("\x8a\5\xfe\xff\xff\xff\xff."), PICKLE_INTEGER, -2},
        {PICKLE("\x8a\7\0\0\0\0\0\0\x80."), PICKLE_INTEGER, -(INT64_C(1) << 55)},
        {PICKLE("\x8a\7\xff\xff\xff\xff\xff\xff\x7f."), PICKLE_INTEGER, (INT64_C(1) << 55) - 1},
        {PICKLE("\x8a\10\0\0\0\0\0\0\0\x80."), PICKLE_INTEGER, INT64_MIN},
        {PICKLE("\x8a\11\0\0\0\0\0\0\0\0\1."), PICKLE_OTHER, 0},
        {PICKLE("].ignored"), PICKLE_LIST, 0},
        {PICKLE("(K\1K\2K\3."), PICKLE_INTEGER, 3},
        {PICKLE("]K\1a(K\1K\2e(e."), PICKLE_LIST, 0},
        {PICKLE("ctorch\nFloatStorage\n."), PICKLE_GLOBAL, 0},
        {PICKLE(TEXT("\14", "torch._utils") TEXT("\7", "rebuild") STACK_GLOBAL "."), PICKLE_GLOBAL,
         1},
        {PICKLE("\x95\0\0\0\0\0\0\0\0K\1" MEMOIZE "K\2q\1h\0."), PICKLE_INTEGER, 1},
        {PICKLE("K\1q\0K\2r\1\0\0\0K\3q\0j\1\0\0\0."), PICKLE_INTEGER, 2},
        {PICKLE("K\1q\0K\2r\1\0\0\0K\3q\0h\0."), PICKLE_INTEGER, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t *bytes = copy(cases[i].text);
        struct pickle *pickle = open_ok(bytes, cases[i].text.length);
        const struct pickle_value top = pickle_top(pickle);
        assert_int_equal(top.kind, cases[i].kind);
        if (top.kind == PICKLE_INTEGER || top.kind == PICKLE_GLOBAL)
            assert_true(top.number == cases[i].number);
        assert_int_equal(pickle_item(pickle, top, 0).kind, PICKLE_OTHER);
        pickle_close(pickle);
        free(bytes);
    }
    pickle_close(NULL);
}

static void test_texts_and_tuples(void **state)
{
    (void)state;
    static const char bytes[] =
        "(X\3\0\0\0one" TEXT("\0", "") ")K\1" TUPLE1 "K\2K\3K\4" TUPLE3 "K\5K\6" TUPLE2 "Q" REBUILD
                                       "K\7" TUPLE1 "Rt.";
    struct pickle *pickle = open_ok((const uint8_t *)bytes, sizeof bytes - 1);
    const struct pickle_value top = pickle_top(pickle);
    assert_int_equal(top.kind, PICKLE_TUPLE);
    assert_int_equal(top.length, 7);
    assert_true(pickle_equals(pickle, pickle_item(pickle, top, 0), "one"));
    assert_false(pickle_equals(pickle, pickle_item(pickle, top, 0), "on"));
    assert_false(pickle_equals(pickle, pickle_item(pickle, top, 0), "ones"));
    assert_memory_equal(pickle_text(pickle, pickle_item(pickle, top, 0)), "one", 3);
    assert_true(pickle_equals(pickle, pickle_item(pickle, top, 1), ""));
    static const struct {
        enum pickle_kind kind;
        uint32_t length;
        int64_t first;
    } expected[] = {
        {PICKLE_TUPLE, 0, 0},      {PICKLE_TUPLE, 1, 1}, {PICKLE_TUPLE, 3, 2},
        {PICKLE_PERSISTENT, 2, 5}, {PICKLE_CALL, 2, 1}, // the global
    };
    for (uint32_t i = 0; i < 5; i++) {
        const struct pickle_value value = pickle_item(pickle, top, 2 + i);
        assert_int_equal(value.kind, expected[i].kind);
        assert_int_equal(value.length, expected[i].length);
        assert_false(pickle_equals(pickle, value, ""));
        if (value.length)
            assert_int_equal(pickle_item(pickle, value, 0).number, expected[i].first);
        assert_int_equal(pickle_item(pickle, value, value.length).kind, PICKLE_OTHER);
    }
    const struct pickle_value call = pickle_item(pickle, top, 6);
    assert_int_equal(pickle_item(pickle, pickle_item(pickle, call, 1), 0).number, 7);
    pickle_close(pickle);
}

// The dict is filled in three steps, one of them past a copy of it; keys that are no strings are
// left out, and so are attributes.
static void test_dicts(void **state)
{
    (void)state;
    static const char bytes[] =
        "}" MEMOIZE TEXT("\1", "a") "K\1s"
                                    "(" TEXT("\1", "b") "K\2K\7K\7)h\0" TEXT(
                                        "\1", "c") "h\0u"
                                                   "h\0" TEXT("\1", "a") "K\4s" ORDERED_DICT TEXT(
                                                       "\1", "x") "K\1sb.";
    static const struct {
        const char *key;
        enum pickle_kind kind;
        int64_t number;
    } expected[] = {{"a", PICKLE_INTEGER, 4},
                    {"c", PICKLE_DICT, 0},
                    {"b", PICKLE_INTEGER, 2},
                    {"a", PICKLE_INTEGER, 1}};
    struct pickle *pickle = open_ok((const uint8_t *)bytes, sizeof bytes - 1);
    const struct pickle_value top = pickle_top(pickle);
    assert_int_equal(top.kind, PICKLE_DICT);
    struct pickle_value key, value;
    size_t at = 0;
    for (size_t i = 0; i < 4; i++) {
        assert_true(pickle_next(pickle, top, &at, &key, &value));
        assert_true(pickle_equals(pickle, key, expected[i].key));
        assert_int_equal(value.kind, expected[i].kind);
        if (value.kind == PICKLE_INTEGER)
            assert_int_equal(value.number, expected[i].number);
        else
            assert_memory_equal(&value, &top, sizeof top); // itself
    }
    assert_false(pickle_next(pickle, top, &at, &key, &value));
    pickle_close(pickle);
}

static const struct {
    struct text text;
    const char *words;
} malformed[] = {
    {PICKLE(""), "pickle: byte 0: 1 bytes expected, 0 are left"},
    {PICKLE("."), "byte 1: a value is missing on the stack"},
    {PICKLE("N"), "byte 1: 1 bytes expected, 0 are left"},
    {PICKLE("(."), "byte 2: a value is missing on the stack"},
    // Everything that runs code, or loads it.
    {PICKLE("cos\nsystem\n" TEXT("\4", "true") TUPLE1 "R."),
     "pickle: byte 11: the pickle wants os.system: refused"},
    {PICKLE("c__builtin__\neval\n."), "wants __builtin__.eval: refused"},
    {PICKLE(TEXT("\5", "posix") TEXT("\6", "system") STACK_GLOBAL "."), "wants posix.system: ref"},
    {PICKLE("ctorch\nFloatStorag\n."), "wants torch.FloatStorag: refused"},
    {PICKLE("ctorch\nFloatStorage2\n."), "wants torch.FloatStorage2: refused"},
    {PICKLE("ctorch.\nFloatStorage\n."), "wants torch..FloatStorage: refused"},
    {PICKLE("c\n\n."), "wants .: refused"},
    {PICKLE("ctorch"), "byte 1: a line without end"},
    {PICKLE("ctorch\n"), "byte 7: a line without end"},
    {PICKLE("N" TEXT("\1", "a") STACK_GLOBAL "."), "expected a global's module on the stack"},
    {PICKLE(TEXT("\1", "a") "N" STACK_GLOBAL "."), "expected a global's name on the stack"},
    {PICKLE("ios\nsystem\n."), "byte 0: opcode 0x69 is none that torch.save writes for tensors"},
    {PICKLE("(N\x81."), "byte 2: opcode 0x81 is none"},  // NEWOBJ
    {PICKLE("N\x82\1."), "byte 1: opcode 0x82 is none"}, // EXT1
    {PICKLE("\0"), "byte 0: opcode 0x00 is none"},
    {PICKLE("\xff"), "byte 0: opcode 0xff is none"},
    {PICKLE("NN" TUPLE1 "R."), "expected a global to call on the stack"},
    {PICKLE(REBUILD "NR."), "expected a tuple of arguments on the stack"},
    {PICKLE(REBUILD "R."), "expected a tuple of arguments on the stack"},
    {PICKLE(")R."), "a value is missing on the stack"},
    {PICKLE("ccollections\nOrderedDict\n]" TUPLE1 "R."),
     "expected collections.OrderedDict without"},
    {PICKLE("NQ."), "expected the tuple of a storage on the stack"},
    {PICKLE("NNb."), "expected a dict on the stack"},
    {PICKLE("}b."), "expected a dict on the stack"},
    // Lengths.
    {PICKLE("X\4\0\0\0abc"), "byte 5: 4 bytes expected, 3 are left"},
    {PICKLE("X\xff\xff\xff\xff."), "byte 5: 4294967295 bytes expected, 1 are left"},
    {PICKLE("X\1\0\0"), "byte 1: 4 bytes expected, 3 are left"},
    {PICKLE(TEXT("\2", ".")), "byte 2: 2 bytes expected, 1 are left"},
    {PICKLE("J\1\2\3"), "byte 1: 4 bytes expected"},
    {PICKLE("G1234567"), "byte 1: 8 bytes expected"},
    {PICKLE("\x8a\xff"), "byte 2: 255 bytes expected"},
    {PICKLE("\x8a\4\1"), "byte 2: 4 bytes expected"},
    {PICKLE("\x80"), "byte 1: 1 bytes expected"},
    {PICKLE("\x95\xff"), "byte 1: 8 bytes expected"},
    // The memo.
    {PICKLE("Nq\1."), "byte 3: memo 1 after 0 of them"},
    {PICKLE("Nr\xff\xff\xff\xff."), "memo 4294967295 after 0 of them"},
    {PICKLE("Nq\0h\1."), "byte 5: memo 1 of 1"},
    {PICKLE("h\0."), "memo 0 of 0"},
    {PICKLE("Nq\0j\xff\xff\xff\xff."), "memo 4294967295 of 1"},
    {PICKLE("q\0."), "a value is missing on the stack"},
    {PICKLE("(q\0."), "a value is missing on the stack"},
    {PICKLE("N" MEMOIZE MEMOIZE MEMOIZE MEMOIZE MEMOIZE), "memo 4 after 4 of them"},
    // The stack.
    {PICKLE(TUPLE1 "."), "a value is missing on the stack"},
    {PICKLE("NN" TUPLE3 "."), "a value is missing on the stack"},
    {PICKLE("N(NN" TUPLE3 "."), "a value is missing on the stack"},
    {PICKLE("NNt."), "a mark is missing on the stack"},
    {PICKLE("NNu."), "a mark is missing on the stack"},
    {PICKLE("NNe."), "a mark is missing on the stack"},
    {PICKLE("t."), "a mark is missing on the stack"},
    {PICKLE("(e."), "expected a list on the stack"},
    {PICKLE("(u."), "expected a dict on the stack"},
    {PICKLE("}(NNe."), "expected a list on the stack"},
    {PICKLE("](NNu."), "expected a dict on the stack"},
    {PICKLE("}(Nu."), "a key has no value"},
    {PICKLE("}Na."), "expected a list on the stack"},
    {PICKLE("](a."), "a value is missing on the stack"},
    {PICKLE("]NNs."), "expected a dict on the stack"},
    {PICKLE("}Ns."), "expected a dict on the stack"},
    {PICKLE("}(Ns."), "a value is missing on the stack"},
    {PICKLE("}N(s."), "a value is missing on the stack"},
    // More values than bytes.
    {PICKLE("}}}" TUPLE3 "}}}" TUPLE3 "}}" TUPLE3), "more values than torch.save puts into 11 byt"},
};

static void test_malformed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        expect_refused((struct text)malformed[i].text, malformed[i].words);
}

// Every prefix and every changed byte of a pickle that is fine: no crash, and nothing is left
// behind.
static void test_every_byte(void **state)
{
    (void)state;
    static const char good[] = "\x80\2" ORDERED_DICT "q\0(" TEXT("\1", "w") REBUILD
        "((" TEXT("\1", "s") "ctorch\nFloatStorage\nK\6tQK\0K\2K\3" TUPLE2 "q\1K\3K\1" TUPLE2
                             "\x89h\0tRu}" TEXT("\1", "v") "]K\1asb.";
    const size_t length = sizeof good - 1;
    for (size_t i = 0; i < length; i++) {
        expect_refused((struct text){good, i}, "pickle: byte ");
        for (int byte = 0; byte < 256; byte++) {
            uint8_t *bytes = copy((struct text){good, length});
            struct pickle *pickle;
            bytes[i] = (uint8_t)byte;
            const enum status status = pickle_open("pickle", bytes, length, globals, &pickle);
            assert_true(status == STATUS_OK || status == STATUS_BAD_WEIGHTS);
            assert_true((status == STATUS_OK) == (pickle != NULL));
            pickle_close(pickle);
            free(bytes);
        }
    }
}

// `first`, then `again` over and over up to a length, then `last`.
static void expect_repeated(const char *first, const char *again, const char *last, size_t length,
                            const char *words)
{
    const size_t begin = strlen(first), step = strlen(again), end = strlen(last);
    char *bytes = malloc(begin + length + step + end);
    assert_non_null(bytes);
    size_t used = begin;
    memcpy(bytes, first, begin);
    for (; used < length; used += step)
        memcpy(bytes + used, again, step);
    memcpy(bytes + used, last, end);
    used += end;
    if (words) {
        expect_refused((struct text){bytes, used}, words);
    } else {
        struct pickle *pickle = open_ok((const uint8_t *)bytes, used);
        pickle_close(pickle);
    }
    free(bytes);
}

static void test_endless(void **state)
{
    (void)state;
    enum { LONG = 4000000 };
    expect_repeated("", "(", ".", LONG, "more than 16384 values on the stack");
    expect_repeated("", "]", ".", LONG, "more than 16384 values on the stack");
    expect_repeated("", "}", ".", LONG, "more than 16384 values on the stack");
    expect_repeated("N", TUPLE1, ".", LONG, NULL); // nested as deep as it is long
    expect_repeated("N", MEMOIZE, ".", LONG, "memo 2000001 after 2000001 of them");
    expect_repeated("]" MEMOIZE, "]a", ".", LONG, NULL);
    expect_repeated("}" MEMOIZE,
                    "h\1"
                    "h\1s",
                    ".", LONG, "memo 1 of 1");
    expect_repeated("N", "(", ".", 4 << 20, "expected <= 4194304");
    expect_repeated("", "}" TEXT("\1", "a"), "Nsssssss.", 16384, NULL);
    expect_repeated("", "c", ".", LONG, "a line without end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_values), cmocka_unit_test(test_texts_and_tuples),
        cmocka_unit_test(test_dicts),        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_every_byte),   cmocka_unit_test(test_endless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
