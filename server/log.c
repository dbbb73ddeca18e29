#include "log.h"
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static enum log_level highest = LOG_INFO;

void log_set_level(enum log_level level)
{
    highest = level;
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    if (level > highest)
        return;
    struct timespec now;
    struct tm utc;
    char time[32], text[1024];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &utc);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    // A line break in what a client sent must not start a line of its own.
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    fprintf(stderr, "%s.%03ldZ %s %s\n", time, now.tv_nsec / 1000000, names[level], text);
}
