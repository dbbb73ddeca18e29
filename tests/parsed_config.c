#include "parsed_config.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct parsed read_words(enum command command, const char *line)
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

void expect_refused(enum command command, const char *line, const char *words)
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

json_t *config_json(const struct config *config)
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

json_t *default_json(void)
{
    struct parsed parsed = read_words(COMMAND_SERVE, "");
    assert_int_equal(parsed.status, STATUS_OK);
    json_t *root = config_json(&parsed.config);
    config_release(&parsed.config);
    return root;
}

int clear_environment(void **state)
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
    return 0;
}
