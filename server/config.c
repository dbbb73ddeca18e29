#include "json.h"
#include "memory.h"
#include "options.h"
#include "utf8.h"
#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static char **text_field(struct config *config, const struct option *option)
{
    return (char **)(void *)((char *)config + option->field);
}

static int64_t *number_field(struct config *config, const struct option *option)
{
    return (int64_t *)(void *)((char *)config + option->field);
}

// The position of `text` in "a|b|c", or -1.
static int choice_index(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (int i = 0; choices; i++) {
        if (strcspn(choices, "|") == length && strncmp(choices, text, length) == 0)
            return i;
        choices = strchr(choices, '|');
        choices = choices ? choices + 1 : NULL;
    }
    return -1;
}

static void choice_name(const char *choices, int64_t index, char *name, size_t size)
{
    for (; index > 0; index--)
        choices = strchr(choices, '|') + 1;
    snprintf(name, size, "%.*s", (int)strcspn(choices, "|"), choices);
}

// An enum device: one of the choices, or "cuda:N" by its number; -1 for neither.
static int64_t device_number(const char *text)
{
    char *end;
    int index = choice_index("auto|cpu|cuda|cuda:all", text);
    if (index >= 0 || strncmp(text, "cuda:", 5) != 0 || text[5] < '0' || text[5] > '9')
        return index;
    errno = 0;
    long gpu = strtol(text + 5, &end, 10);
    return *end || errno || gpu >= DEVICE_MAX_GPUS ? -1 : DEVICE_GPU + gpu;
}

static enum status set_text(char **field, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return status_fail(STATUS_OUT_OF_MEMORY, "options: out of memory");
    free(*field);
    *field = copy;
    return STATUS_OK;
}

static enum status set_option(struct config *config, const struct option *option, const char *text,
                              const char *where)
{
    if (option->type == OPTION_TEXT)
        return set_text(text_field(config, option), text);
    int64_t number;
    if (option->type == OPTION_CHOICE || option->type == OPTION_DEVICE) {
        number = option->type == OPTION_DEVICE ? device_number(text)
                                               : choice_index(option->choices, text);
        if (number < 0)
            return status_fail(STATUS_USAGE, "%s: \"%s\" is none of %s", where, text,
                               option->choices);
    } else {
        int64_t max = option->type == OPTION_FLAG ? 1 : option->max;
        char *end;
        errno = 0;
        number = strtoll(text, &end, 10);
        if (end == text || *end || errno || number < option->min || number > max)
            return status_fail(STATUS_USAGE, "%s: \"%s\" is not a whole number from %lld to %lld",
                               where, text, (long long)option->min, (long long)max);
    }
    *number_field(config, option) = number;
    return STATUS_OK;
}

static enum status set_defaults(struct config *config)
{
    *config = (struct config){0};
    for (size_t i = 0; i < options_count; i++) {
        if (options[i].default_text)
            TRY(set_option(config, &options[i], options[i].default_text, options[i].name));
        else
            *number_field(config, &options[i]) = options[i].default_number;
    }
    return STATUS_OK;
}

// The option called `name`, where `separator` stands for the dashes of the table, letters in
// either case.
static const struct option *find_option(const char *name, char separator)
{
    char wanted[64];
    size_t length = strlen(name);
    if (length >= sizeof wanted)
        return NULL;
    for (size_t i = 0; i <= length; i++)
        wanted[i] = name[i] == separator ? '-' : name[i];
    for (size_t i = 0; i < options_count; i++)
        if (strcasecmp(options[i].name, wanted) == 0)
            return &options[i];
    return NULL;
}

static enum status read_member(struct config *config, const char *path, const char *name,
                               const json_t *value)
{
    const struct option *option = find_option(name, '_');
    char where[4200], number[32];
    snprintf(where, sizeof where, "%s: \"%s\"", path, name);
    if (!option || option->field == offsetof(struct config, config))
        return status_fail(STATUS_USAGE, "%s is no option", where);
    if (json_is_string(value))
        return set_option(config, option, json_string_value(value), where);
    if (json_is_boolean(value) && option->type == OPTION_FLAG)
        return set_option(config, option, json_is_true(value) ? "1" : "0", where);
    if (!json_is_integer(value))
        return status_fail(STATUS_USAGE, "%s is neither text nor a whole number", where);
    snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    return set_option(config, option, number, where);
}

// With or without the byte order mark that Windows editors write. The file may be a pipe, so what
// is no mark is pushed back: the C libraries of Linux take three bytes.
static enum status load_file(const char *path, json_t **root)
{
    char start[3];
    json_error_t error;
    FILE *file = fopen(path, "re");
    if (!file)
        return status_fail(STATUS_USAGE, "%s: %s", path, strerror(errno));
    size_t length = fread(start, 1, sizeof start, file);
    if (utf8_mark(start, length) == 0)
        while (length > 0)
            ungetc((unsigned char)start[--length], file);
    *root = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    fclose(file);
    enum status status = STATUS_OK;
    if (!*root)
        status = status_fail(STATUS_USAGE, "%s: line %d: %s", path, error.line, error.text);
    status = memory_check(path, status); // a name may have lost a letter for lack of it
    if (status != STATUS_OK)
        json_decref(*root);
    return status;
}

static enum status read_file(struct config *config, const char *path)
{
    json_t *root;
    enum status status = STATUS_OK;
    TRY(load_file(path, &root));
    if (!json_is_object(root))
        status = status_fail(STATUS_USAGE, "%s: not a JSON object of options", path);
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        if (status == STATUS_OK)
            status = read_member(config, path, name, value);
    }
    json_decref(root);
    return status;
}

