// server/config.c: every row of the option table can be given as a flag, a variable and a member of
// the file, in this order of precedence; what is wrong names the option, the value and the range.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "config.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char file_path[] = "test_config.json";

struct parsed {
    struct config config;
    enum status status;
    char *argv[16];
    int words;
};

// Reads the configuration from a command line of words without blanks.
static struct parsed read_words(enum command command, const char *line)
{
    static char words[512];
    struct parsed parsed = {0};
    int argc = 0;
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        parsed.argv[argc++] = word;
    parsed.status = config_read(&parsed.config, command, argc, parsed.argv, &parsed.words);
    return parsed;
}

static void write_file(const char *text)
{
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

// The command line is refused, and the detail holds each of the blank-separated words.
static void expect_refused(enum command command, const char *line, const char *words)
{
    struct parsed parsed = read_words(command, line);
    config_release(&parsed.config);
    char word[256];
    if (parsed.status != STATUS_USAGE)
        fail_msg("%s: %s", line, status_code(parsed.status));
    for (int length; sscanf(words, "%255s%n", word, &length) == 1; words += length)
        if (!strstr(status_detail(STATUS_USAGE), word))
            fail_msg("%s: no \"%s\" in: %s", line, word, status_detail(STATUS_USAGE));
}

static void expect_file_refused(const char *text, const char *words)
{
    write_file(text);
    expect_refused(COMMAND_SERVE, "--config test_config.json", words);
}

// What --print-config shows, without "config" itself.
static json_t *config_json(const struct config *config)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    assert_int_equal(config_print_json(config, out), STATUS_OK);
    assert_int_equal(fclose(out), 0);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    assert_int_equal(json_object_del(root, "config"), 0);
    return root;
}

static json_t *default_json(void)
{
    struct parsed parsed = read_words(COMMAND_SERVE, "");
    assert_int_equal(parsed.status, STATUS_OK);
    json_t *root = config_json(&parsed.config);
    config_release(&parsed.config);
    return root;
}

