#pragma once
// What the tests of config.c share: a command line that is read, and what is to be said of a wrong
// one.

#include "config.h"
#include <jansson.h>

struct parsed {
    struct config config;
    enum status status;
    char *argv[16];
    int words;
};

// Reads the configuration from a command line of words without blanks.
struct parsed read_words(enum command command, const char *line);

// The command line is refused, and the detail holds each of the blank-separated words.
void expect_refused(enum command command, const char *line, const char *words);

// What --print-config shows, without "config" itself. The caller's to give back.
json_t *config_json(const struct config *config);
json_t *default_json(void);

// Of a test: no option is set by a variable any more.
int clear_environment(void **state);