static enum status read_environment(struct config *config)
{
    static const char prefix[] = "VITSERVE_";
    for (char **entry = environ; *entry; entry++) {
        char name[64];
        const char *value = strchr(*entry, '=');
        // Compose sets VITSERVE_X to nothing for a ${X} that is unset.
        if (strncmp(*entry, prefix, sizeof prefix - 1) != 0 || !value || !value[1])
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(value - *entry), *entry);
        const struct option *option = find_option(name + sizeof prefix - 1, '_');
        // Kubernetes sets VITSERVE_PORT=tcp://... beside a Service called vitserve.
        if (option && strncmp(value + 1, "tcp://", 6) == 0)
            continue;
        if (option)
            TRY(set_option(config, option, value + 1, name));
        else
            log_warning("the environment variable %s is no option", name);
    }
    return STATUS_OK;
}

// Reads the flag at argv[*i], and moves *i past its value.
static enum status read_flag(struct config *config, enum command command, int argc, char **argv,
                             int *i)
{
    char name[64], where[80];
    const char *flag = argv[*i], *value = strchr(flag, '=');
    snprintf(name, sizeof name, "%.*s", (int)strcspn(flag + 2, "="), flag + 2);
    snprintf(where, sizeof where, "--%s", name);
    const struct option *option = find_option(name, '-');
    if (!option || !(option->commands & (int)command))
        return status_fail(STATUS_USAGE, "%s is no option of this command; --help lists them",
                           flag);
    if (value)
        return set_option(config, option, value + 1, where);
    if (option->type == OPTION_FLAG)
        return set_option(config, option, "1", where);
    if (*i + 1 >= argc)
        return status_fail(STATUS_USAGE, "%s needs a value", where);
    return set_option(config, option, argv[++*i], where);
}

// Applies the flags, and gathers the words between them at the front of argv.
static enum status read_flags(struct config *config, enum command command, int argc, char **argv,
                              int *words)
{
    *words = 0;
    bool flags_ended = false;
    for (int i = 0; i < argc; i++) {
        if (!flags_ended && strcmp(argv[i], "--") == 0)
            flags_ended = true;
        else if (!flags_ended && strncmp(argv[i], "--", 2) == 0)
            TRY(read_flag(config, command, argc, argv, &i));
        else
            argv[(*words)++] = argv[i];
    }
    return STATUS_OK;
}

static enum status find_config_file(struct config *config, int argc, char **argv)
{
    const char *path = getenv("VITSERVE_CONFIG");
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--config=", 9) == 0)
            path = argv[i] + 9;
        else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
            path = argv[i + 1];
    }
    return set_text(&config->config, path ? path : "");
}

enum status config_read(struct config *config, enum command command, int argc, char **argv,
                        int *words)
{
    TRY(set_defaults(config));
    TRY(find_config_file(config, argc, argv));
    if (*config->config)
        TRY(read_file(config, config->config));
    TRY(read_environment(config));
    return read_flags(config, command, argc, argv, words);
}

void config_release(struct config *config)
{
    for (size_t i = 0; i < options_count; i++)
        if (options[i].type == OPTION_TEXT)
            free(*text_field(config, &options[i]));
    *config = (struct config){0};
}

void config_print_help(enum command command, FILE *out)
{
    for (size_t i = 0; i < options_count; i++) {
        const struct option *option = &options[i];
        if (!(option->commands & (int)command))
            continue;
        char value[64] = "";
        if (option->type == OPTION_TEXT)
            snprintf(value, sizeof value, " TEXT");
        else if (option->type == OPTION_CHOICE || option->type == OPTION_DEVICE)
            snprintf(value, sizeof value, " %s", option->choices);
        else if (option->type == OPTION_NUMBER)
            snprintf(value, sizeof value, " N");
        fprintf(out, "  --%s%s\n        %s", option->name, value, option->help);
        if (option->type == OPTION_NUMBER)
            fprintf(out, " (%lld to %lld, default %lld)", (long long)option->min,
                    (long long)option->max, (long long)option->default_number);
        else if (option->default_text && *option->default_text)
            fprintf(out, " (default %s)", option->default_text);
        fputc('\n', out);
    }
}

static json_t *option_json(struct config *config, const struct option *option)
{
    if (option->type == OPTION_TEXT)
        return json_string(*text_field(config, option));
    int64_t number = *number_field(config, option);
    if (option->type == OPTION_NUMBER)
        return json_integer(number);
    if (option->type == OPTION_FLAG)
        return json_boolean(number != 0);
    char name[32];
    if (option->type == OPTION_DEVICE && number >= DEVICE_GPU)
        snprintf(name, sizeof name, "cuda:%lld", (long long)number - DEVICE_GPU);
    else
        choice_name(option->choices, number, name, sizeof name);
    return json_string(name);
}

enum status config_print_json(const struct config *config, FILE *out)
{
    struct config *fields = (struct config *)(uintptr_t)config; // only read
    json_t *root = json_object();
    for (size_t i = 0; i < options_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s", options[i].name);
        for (char *c = name; *c; c++)
            *c = *c == '-' ? '_' : *c;
        json_object_set_new(root, name, option_json(fields, &options[i]));
    }
    char *text;
    TRY(json_print(root, JSON_INDENT(2), &text));
    fprintf(out, "%s\n", text);
    free(text);
    return STATUS_OK;
}
