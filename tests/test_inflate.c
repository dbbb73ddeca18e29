// server/inflate.c: what zlib packs comes out again, bounded in what it may become and cost, and
// damaged data is refused with a sentence that says why. Each body lies in a heap block of its
// exact size, so that AddressSanitizer sees any read behind it.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "inflate.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { GZIP = 16 + MAX_WBITS, ZLIB = MAX_WBITS, RAW = -MAX_WBITS };

static const struct {
    const char *encoding;
    int window_bits;
} kinds[] = {{"gzip", GZIP}, {"x-gzip", GZIP}, {"deflate", ZLIB}, {"deflate", RAW}};

enum { N_KINDS = sizeof kinds / sizeof *kinds };

struct packed {
    uint8_t *bytes;
    size_t length;
};

static struct packed pack(int window_bits, int level, const uint8_t *bytes, size_t length)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, level, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    size_t room = deflateBound(&stream, length);
    struct packed packed = {malloc(room), 0};
    assert_non_null(packed.bytes);
    stream.next_in = (Bytef *)(uintptr_t)bytes;
    stream.avail_in = (uInt)length;
    stream.next_out = packed.bytes;
    stream.avail_out = (uInt)room;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    packed.length = room - stream.avail_out;
    deflateEnd(&stream);
    uint8_t *exact = realloc(packed.bytes, packed.length);
    assert_non_null(exact);
    packed.bytes = exact;
    return packed;
}

static struct packed pack_text(int window_bits, const char *text)
{
    return pack(window_bits, 9, (const uint8_t *)text, strlen(text));
}

// Numbers that do not repeat soon, and zeros.
static uint8_t *make_bytes(size_t length)
{
    uint8_t *bytes = malloc(length + 1);
    assert_non_null(bytes);
    uint32_t x = 1;
    for (size_t i = 0; i < length; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = i % 8192 < 4096 ? (uint8_t)(x >> 24) : 0;
    }
    return bytes;
}

// The bytes from a block of their exact size. A failure takes nothing from the budget.
static enum status inflate_exact(const char *encoding, const uint8_t *bytes, size_t length,
                                 size_t max_bytes, struct budget *budget, struct inflated *out)
{
    uint8_t *copy = malloc(length);
    if (length > 0) // or malloc() may return NULL
        assert_non_null(copy);
    for (size_t i = 0; i < length; i++)
        copy[i] = bytes[i];
    enum status status = inflate_body(encoding, copy, length, max_bytes, budget, out);
    free(copy);
    if (budget)
        assert_int_equal(budget->used, status == STATUS_OK ? (int64_t)out->capacity : 0);
    if (status != STATUS_OK)
        assert_null(out->memory);
    return status;
}

static void expect_refused(const char *encoding, const uint8_t *bytes, size_t length,
                           const char *words)
{
    struct inflated out;
    struct budget budget = {.limit = 1 << 20};
    enum status status = inflate_exact(encoding, bytes, length, 100000, &budget, &out);
    if (status != STATUS_BAD_REQUEST || !strstr(status_detail(status), words))
        fail_msg("%zu bytes: %s: %s, not %s", length, status_code(status), status_detail(status),
                 words);
}

static void every_kind_and_size(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,    1,    2,    1000, 4095,   4096,
                                   4097, 8191, 8192, 8193, 100000, 1000000};
    uint8_t *bytes = make_bytes(1000000);
    for (int kind = 0; kind < N_KINDS; kind++)
        for (int level = 0; level <= 9; level += 3)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                struct packed packed = pack(kinds[kind].window_bits, level, bytes, sizes[i]);
                struct budget budget = {.limit = 8 << 20};
                struct inflated out;
                assert_int_equal(inflate_exact(kinds[kind].encoding, packed.bytes, packed.length,
                                               sizes[i], &budget, &out),
                                 STATUS_OK);
                assert_int_equal(out.length, sizes[i]);
                assert_memory_equal(out.bytes, bytes, sizes[i]);
                inflate_release(&out);
                assert_int_equal(budget.used, 0);
                free(packed.bytes);
            }
    free(bytes);
}

static void without_encoding_the_bytes_stay_where_they_are(void **state)
{
    (void)state;
    static const char *const none[] = {NULL, "", "identity", "Identity", " identity\t", "  "};
    static const uint8_t bytes[] = {0x1f, 0x8b, 8};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct inflated out;
        struct budget budget = {.limit = 0};
        // The limit is for what comes out of something.
        assert_int_equal(inflate_body(none[i], bytes, 3, 0, &budget, &out), STATUS_OK);
        assert_ptr_equal(out.bytes, bytes);
        assert_int_equal(out.length, 3);
        inflate_release(&out);
    }
}