static int clear_environment(void **state)
{
    (void)state;
    json_t *value, *root;
    const char *name;
    static const char *const others[] = {"VITSERVE_CONFIG", "VITSERVE_PORT_8080_TCP"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        unsetenv(others[i]);
    unsetenv("VITSERVE_TOP_K");
    unsetenv("VITSERVE_PORT");
    root = default_json();
    json_object_foreach(root, name, value)
    {
        char variable[64] = "VITSERVE_";
        for (size_t i = 0; name[i]; i++)
            variable[9 + i] = (char)(name[i] == '_' ? '_' : name[i] - 'a' + 'A');
        unsetenv(variable);
    }
    json_decref(root);
    unlink(file_path);
    return 0;
}

// ---- the table ----------------------------------------------------------------------------------

static void documented_defaults(void **state)
{
    (void)state;
    struct parsed parsed = read_words(COMMAND_SERVE, "");
    const struct config *config = &parsed.config;
    assert_int_equal(parsed.status, STATUS_OK);
    assert_string_equal(config->model, "fashion_vit");
    assert_string_equal(config->weights_dir, "~/.cache/vitserve");
    assert_string_equal(config->random_weights, "");
    assert_int_equal(config->device, DEVICE_AUTO);
    assert_int_equal(config->precision, PRECISION_AUTO);
    assert_string_equal(config->listen, "127.0.0.1");
    assert_int_equal(config->port, 8080);
    assert_int_equal(config->top_k, 5);
    assert_int_equal(config->exif_orientation, 1);
    assert_int_equal(config->max_body_bytes, 32 << 20);
    assert_int_equal(config->max_pixels, 64 * 1000 * 1000);
    assert_int_equal(config->max_images, 64);
    assert_int_equal(config->max_inflight_bytes, 512 << 20);
    assert_int_equal(config->max_connections, 4096);
    assert_int_equal(config->drain_timeout_ms, 30000);
    assert_int_equal(config->log_level, LOG_INFO);
    assert_int_equal(config->print_config, 0);
    config_release(&parsed.config);
}

// What is printed can be read back, from the file and from the environment.
static void every_option_goes_round(void **state)
{
    (void)state;
    json_t *expected = default_json(), *value;
    const char *name;
    assert_int_equal(json_dump_file(expected, file_path, 0), 0);
    struct parsed parsed = read_words(COMMAND_SERVE, "--config test_config.json");
    assert_int_equal(parsed.status, STATUS_OK);
    json_t *read = config_json(&parsed.config);
    assert_true(json_equal(expected, read));
    json_decref(read);
    config_release(&parsed.config);

    json_object_foreach(expected, name, value)
    {
        char variable[64], text[64];
        snprintf(variable, sizeof variable, "VITSERVE_%s", name);
        for (char *c = variable; *c; c++)
            *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
        if (json_is_integer(value))
            snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
        else
            snprintf(text, sizeof text, "%s",
                     json_is_string(value) ? json_string_value(value) : "0");
        setenv(variable, text, 1);
    }
    parsed = read_words(COMMAND_SERVE, "");
    assert_int_equal(parsed.status, STATUS_OK);
    read = config_json(&parsed.config);
    assert_true(json_equal(expected, read));
    json_decref(read);
    json_decref(expected);
    config_release(&parsed.config);
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

// ---- file and environment -----------------------------------------------------------------------

static void precedence(void **state)
{
    (void)state;
    write_file("{\"top_k\": 1, \"port\": 1, \"max_images\": 1}");
    setenv("VITSERVE_TOP_K", "2", 1);
    setenv("VITSERVE_PORT", "2", 1);
    struct parsed parsed = read_words(COMMAND_SERVE, "--top-k 3 --config=test_config.json");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.config.top_k, 3);
    assert_int_equal(parsed.config.port, 2);
    assert_int_equal(parsed.config.max_images, 1);
    assert_int_equal(parsed.config.max_connections, 4096);
    assert_string_equal(parsed.config.config, "test_config.json");
    config_release(&parsed.config);

    // The file itself may come from the environment; options of other commands do no harm in it.
    write_file(
        "{\"top_k\": 4, \"json\": true, \"logits\": 1, \"device\": \"cpu\", \"port\": \"9\"}");
    setenv("VITSERVE_CONFIG", file_path, 1);
    unsetenv("VITSERVE_TOP_K");
    unsetenv("VITSERVE_PORT");
    parsed = read_words(COMMAND_SERVE, "");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.config.top_k, 4);
    assert_int_equal(parsed.config.json, 1);
    assert_int_equal(parsed.config.logits, 1);
    assert_int_equal(parsed.config.device, DEVICE_CPU);
    assert_int_equal(parsed.config.port, 9);
    config_release(&parsed.config);
    // What follows "--" is no flag.
    setenv("VITSERVE_CONFIG", "", 1);
    parsed = read_words(COMMAND_CLASSIFY, "-- --config nowhere.json");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.config.top_k, 5);
    config_release(&parsed.config);
}

static void wrong_files(void **state)
{
    (void)state;
    expect_refused(COMMAND_SERVE, "--config nowhere.json", "nowhere.json");
    expect_refused(COMMAND_SERVE, "--config /", "/:");
    expect_file_refused("", "test_config.json line 1");
    expect_file_refused("{\"top_k\": 1,\n\n}", "test_config.json: line 3");
    expect_file_refused("[1]", "test_config.json object");
    expect_file_refused("{\"top_k\": 1, \"top_k\": 2}", "duplicate top_k");
    expect_file_refused("{\"topk\": 1}", "test_config.json: \"topk\" no option");
    expect_file_refused("{\"config\": \"other.json\"}", "\"config\" no option");
    expect_file_refused("{\"top_k\": 0}", "\"top_k\": \"0\" 1 to");
    expect_file_refused("{\"top_k\": 1.0}", "\"top_k\"");
    expect_file_refused("{\"top_k\": null}", "\"top_k\"");
    expect_file_refused("{\"top_k\": true}", "\"top_k\"");
    expect_file_refused("{\"top_k\": [1]}", "\"top_k\"");
    expect_file_refused("{\"top_k\": \"x\"}", "\"top_k\": \"x\"");
    expect_file_refused("{\"top_k\": 99999999999999999999}", "test_config.json big");
    expect_file_refused("{\"device\": \"gpu\"}", "\"device\": \"gpu\" cpu");
}

