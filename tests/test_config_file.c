// server/config.c: what the file and the environment say, and which of them wins; what is wrong
// names the file or the variable, the option, the value and the range.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "parsed_config.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char file_path[] = "test_config.json";

static void write_file(const char *text)
{
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void expect_file_refused(const char *text, const char *words)
{
    write_file(text);
    expect_refused(COMMAND_SERVE, "--config test_config.json", words);
}

static int clear(void **state)
{
    unlink(file_path);
    return clear_environment(state);
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

// A flag names another file than the environment, and the last flag another than the first: one
// file is read, and the others need not be there.
static void which_file(void **state)
{
    (void)state;
    static const char *const lines[] = {"--config test_config.json", "--config=test_config.json",
                                        "--config nowhere.json --config test_config.json",
                                        "--config=nowhere.json a --config=test_config.json b"};
    write_file("{\"top_k\": 3}");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        for (int both = 0; both < 2; both++) {
            if (both)
                setenv("VITSERVE_CONFIG", "nowhere-either.json", 1);
            else
                unsetenv("VITSERVE_CONFIG");
            struct parsed parsed = read_words(COMMAND_CLASSIFY, lines[i]);
            assert_int_equal(parsed.status, STATUS_OK);
            assert_int_equal(parsed.config.top_k, 3);
            assert_string_equal(parsed.config.config, "test_config.json");
            config_release(&parsed.config);
        }
    expect_refused(COMMAND_SERVE, "", "nowhere-either.json");
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
        cmocka_unit_test_setup(every_option_goes_round, clear),
        cmocka_unit_test_setup(precedence, clear),
        cmocka_unit_test_setup(which_file, clear),
        cmocka_unit_test_setup(wrong_files, clear),
        cmocka_unit_test_setup(byte_order_mark, clear),
        cmocka_unit_test_setup(empty_variables, clear),
        cmocka_unit_test_setup(environment, clear),
    };
    return cmocka_run_group_tests(tests, NULL, clear);
}