static void encodings_are_named_in_any_case(void **state)
{
    (void)state;
    static const char *const good[] = {"gzip", "GZIP", "x-GZip", " gzip", "gzip \t"};
    static const char *const bad[] = {
        "br",  "zstd", "compress", "gzip, gzip",   "gzip,identity", "gzipx",
        "gzi", "*",    "gzip;q=1", "deflate gzip", "\xff\xfe",      "x-deflate"};
    struct packed packed = pack_text(GZIP, "text");
    struct inflated out;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(inflate_exact(good[i], packed.bytes, packed.length, 4, NULL, &out),
                         STATUS_OK);
        assert_memory_equal(out.bytes, "text", 4);
        inflate_release(&out);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(inflate_exact(bad[i], packed.bytes, packed.length, 4, NULL, &out),
                         STATUS_UNSUPPORTED_MEDIA);
        assert_non_null(strstr(status_detail(STATUS_UNSUPPORTED_MEDIA), bad[i]));
    }
    free(packed.bytes);
}

static void limit_and_one_more(void **state)
{
    (void)state;
    uint8_t *bytes = make_bytes(20000);
    static const size_t limits[] = {0, 1, 4095, 4096, 4097, 8191, 8192, 12345, 16383, 16384};
    for (int kind = 0; kind < N_KINDS; kind++)
        for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
            for (int over = -1; over <= 1; over++) {
                size_t size = limits[i] + (size_t)over;
                if (size > 20000)
                    continue;
                struct packed packed = pack(kinds[kind].window_bits, 6, bytes, size);
                struct budget budget = {.limit = (int64_t)limits[i] + 1};
                struct inflated out;
                enum status status = inflate_exact(kinds[kind].encoding, packed.bytes,
                                                   packed.length, limits[i], &budget, &out);
                assert_int_equal(status, over > 0 ? STATUS_BODY_TOO_LARGE : STATUS_OK);
                inflate_release(&out);
                free(packed.bytes);
            }
    free(bytes);
}

// 64 MiB of zeros in 64 KiB: refused at the limit, before what follows is even looked at, and for
// no more memory than the limit.
static void bomb_costs_no_more_than_the_limit(void **state)
{
    (void)state;
    enum { SIZE = 64 << 20, LIMIT = 1 << 20 };
    uint8_t *zeros = calloc(1, SIZE);
    assert_non_null(zeros);
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct packed packed = pack(kinds[kind].window_bits, 9, zeros, SIZE);
        assert_true(packed.length < SIZE / 900);
        memset(packed.bytes + packed.length / 2, 0xff, packed.length / 2);
        struct budget budget = {.limit = LIMIT + 1};
        struct inflated out;
        assert_int_equal(
            inflate_exact(kinds[kind].encoding, packed.bytes, packed.length, LIMIT, &budget, &out),
            STATUS_BODY_TOO_LARGE);
        assert_non_null(strstr(status_detail(STATUS_BODY_TOO_LARGE), "1048576 bytes"));
        budget.limit = LIMIT / 2;
        assert_int_equal(
            inflate_exact(kinds[kind].encoding, packed.bytes, packed.length, LIMIT, &budget, &out),
            STATUS_QUEUE_FULL);
        free(packed.bytes);
    }
    free(zeros);
}

static void every_truncation(void **state)
{
    (void)state;
    uint8_t *bytes = make_bytes(6000);
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct packed packed = pack(kinds[kind].window_bits, 6, bytes, 6000);
        for (size_t length = 0; length < packed.length; length++)
            expect_refused(kinds[kind].encoding, packed.bytes, length, ": the data is cut off");
        free(packed.bytes);
    }
    free(bytes);
}

// A bit that is changed is noticed or changes nothing; only raw deflate has no checksum.
static void every_changed_bit(void **state)
{
    (void)state;
    uint8_t *bytes = make_bytes(300);
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct packed packed = pack(kinds[kind].window_bits, 6, bytes, 300);
        size_t noticed = 0;
        for (size_t bit = 0; bit < packed.length * 8; bit++) {
            struct inflated out;
            packed.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            enum status status = inflate_exact(kinds[kind].encoding, packed.bytes, packed.length,
                                               100000, NULL, &out);
            if (status == STATUS_OK && kinds[kind].window_bits != RAW) {
                assert_int_equal(out.length, 300);
                assert_memory_equal(out.bytes, bytes, 300);
            }
            noticed += status == STATUS_BAD_REQUEST;
            inflate_release(&out);
            packed.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        if (kinds[kind].window_bits != RAW)
            assert_true(noticed > packed.length * 7);
        free(packed.bytes);
    }
    free(bytes);
}

