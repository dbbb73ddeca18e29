#include "log.h"
#include "utf8.h"
#include <stdarg.h>
#include <stdbool.h>
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

// The words of a request are cut short enough for all of them to find room in a line, but not an id
// of 128 quotes; END_BYTES is kept free for what ends a message.
enum { LINE_BYTES = 4096, END_BYTES = 16, MAX_PATH_BYTES = 1024, MAX_WORD_BYTES = 260 };

struct line {
    char text[LINE_BYTES];
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

// The bytes of the character that text begins with; 0 where it begins with none, or with one that
// commands a terminal.
static size_t character_bytes(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    bool control = c[0] < ' ' || c[0] == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0);
    return control ? 0 : utf8_character(text, strnlen(text, 4));
}

// Text that a client may have sent, at most max bytes of it: it must neither start a line of its
// own nor end the string that it is in, and stays UTF-8. in_string: between quotes.
static void append_text(struct line *line, const char *text, size_t max, bool in_string)
{
    size_t end = line->length + max;
    while (*text && line->length + 4 <= end) {
        size_t bytes = character_bytes(text);
        if (bytes == 0)
            append(line, "?");
        else if (in_string && (*text == '"' || *text == '\\'))
            append(line, "\\%c", *text);
        else
            append(line, "%.*s", (int)bytes, text);
        text += bytes > 0 ? bytes : 1;
    }
    if (*text)
        append(line, "...");
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

// One write for each line, so that those of several threads do not mix: stderr has no buffer.
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
    // A message may hold what a client sent: with a "=" it could be taken for fields.
    bool quoted = chosen == LOG_JSON || strchr(text, '=');
    append(&line, chosen == LOG_JSON ? ",\"message\":" : " ");
    append(&line, quoted ? "\"" : "");
    append_text(&line, text, sizeof line.text - END_BYTES - line.length, quoted);
    append(&line, quoted ? "\"" : "");
    end(&line);
}

// In a text line, too, between quotes where it could be taken for several.
static void append_word(struct line *line, const char *name, const char *text, size_t max)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "/*._-";
    bool quoted = chosen == LOG_JSON || text[strspn(text, plain)] != '\0';
    append(line, chosen == LOG_JSON ? ",\"%s\":" : " %s=", name);
    append(line, quoted ? "\"" : "");
    append_text(line, text, max, quoted);
    append(line, quoted ? "\"" : "");
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
    static const char *const probes[] = {"/healthz", "/readyz", "/metrics", "/v2/health/live",
                                         "/v2/health/ready"};
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
        size_t length = strlen(probes[i]);
        if (strncmp(request->path, probes[i], length) == 0 &&
            (!request->path[length] || strcmp(request->path + length, "/") == 0))
            return LOG_DEBUG;
    }
    return LOG_INFO;
}

void log_request(const struct log_request *request)
{
    struct line line;
    enum log_level level = level_of(request);
    if (level > highest)
        return;
    begin(&line, level);
    append_word(&line, "request_id", request->id, MAX_WORD_BYTES);
    append_word(&line, "method", request->method, MAX_WORD_BYTES);
    append_word(&line, "path", request->path, MAX_PATH_BYTES);
    append_number(&line, "status", (size_t)request->http_status);
    if (*request->code)
        append_word(&line, "code", request->code, MAX_WORD_BYTES);
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
