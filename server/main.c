#include "commands.h"
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: vitserve [serve] [options]            the server\n"
    "       vitserve classify [options] IMAGE...  pictures in files and directories, no server\n"
    "       vitserve model [options]              the parameters of a model\n"
    "       vitserve bench [options]              engine speed, without HTTP\n"
    "       vitserve pull [options] NAME          download the weights of a model\n"
    "       vitserve healthcheck [options]        whether the server on this machine is ready\n"
    "       vitserve --version | --help | COMMAND --help\n"
    "exit code: 0 done, 1 failed, 2 wrong usage, 3 the device failed while serving,\n"
    "           4 the stop did not come to its end in time\n";

static enum status print_model(const struct config *config, const struct catalog *catalog)
{
    const struct catalog_entry *entry;
    char *text;
    TRY(catalog_find(catalog, config->model, &entry));
    TRY(report_write(entry, NULL, (enum report_format)config->format, &text));
    fputs(text, stdout);
    free(text);
    return STATUS_OK;
}

static int model_main(const struct config *config)
{
    struct catalog *catalog = NULL;
    enum status status = catalog_open(&catalog);
    if (status == STATUS_OK)
        status = print_model(config, catalog);
    catalog_close(catalog);
    return status == STATUS_OK ? EXIT_OK : exit_code(status);
}

static int run(enum command command, const struct config *config, int count, char **words)
{
    if (command != COMMAND_CLASSIFY && command != COMMAND_PULL && count > 0)
        return exit_code(
            status_fail(STATUS_USAGE, "\"%s\" is neither a command nor an option", words[0]));
    log_set((enum log_level)config->log_level, (enum log_format)config->log_format);
    if (command == COMMAND_SERVE && config->print_config) {
        enum status status = config_print_json(config, stdout);
        return status == STATUS_OK ? EXIT_OK : exit_code(status);
    }
    return command == COMMAND_CLASSIFY      ? classify_main(config, count, words)
           : command == COMMAND_MODEL       ? model_main(config)
           : command == COMMAND_BENCH       ? bench_main(config)
           : command == COMMAND_PULL        ? pull_main(config, count, words)
           : command == COMMAND_HEALTHCHECK ? healthcheck_main(config)
                                            : serve_main(config);
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum command command;
    } commands[] = {{"serve", COMMAND_SERVE}, {"classify", COMMAND_CLASSIFY},
                    {"model", COMMAND_MODEL}, {"bench", COMMAND_BENCH},
                    {"pull", COMMAND_PULL},   {"healthcheck", COMMAND_HEALTHCHECK}};
    enum command command = COMMAND_SERVE;
    int first = 1;
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            command = commands[i].command;
            first = 2;
        }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        puts("vitserve " VITSERVE_VERSION);
        return EXIT_OK;
    }
    if (wants_help(argc - first, argv + first)) {
        fputs(usage, stdout);
        puts("\noptions (also VITSERVE_NAME in the environment, \"name\" in --config FILE):");
        config_print_help(command, stdout);
        return EXIT_OK;
    }
    struct config config;
    int words = 0;
    enum status status = config_read(&config, command, argc - first, argv + first, &words);
    int code = status == STATUS_OK ? run(command, &config, words, argv + first) : exit_code(status);
    config_release(&config);
    return code;
}
