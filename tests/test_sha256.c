// server/sha256.c: the examples that NIST publishes for FIPS 180, lengths around the ends of
// blocks, and messages in pieces.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "sha256.h"
#include <string.h>

static const struct {
    const char *message, *digest;
} examples[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqr"
     "lmnopqrsmnopqrstnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};

static void test_examples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        struct sha256 sha256;
        char digest[65];
        sha256_init(&sha256);
        sha256_update(&sha256, examples[i].message, strlen(examples[i].message));
        sha256_finish(&sha256, digest);
        assert_string_equal(digest, examples[i].digest);
    }
}

// Around the lengths at which the padding needs one more block, as coreutils' sha256sum has them.
static void test_ends_of_blocks(void **state)
{
    (void)state;
    static const struct {
        size_t length;
        const char *digest;
    } rows[] = {
        {54, "a3f01b6939256127582ac8ae9fb47a382a244680806a3f613a118851c1ca1d47"},
        {55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
        {56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
        {57, "f13b2d724659eb3bf47f2dd6af1accc87b81f09f59f2b75e5c0bed6589dfe8c6"},
        {63, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"},
        {64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
        {65, "635361c48bb9eab14198e76ea8ab7f1a41685d6ad62aa9146d301d4f17eb0ae0"},
        {119, "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb"},
        {120, "2f3d335432c70b580af0e8e1b3674a7c020d683aa5f73aaaedfdc55af904c21c"},
        {128, "6836cf13bac400e9105071cd6af47084dfacad4e5e302c94bfed24e013afb73e"},
    };
    char letters[128];
    memset(letters, 'a', sizeof letters);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sha256 sha256;
        char digest[65];
        sha256_init(&sha256);
        sha256_update(&sha256, letters, rows[i].length);
        sha256_finish(&sha256, digest);
        assert_string_equal(digest, rows[i].digest);
    }
}

static void test_a_million_letters(void **state)
{
    (void)state;
    struct sha256 sha256;
    char letters[1000], digest[65];
    memset(letters, 'a', sizeof letters);
    sha256_init(&sha256);
    for (int i = 0; i < 1000; i++)
        sha256_update(&sha256, letters, sizeof letters);
    sha256_finish(&sha256, digest);
    assert_string_equal(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// Half a GiB of zeros, whose length in bits takes more than 32 bits.
static void test_a_large_file(void **state)
{
    (void)state;
#ifdef BUILT_SANITIZED
    skip(); // for the time it takes
#endif
    static const uint8_t zeros[1 << 20];
    struct sha256 sha256;
    char digest[65];
    sha256_init(&sha256);
    for (int i = 0; i < 512; i++)
        sha256_update(&sha256, zeros, sizeof zeros);
    sha256_finish(&sha256, digest);
    assert_string_equal(digest, "9acca8e8c22201155389f65abbf6bc9723edc7384ead80503839f49dcc56d767");
}

// Every length over three blocks: one piece, single bytes and pieces of 63 have the same digest,
// and no two lengths share one.
static void test_pieces(void **state)
{
    (void)state;
    static const size_t pieces[] = {1000, 1, 63};
    uint8_t message[200] = {0};
    char last[65] = "";
    for (size_t length = 0; length <= sizeof message; length++) {
        char digest[3][65];
        for (int p = 0; p < 3; p++) {
            struct sha256 sha256;
            sha256_init(&sha256);
            for (size_t at = 0; at < length; at += pieces[p])
                sha256_update(&sha256, message + at,
                              length - at < pieces[p] ? length - at : pieces[p]);
            sha256_finish(&sha256, digest[p]);
            assert_string_equal(digest[p], digest[0]);
        }
        assert_string_not_equal(digest[0], last);
        strcpy(last, digest[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_ends_of_blocks),
        cmocka_unit_test(test_a_million_letters),
        cmocka_unit_test(test_a_large_file),
        cmocka_unit_test(test_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
