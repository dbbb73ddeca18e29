// server/config.c: the table of options, its help and the flags; what is wrong names the option,
// the value and the range. Files and variables are test_config_file.c's.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "parsed_config.h"
#include <stdlib.h>
#include <string.h>

// ---- the table ----------------------------------------------------------------------------------

static const char defaults[] =
    "{'model': 'fashion_vit', 'weights': '', 'weights_dir': '~/.cache/vitserve',"
    " 'random_weights': '', 'labels': '', 'device': 'auto', 'precision': 'auto', 'threads': 0,"
    " 'decode_threads': 0, 'max_batch': 0, 'max_queue': 0, 'exif_orientation': 'apply',"
    " 'fast_decode': false, 'top_k': 5, 'max_pixels': 64000000, 'max_request_pixels': 0,"
    " 'max_decode_bytes': 0, 'listen': '127.0.0.1', 'admin_listen': '', 'port': 8080,"
    " 'admin_port': -1, 'max_body_bytes': 33554432, 'max_images': 64,"
    " 'max_inflight_bytes': 536870912, 'max_connections': 4096,"
    " 'max_connections_per_address': 1024, 'trusted_proxies': '', 'allowed_hosts': '',"
    " 'idle_timeout_ms': 60000, 'request_timeout_ms': 10000, 'drain_delay_ms': 0,"
    " 'drain_timeout_ms': 30000, 'api_key_file': '', 'tls_cert': '', 'tls_key': '',"
    " 'cors_origin': '', 'log_level': 'info', 'log_format': 'text', 'print_config': false,"
    " 'json': false, 'logits': false, 'batch': '1,2,4,8,16,32', 'seconds': 3, 'format': 'text',"
    " 'dir': '', 'url': '', 'sha256': ''}";

static void documented_defaults(void **state)
{
    (void)state;
    char text[sizeof defaults];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(defaults[i] == '\'' ? '"' : defaults[i]);
    json_t *expected = json_loads(text, 0, NULL), *found = default_json(), *value;
    const char *name;
    assert_non_null(expected);
    json_object_foreach(expected, name, value)
    {
        if (!json_equal(json_object_get(found, name), value))
            fail_msg("%s: another default", name);
    }
    json_decref(expected);
    json_decref(found);
}

// One number of the help text: its default lies in its range, both ends of which are accepted and
// the numbers beyond refused.
static void check_range(enum command command, const char *name, long long min, long long max,
                        long long value)
{
    const struct {
        long long number;
        bool good;
    } rows[] = {{min, true}, {max, true}, {value, true}, {min - 1, false}, {max + 1, false}};
    char line[128], words[128];
    assert_in_range(value - min, 0, max - min);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(line, sizeof line, "--%s=%lld", name, rows[i].number);
        if (rows[i].good) {
            struct parsed parsed = read_words(command, line);
            assert_int_equal(parsed.status, STATUS_OK);
            config_release(&parsed.config);
        } else {
            snprintf(words, sizeof words, "--%s: \"%lld\" %lld to %lld", name, rows[i].number, min,
                     max);
            expect_refused(command, line, words);
        }
    }
}

// The same for one choice: each is accepted, and what only begins like one is not.
static void check_choices(enum command command, const char *name, const char *choices)
{
    char line[128], choice[32];
    for (int length; sscanf(choices, "%31[^|]%n", choice, &length) == 1;
         choices += length + (choices[length] == '|')) {
        snprintf(line, sizeof line, "--%s %s", name, choice);
        struct parsed parsed = read_words(command, line);
        assert_int_equal(parsed.status, STATUS_OK);
        config_release(&parsed.config);
        choice[strlen(choice) - 1] = '\0';
        snprintf(line, sizeof line, "--%s %s", name, choice);
        expect_refused(command, line, choice);
    }
}

static void help_lists_every_option_with_its_range(void **state)
{
    (void)state;
    static const struct {
        enum command command;
        int options, numbers, choices;
    } commands[] = {
        {COMMAND_SERVE, 20, 12, 4}, {COMMAND_CLASSIFY, 12, 5, 4}, {COMMAND_MODEL, 4, 0, 2}};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char *text = NULL, *line, *rest;
        size_t length;
        FILE *out = open_memstream(&text, &length);
        config_print_help(commands[i].command, out);
        assert_int_equal(fclose(out), 0);
        int options = 0, numbers = 0, choices = 0;
        char name[64] = "", value[128];
        for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            long long min, max, number;
            const char *range = strrchr(line, '(');
            value[0] = '\0';
            if (sscanf(line, "  --%63s %127s", name, value) >= 1) {
                options++;
                if (strchr(value, '|')) {
                    choices++;
                    check_choices(commands[i].command, name, value);
                }
            } else if (range &&
                       sscanf(range, "(%lld to %lld, default %lld)", &min, &max, &number) == 3) {
                numbers++;
                check_range(commands[i].command, name, min, max, number);
            }
        }
        free(text);
        assert_in_range(options, commands[i].options, 100);
        assert_in_range(numbers, commands[i].numbers, 100);
        assert_in_range(choices, commands[i].choices, 100);
    }
}

// ---- flags --------------------------------------------------------------------------------------

