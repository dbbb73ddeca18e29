#include "accept.h"
#include <ctype.h>
#include <stddef.h>
#include <string.h>

// "0.85" -> 850: at most three digits after the point.
static int thousandths(const char *text)
{
    if (*text != '0' && *text != '1')
        return 0;
    int value = (*text - '0') * 1000;
    text += text[1] == '.' ? 2 : 1;
    for (int unit = 100; unit > 0 && isdigit((unsigned char)*text); unit /= 10)
        value += (*text++ - '0') * unit;
    return value < 1000 ? value : 1000;
}

// The q among the parameters of a media range.
static int range_weight(const char *parameters)
{
    const char *at = parameters;
    while (*(at += strcspn(at, ";,")) == ';') {
        at += 1 + strspn(at + 1, " \t");
        if ((*at == 'q' || *at == 'Q') && at[1] == '=')
            return thousandths(at + 2);
    }
    return 1000;
}

// 3 "text/plain", 2 "text/*", 1 "*/*", 0 another type.
static int closeness(const char *range, size_t length, const char *type)
{
    const size_t major = strcspn(type, "/") + 1;
    if (length == strcspn(type, "; ") && strncasecmp(range, type, length) == 0)
        return 3;
    if (length == major + 1 && range[major] == '*' && strncasecmp(range, type, major) == 0)
        return 2;
    return length == 3 && strncmp(range, "*/*", 3) == 0;
}

int accept_weight(const char *accept, const char *type)
{
    int closest = 0, weight = 0;
    for (const char *at = accept ? accept : ""; *at; at += strcspn(at, ","), at += *at == ',') {
        at += strspn(at, " \t");
        const size_t length = strcspn(at, "; \t,");
        const int close = closeness(at, length, type);
        if (close > closest) {
            closest = close;
            weight = range_weight(at + length);
        }
    }
    return weight;
}
