#pragma once
// The table of options, which config.c reads from files, the environment and flags: a row is all
// there is to an option.

#include "config.h"
#include <stddef.h>

enum option_type { OPTION_TEXT, OPTION_NUMBER, OPTION_CHOICE, OPTION_DEVICE, OPTION_FLAG };

struct option {
    const char *name;
    int commands;
    enum option_type type;
    size_t field;             // in struct config
    const char *default_text; // of a TEXT, or one of the choices
    int64_t default_number, min, max;
    const char *choices; // "auto|cpu|cuda", numbered from 0
    const char *help;
};

extern const struct option options[];
extern const size_t options_count;
