#pragma once
// Lines on standard error: "2026-11-23T08:18:35.123Z info listening on ...". Any thread.

#include "status.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level); // before the first thread; the default is LOG_INFO
void log_line(enum log_level level, const char *format, ...) PRINTF_LIKE(2);

#define log_error(...)   log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_DEBUG, __VA_ARGS__)
