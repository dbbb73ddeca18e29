#include "status.h"
#include <stdarg.h>
#include <stdio.h>

static const struct {
    int http;
    const char *code, *text;
} table[] = {
#define X(name, http, code, text) [STATUS_##name] = {http, code, text},
    STATUS_TABLE(X)
#undef X
};

static _Thread_local struct {
    enum status status;
    char text[512];
} last;

int status_http(enum status status)
{
    return table[status].http;
}

const char *status_code(enum status status)
{
    return table[status].code;
}

enum status status_fail(enum status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last.text, sizeof last.text, format, args);
    va_end(args);
    last.status = status;
    return status;
}

const char *status_detail(enum status status)
{
    return status == last.status && last.text[0] ? last.text : table[status].text;
}
