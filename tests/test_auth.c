// server/auth.c and server/secret.c: what a file of keys may hold, which headers bring one, and a
// reload beside the checks of other threads.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "auth.h"
#include "secret.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char file_path[] = "test_auth.keys";

static void write_bytes(const char *bytes, size_t length)
{
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void write_file(const char *text)
{
    write_bytes(text, strlen(text));
}

static struct auth *open_keys(const char *text)
{
    struct auth *auth = NULL;
    write_file(text);
    if (auth_open(file_path, &auth) != STATUS_OK)
        fail_msg("%s", status_detail(STATUS_USAGE));
    unlink(file_path);
    return auth;
}

static void expect_known(struct auth *auth, const char *header)
{
    if (auth_check(auth, header) != STATUS_OK)
        fail_msg("refused: %s", header);
}

static void expect_unknown(struct auth *auth, const char *header)
{
    if (auth_check(auth, header) != STATUS_UNAUTHORIZED)
        fail_msg("let in: %s", header ? header : "(none)");
}

// ---- headers ------------------------------------------------------------------------------------

static void headers(void **state)
{
    (void)state;
    struct auth *auth = open_keys("correct-horse\n");
    expect_known(auth, "Bearer correct-horse");
    expect_known(auth, "bearer correct-horse");
    expect_known(auth, "BEARER correct-horse");
    expect_known(auth, "Bearer    correct-horse");
    expect_known(auth, "Bearer correct-horse \t");

    static const char *const others[] = {NULL,
                                         "",
                                         "correct-horse",
                                         "Bearer",
                                         "Bearer ",
                                         "Bearer    ",
                                         "Bearercorrect-horse",
                                         "Bearer\tcorrect-horse",
                                         "Bearer \tcorrect-horse",
                                         " Bearer correct-horse",
                                         "Basic correct-horse",
                                         "Basic Y29ycmVjdDpob3JzZQ==",
                                         "Bearer Bearer correct-horse",
                                         "Bearer correct-horse correct-horse",
                                         "Bearer correct-horse, correct-horse",
                                         "Bearer correct horse",
                                         "Bearer \"correct-horse\"",
                                         "Bearer Correct-Horse",
                                         "Bearer correct-hors",
                                         "Bearer orrect-horse",
                                         "Bearer c",
                                         "Bearer correct-horses",
                                         "Bearer correct-horsf",
                                         "Bearer dorrect-horse",
                                         "Bearer correct-horse\x80"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        expect_unknown(auth, others[i]);
    auth_close(auth);
}

// One byte changed, removed or added anywhere is another key.
static void every_byte_counts(void **state)
{
    (void)state;
    enum { LENGTH = 512 };
    char key[LENGTH + 1] = "", header[LENGTH + 16];
    for (size_t i = 0; i < LENGTH; i++)
        key[i] = (char)('!' + i % ('~' - '!' + 1));
    key[0] = 'k'; // "#" would be a comment's
    struct auth *auth = open_keys(key);
    snprintf(header, sizeof header, "Bearer %s", key);
    expect_known(auth, header);
    for (size_t i = 7; i < LENGTH + 7; i++) {
        header[i] ^= 1;
        expect_unknown(auth, header);
        header[i] ^= 1;
        char kept = header[i];
        header[i] = '\0';
        expect_unknown(auth, header);
        header[i] = kept;
    }
    expect_known(auth, header);
    strcat(header, "k");
    expect_unknown(auth, header);
    auth_close(auth);
}

static void byte_order_mark(void **state)
{
    (void)state;
    struct auth *auth = open_keys("\xef\xbb\xbf"
                                  "first\nsecond\n");
    expect_known(auth, "Bearer first");
    expect_known(auth, "Bearer second");
    expect_unknown(auth, "Bearer \xef\xbb\xbf"
                         "first");
    auth_close(auth);
    auth = open_keys("\xef\xbb\xbf# of a team\nfirst");
    expect_known(auth, "Bearer first");
    auth_close(auth);
}

static void several_keys(void **state)
{
    (void)state;
    struct auth *auth = open_keys("# the keys of two teams\r\n"
                                  "first\r\n"
                                  "\n"
                                  " \t \n"
                                  "  # of the other one\n"
                                  "\t second#2 \n"
                                  "!\n"
                                  "first\n"
                                  "#third\n"
                                  "#\n"
                                  "fourth");
    expect_known(auth, "Bearer first");
    expect_known(auth, "Bearer second#2");
    expect_known(auth, "Bearer !");
    expect_known(auth, "Bearer fourth");
    expect_unknown(auth, "Bearer #third");
    expect_unknown(auth, "Bearer #");
    expect_unknown(auth, "Bearer third");
    expect_unknown(auth, "Bearer second");
    expect_unknown(auth, "Bearer firstsecond#2");
    expect_unknown(auth, "Bearer first\r");
    auth_close(auth);
}

// ---- the file -----------------------------------------------------------------------------------

// The file is refused; the detail names it and holds `word`, but nothing of the secret ones.
static void expect_refused(enum status expected, const char *word)
{
    struct auth *auth = NULL;
    enum status status = auth_open(file_path, &auth);
    assert_null(auth);
    if (status != expected)
        fail_msg("%s, not %s", status_code(status), status_code(expected));
    const char *detail = status_detail(status);
    if (!strstr(detail, file_path) || !strstr(detail, word) || strstr(detail, "secret"))
        fail_msg("no \"%s\" in: %s", word, detail);
}

static void files_that_are_refused(void **state)
{
    (void)state;
    unlink(file_path);
    expect_refused(STATUS_IO, "No such file");
    mkdir(file_path, 0700);
    expect_refused(STATUS_IO, "directory");
    rmdir(file_path);
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"", "empty"},
        {"\n", "no key"},
        {" \r\n\n\t", "no key"},
        {"# secret\n  # secret", "no key"},
        {"secret one\n", "line 1"},
        {"good\n\nsecret # mine\n", "line 3"},
        {"good\nsecret\x7f", "line 2"},
        {"good\nsecret\x01", "line 2"},
        {"s\xc3\xa9"
         "cret",
         "line 1"},
        {"good\n\xef\xbb\xbfsecret", "line 2"},
        {"\xef\xbb\xbf", "no key"},
        {"good\nsecret\vgood", "line 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(cases[i].text);
        expect_refused(STATUS_USAGE, cases[i].word);
    }
    write_bytes("good\nsecret\0more\n", 17);
    expect_refused(STATUS_USAGE, "zero");
    unlink(file_path);
}

static void lengths(void **state)
{
    (void)state;
    char text[516];
    memset(text, 's', sizeof text);
    write_bytes(text, 513);
    expect_refused(STATUS_USAGE, "line 1");
    memset(text, ' ', 2);
    write_bytes(text, 514);
    struct auth *auth;
    assert_int_equal(auth_open(file_path, &auth), STATUS_OK);
    auth_close(auth);
    unlink(file_path);
}

// `count` keys "k0", "k1", ... and as many comments.
static void write_keys(int count)
{
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    for (int i = 0; i < count; i++)
        fprintf(file, "# number %d\nk%d\n", i, i);
    assert_int_equal(fclose(file), 0);
}

static void many_keys(void **state)
{
    (void)state;
    char header[32];
    struct auth *auth;
    write_keys(1024);
    assert_int_equal(auth_open(file_path, &auth), STATUS_OK);
    for (int i = 0; i < 1024; i++) {
        snprintf(header, sizeof header, "Bearer k%d", i);
        expect_known(auth, header);
    }
    expect_unknown(auth, "Bearer k1024");
    expect_unknown(auth, "Bearer k");
    auth_close(auth);
    write_keys(1025);
    expect_refused(STATUS_USAGE, "1024 keys");
    unlink(file_path);
}

static void sizes(void **state)
{
    (void)state;
    enum { LIMIT = 256 * 1024 };
    char *text = malloc(LIMIT + 1), *read;
    memset(text, '#', LIMIT + 1);
    write_bytes(text, LIMIT);
    assert_int_equal(secret_read(file_path, &read), STATUS_OK);
    assert_int_equal(strlen(read), LIMIT);
    secret_free(read);
    write_bytes(text, LIMIT + 1);
    expect_refused(STATUS_USAGE, "262144 bytes");
    free(text);
    unlink(file_path);
    secret_free(NULL);
}

// ---- reload -------------------------------------------------------------------------------------

static void reload(void **state)
{
    (void)state;
    struct auth *auth = open_keys("old\nboth\n");
    write_file("both\nnew\n");
    assert_int_equal(auth_reload(auth), STATUS_OK);
    expect_unknown(auth, "Bearer old");
    expect_known(auth, "Bearer both");
    expect_known(auth, "Bearer new");

    static const char *const broken[] = {"", "# nothing\n", "two words\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        write_file(broken[i]);
        assert_int_equal(auth_reload(auth), STATUS_USAGE);
        assert_non_null(strstr(status_detail(STATUS_USAGE), file_path));
        expect_known(auth, "Bearer new");
    }
    unlink(file_path);
    assert_int_equal(auth_reload(auth), STATUS_IO);
    expect_known(auth, "Bearer both");
    expect_known(auth, "Bearer new");
    auth_close(auth);
}

struct clients {
    struct auth *auth;
    atomic_bool stop;
    atomic_int checks, wrong;
};

static void *check_always(void *argument)
{
    struct clients *clients = argument;
    while (!atomic_load(&clients->stop)) {
        bool wrong = auth_check(clients->auth, "Bearer kept") != STATUS_OK ||
                     auth_check(clients->auth, "Bearer never") != STATUS_UNAUTHORIZED;
        atomic_fetch_add(&clients->wrong, wrong);
        atomic_fetch_add(&clients->checks, 1);
    }
    return NULL;
}

// A key that is in every version of the file is known at every moment.
static void reload_beside_checks(void **state)
{
    (void)state;
    enum { THREADS = 4, RELOADS = 500 };
    struct clients clients = {.auth = open_keys("kept\n")};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, check_always, &clients), 0);
    while (atomic_load(&clients.checks) < THREADS)
        usleep(1000);
    for (int i = 0; i < RELOADS; i++) {
        write_file(i % 3 == 0 ? "kept\n" : i % 3 == 1 ? "a\nb\nc\nkept\n" : "");
        enum status status = auth_reload(clients.auth);
        assert_int_equal(status, i % 3 == 2 ? STATUS_USAGE : STATUS_OK);
    }
    atomic_store(&clients.stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&clients.wrong), 0);
    auth_close(clients.auth);
    unlink(file_path);
}

static void no_core_with_keys(void **state)
{
    (void)state;
#ifdef BUILT_SANITIZED
    skip();
#endif
    prctl(PR_SET_DUMPABLE, 1);
    struct auth *auth;
    write_file("key\n");
    assert_int_equal(auth_open(file_path, &auth), STATUS_OK);
    assert_int_equal(prctl(PR_GET_DUMPABLE), 0);
    auth_close(auth);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(every_byte_counts),
        cmocka_unit_test(byte_order_mark),
        cmocka_unit_test(several_keys),
        cmocka_unit_test(files_that_are_refused),
        cmocka_unit_test(lengths),
        cmocka_unit_test(many_keys),
        cmocka_unit_test(sizes),
        cmocka_unit_test(reload),
        cmocka_unit_test(reload_beside_checks),
        cmocka_unit_test(no_core_with_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