static void what_follows_the_end(void **state)
{
    (void)state;
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct packed packed = pack_text(kinds[kind].window_bits, "text");
        uint8_t bytes[100];
        memcpy(bytes, packed.bytes, packed.length);
        memcpy(bytes + packed.length, packed.bytes, packed.length);
        bool gzip = kinds[kind].window_bits == GZIP;
        struct inflated out;
        enum status status =
            inflate_exact(kinds[kind].encoding, bytes, 2 * packed.length, 8, NULL, &out);
        assert_int_equal(status, gzip ? STATUS_OK : STATUS_BAD_REQUEST);
        if (gzip) // two members
            assert_memory_equal(out.bytes, "texttext", 8);
        inflate_release(&out);
        if (gzip) {
            // The limit is for all of them.
            assert_int_equal(inflate_exact("gzip", bytes, 2 * packed.length, 7, NULL, &out),
                             STATUS_BODY_TOO_LARGE);
            expect_refused("gzip", bytes, 2 * packed.length - 1, "gzip: the data is cut off");
        }
        memset(bytes + packed.length, 0, 40);
        expect_refused(kinds[kind].encoding, bytes, packed.length + 40,
                       gzip ? "incorrect header check" : "more data behind the end");
        expect_refused(kinds[kind].encoding, bytes, packed.length + 1,
                       gzip ? "gzip: " : "more data behind the end");
        free(packed.bytes);
    }
}

static void other_data_than_was_said(void **state)
{
    (void)state;
    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F', 'I', 'F'};
    static const uint8_t dictionary[] = {0x78, 0xbb, 0, 0, 0, 1, 3, 0, 0, 0, 0, 1};
    struct packed zlib = pack_text(ZLIB, "text"), gzip = pack_text(GZIP, "text");
    expect_refused("gzip", jpeg, sizeof jpeg, "gzip: byte ");
    expect_refused("gzip", zlib.bytes, zlib.length, "gzip: byte 2: incorrect header check");
    expect_refused("deflate", jpeg, sizeof jpeg, "deflate: byte ");
    expect_refused("deflate", gzip.bytes, gzip.length, "deflate: byte ");
    expect_refused("deflate", dictionary, sizeof dictionary, "a preset dictionary");
    free(zlib.bytes);
    free(gzip.bytes);
}

// inflate_text() into a block of `capacity` bytes.
static void unpacks(const uint8_t *bytes, size_t length, size_t capacity, bool sound, size_t count)
{
    uint8_t *copy = malloc(length ? length : 1), *out = malloc(capacity);
    assert_non_null(copy);
    assert_non_null(out);
    if (length)
        memcpy(copy, bytes, length);
    size_t came = SIZE_MAX;
    assert_int_equal(inflate_text(copy, length, out, capacity, &came), sound);
    if (sound)
        assert_int_equal(came, count);
    free(copy);
    free(out);
}

static void texts_of_pictures(void **state)
{
    (void)state;
    struct packed text = pack_text(ZLIB, "a text that is not long"), raw = pack_text(RAW, "text");
    uint8_t longer[256] = {0};
    memcpy(longer, text.bytes, text.length);
    unpacks(text.bytes, text.length, 100, true, 23);
    unpacks(text.bytes, text.length, 23, true, 23);
    unpacks(text.bytes, text.length, 22, true, 23); // one more than there is room for
    unpacks(longer, sizeof longer, 100, true, 23);  // what follows
    unpacks(text.bytes, text.length - 4, 100, true, 23);
    unpacks(NULL, 0, 100, true, 0);
    unpacks(text.bytes, 2, 100, true, 0);
    longer[text.length - 1] ^= 1;
    unpacks(longer, sizeof longer, 100, false, 0);
    unpacks(raw.bytes, raw.length, 100, false, 0);
    free(text.bytes);
    free(raw.bytes);
}

static void checksums(void **state)
{
    (void)state;
    const uint8_t *text = (const uint8_t *)"123456789"; // the known answer of CRC-32
    assert_int_equal(inflate_crc(0, text, 9), 0xcbf43926);
    assert_int_equal(inflate_crc(inflate_crc(0, text, 4), text + 4, 5), 0xcbf43926);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_and_size),
        cmocka_unit_test(without_encoding_the_bytes_stay_where_they_are),
        cmocka_unit_test(encodings_are_named_in_any_case),
        cmocka_unit_test(limit_and_one_more),
        cmocka_unit_test(bomb_costs_no_more_than_the_limit),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_changed_bit),
        cmocka_unit_test(what_follows_the_end),
        cmocka_unit_test(other_data_than_was_said),
        cmocka_unit_test(texts_of_pictures),
        cmocka_unit_test(checksums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
