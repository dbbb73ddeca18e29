#include "log.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static enum log_level highest = LOG_INFO;
static enum log_format chosen = LOG_TEXT;
static const char *const names[] = {"error", "warning", "info", "debug"};

void log_set(enum log_level level, enum log_format format)
{
    highest = level;
    chosen = format;
}

struct line {
    char text[2048];
    size_t length;
};

static void append(struct line *line, const char *format, ...) PRINTF_LIKE(2);

static void append(struct line *line, const char *format, ...)
{
    size_t room = sizeof line->text - 2 - line->length; // for the line break and the end
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line->text + line->length, room, format, args);
    va_end(args);
    if (length > 0)
        line->length += (size_t)length < room ? (size_t)length : room - 1;
}

// Text that a client may have sent: it must neither start a line of its own nor end a JSON string.
static void append_text(struct line *line, const char *text)
{
    const char *escaped = chosen == LOG_JSON ? "\"\\" : "";
    for (const char *c = text; *c && line->length < sizeof line->text - 64; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c == 0x7f)
            append(line, " ");
        else
            append(line, strchr(escaped, *c) ? "\\%c" : "%c", *c);
}

static void begin(struct line *line, enum log_level level)
{
    struct timespec now;
    struct tm utc;
    char time[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &utc);
    line->length = 0;
    append(line, chosen == LOG_JSON ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\"" : "%s.%03ldZ %s",
           time, now.tv_nsec / 1000000, names[level]);
}

// One write for each line, so that those of several threads do not mix.
static void end(struct line *line)
{
    if (chosen == LOG_JSON)
        append(line, "}");
    line->text[line->length++] = '\n';
    fwrite(line->text, 1, line->length, stderr);
}

void log_line(enum log_level level, const char *format, ...)
{
    if (level > highest)
        return;
    char text[1024];
    struct line line;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    begin(&line, level);
    append(&line, chosen == LOG_JSON ? ",\"message\":\"" : " ");
    append_text(&line, text);
    append(&line, chosen == LOG_JSON ? "\"" : "");
    end(&line);
}

static void append_word(struct line *line, const char *name, const char *text)
{
    append(line, chosen == LOG_JSON ? ",\"%s\":\"" : " %s=", name);
    append_text(line, text);
    append(line, chosen == LOG_JSON ? "\"" : "");
}

static void append_number(struct line *line, const char *name, size_t number)
{
    append(line, chosen == LOG_JSON ? ",\"%s\":%zu" : " %s=%zu", name, number);
}

static void append_ms(struct line *line, const char *name, int64_t ns)
{
    append(line, chosen == LOG_JSON ? ",\"%s_ms\":%.3f" : " %s_ms=%.3f", name, (double)ns * 1e-6);
}

static enum log_level level_of(const struct log_request *request)
{
    static const char *const probes[] = {"/healthz", "/readyz", "/metrics"};
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++)
        if (strcmp(request->path, probes[i]) == 0)
            return LOG_DEBUG;
    return LOG_INFO;
}

void log_request(const struct log_request *request)
{
    struct line line;
    enum log_level level = level_of(request);
    if (level > highest)
        return;
    begin(&line, level);
    append_word(&line, "request_id", request->id);
    append_word(&line, "method", request->method);
    append_word(&line, "path", request->path);
    append_number(&line, "status", (size_t)request->http_status);
    if (*request->code)
        append_word(&line, "code", request->code);
    append_number(&line, "bytes_in", request->bytes_in);
    append_number(&line, "bytes_out", request->bytes_out);
    if (request->images > 0)
        append_number(&line, "images", (size_t)request->images);
    append_ms(&line, "read", request->read_ns);
    if (request->batch > 0) {
        append_number(&line, "batch", (size_t)request->batch);
        append_ms(&line, "decode", request->decode_ns);
        append_ms(&line, "preprocess", request->preprocess_ns);
        append_ms(&line, "queue", request->queue_ns);
        append_ms(&line, "infer", request->infer_ns);
    }
    append_ms(&line, "total", request->total_ns);
    end(&line);
}