static void flags_and_words(void **state)
{
    (void)state;
    struct parsed parsed = read_words(
        COMMAND_CLASSIFY, "a.jpg --top-k 3 b.jpg --MODEL=vit_l_16 --json - -- --top-k -- c.jpg");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.config.top_k, 3);
    assert_int_equal(parsed.config.json, 1);
    assert_string_equal(parsed.config.model, "vit_l_16");
    static const char *const words[] = {"a.jpg", "b.jpg", "-", "--top-k", "--", "c.jpg"};
    assert_int_equal(parsed.words, 6);
    for (int i = 0; i < 6; i++)
        assert_string_equal(parsed.argv[i], words[i]);
    config_release(&parsed.config);
}

static void last_flag_wins(void **state)
{
    (void)state;
    struct parsed parsed =
        read_words(COMMAND_CLASSIFY, "--top-k 3 --top-k=4 --weights a=b --json --json=0 --labels=");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.config.top_k, 4);
    assert_int_equal(parsed.config.json, 0);
    assert_string_equal(parsed.config.weights, "a=b");
    assert_string_equal(parsed.config.labels, "");
    config_release(&parsed.config);
}

static void devices(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t number;
    } rows[] = {
        {"auto", DEVICE_AUTO},
        {"cpu", DEVICE_CPU},
        {"cuda", DEVICE_CUDA},
        {"cuda:all", DEVICE_CUDA_ALL},
        {"cuda:0", DEVICE_GPU},
        {"cuda:9", DEVICE_GPU + 9},
        {"cuda:15", DEVICE_GPU + DEVICE_MAX_GPUS - 1},
    };
    char line[64];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(line, sizeof line, "--device %s", rows[i].text);
        struct parsed parsed = read_words(COMMAND_SERVE, line);
        assert_int_equal(parsed.status, STATUS_OK);
        assert_int_equal(parsed.config.device, rows[i].number);
        json_t *root = config_json(&parsed.config);
        assert_string_equal(json_string_value(json_object_get(root, "device")), rows[i].text);
        json_decref(root);
        config_release(&parsed.config);
    }
    static const char *const others[] = {
        "cuda:16", "cuda:", "cuda:-1", "cuda:+1",  "cuda:1x", "cuda:a",
        "cuda0",   "cpu:0", "CUDA:1",  "cuda:1,2", "gpu:0",   "cuda:18446744073709551616"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char words[64];
        snprintf(line, sizeof line, "--device %s", others[i]);
        snprintf(words, sizeof words, "--device: \"%s\" none", others[i]);
        expect_refused(COMMAND_SERVE, line, words);
    }
}

static void wrong_flags(void **state)
{
    (void)state;
    expect_refused(COMMAND_SERVE, "--prot 80", "--prot --help");
    expect_refused(COMMAND_SERVE, "--prot=80", "--prot=80");
    expect_refused(COMMAND_SERVE, "--json", "--json");
    expect_refused(COMMAND_CLASSIFY, "--port 80", "--port");
    expect_refused(COMMAND_MODEL, "--weights a", "--weights");
    expect_refused(COMMAND_SERVE, "--=5", "--=5");
    expect_refused(COMMAND_SERVE, "--port", "--port needs a value");
    expect_refused(COMMAND_SERVE, "--model a --port", "--port needs a value");
    expect_refused(COMMAND_SERVE, "--max_batch 5", "--max_batch");
    expect_refused(COMMAND_SERVE,
                   "--1234567890123456789012345678901234567890123456789012345678901234567890=1",
                   "--12345678901234567890123456789012345678901234567890123456789012");
}

static void wrong_values(void **state)
{
    (void)state;
    static const char *const numbers[] = {"x",    "80x", "8 0",    "0x50",
                                          "80.0", "1e3", "-1",     "65536",
                                          "",     "--1", "65535-", "99999999999999999999"};
    char line[64], word[128];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char *argv[] = {line};
        struct config config;
        int words;
        snprintf(line, sizeof line, "--port=%s", numbers[i]);
        enum status status = config_read(&config, COMMAND_SERVE, 1, argv, &words);
        config_release(&config);
        assert_int_equal(status, STATUS_USAGE);
        snprintf(word, sizeof word, "--port: \"%s\" is not a whole number from 0 to 65535",
                 numbers[i]);
        assert_string_equal(status_detail(status), word);
    }
    expect_refused(COMMAND_SERVE, "--device gpu", "--device: \"gpu\" none auto cpu cuda");
    expect_refused(COMMAND_SERVE, "--device CPU", "--device: \"CPU\"");
    expect_refused(COMMAND_SERVE, "--device auto|cpu", "--device: \"auto|cpu\"");
    expect_refused(COMMAND_SERVE, "--device=", "--device: \"\" none auto");
    expect_refused(COMMAND_SERVE, "--device 1", "--device: \"1\"");
    expect_refused(COMMAND_SERVE, "--precision fp64", "--precision: \"fp64\" bf16");
    expect_refused(COMMAND_SERVE, "--print-config=2", "--print-config: \"2\" 0 to 1");
    expect_refused(COMMAND_SERVE, "--print-config=yes", "--print-config: \"yes\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(documented_defaults, clear_environment),
        cmocka_unit_test_setup(help_lists_every_option_with_its_range, clear_environment),
        cmocka_unit_test_setup(flags_and_words, clear_environment),
        cmocka_unit_test_setup(last_flag_wins, clear_environment),
        cmocka_unit_test_setup(devices, clear_environment),
        cmocka_unit_test_setup(wrong_flags, clear_environment),
        cmocka_unit_test_setup(wrong_values, clear_environment),
    };
    return cmocka_run_group_tests(tests, NULL, clear_environment);
}