static void byte_order_mark(void **state)
{
    (void)state;
    write_file("\xef\xbb\xbf{\"top_k\": 3}");
    struct parsed parsed = read_words(COMMAND_SERVE, "--config test_config.json");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.config.top_k, 3);
    config_release(&parsed.config);
    expect_file_refused("\xef\xbb{}", "test_config.json: line");
    expect_file_refused("\xef\xbb\xbf", "test_config.json: line");
    expect_file_refused("{", "test_config.json: line 1");
}

// As of Compose's ${VARIABLE} that nobody has set: what the file says stays.
static void empty_variables(void **state)
{
    (void)state;
    static const char *const names[] = {"VITSERVE_TOP_K", "VITSERVE_LOG_FORMAT", "VITSERVE_DEVICE",
                                        "VITSERVE_CPU_ONLY", "VITSERVE_LISTEN"};
    write_file("{\"top_k\": 3, \"log_format\": \"json\", \"listen\": \"::1\"}");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        setenv(names[i], "", 1);
    struct parsed parsed = read_words(COMMAND_SERVE, "--config test_config.json");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.config.top_k, 3);
    assert_string_equal(parsed.config.listen, "::1");
    config_release(&parsed.config);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    expect_refused(COMMAND_SERVE, "--top-k=", "--top-k");
}

static void environment(void **state)
{
    (void)state;
    setenv("VITSERVE_TOP_K", "0", 1);
    expect_refused(COMMAND_SERVE, "", "VITSERVE_TOP_K: \"0\" 1 to");
    setenv("VITSERVE_TOP_K", "7", 1);
    // Kubernetes' variables beside a Service called vitserve.
    setenv("VITSERVE_PORT", "tcp://10.0.0.1:8080", 1);
    setenv("VITSERVE_PORT_8080_TCP", "tcp://10.0.0.1:8080", 1);
    struct parsed parsed = read_words(COMMAND_SERVE, "");
    assert_int_equal(parsed.status, STATUS_OK);
    assert_int_equal(parsed.config.top_k, 7);
    assert_int_equal(parsed.config.port, 8080);
    config_release(&parsed.config);
    setenv("VITSERVE_PORT", "udp://10.0.0.1:8080", 1);
    expect_refused(COMMAND_SERVE, "", "VITSERVE_PORT: \"udp://10.0.0.1:8080\" 0 to 65535");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(documented_defaults, clear_environment),
        cmocka_unit_test_setup(every_option_goes_round, clear_environment),
        cmocka_unit_test_setup(help_lists_every_option_with_its_range, clear_environment),
        cmocka_unit_test_setup(flags_and_words, clear_environment),
        cmocka_unit_test_setup(last_flag_wins, clear_environment),
        cmocka_unit_test_setup(wrong_flags, clear_environment),
        cmocka_unit_test_setup(wrong_values, clear_environment),
        cmocka_unit_test_setup(precedence, clear_environment),
        cmocka_unit_test_setup(wrong_files, clear_environment),
        cmocka_unit_test_setup(byte_order_mark, clear_environment),
        cmocka_unit_test_setup(empty_variables, clear_environment),
        cmocka_unit_test_setup(environment, clear_environment),
    };
    return cmocka_run_group_tests(tests, NULL, clear_environment);
}
