// DESIGN. A key is kept padded with zeros to the longest that there may be, and what a request
// brings is padded alike; then it is compared whole with every key, and the outcomes are only put
// together at the end. So the time tells neither which key was nearly met nor how long one is: it
// depends on the number of keys, and on the length of what the client itself has sent.

#include "auth.h"
#include "secret.h"
#include "utf8.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_KEY_BYTES = 512, MAX_KEYS = 1024 };

struct key {
    unsigned char bytes[MAX_KEY_BYTES]; // no key holds a zero
};

struct keys {
    size_t count;
    struct key list[];
};

struct auth {
    char *path;
    pthread_mutex_t mutex; // guards keys; held for the comparison, or to put others in their place
    struct keys *keys;
};

static void free_keys(struct keys *keys)
{
    if (keys)
        explicit_bzero(keys, sizeof *keys + keys->count * sizeof *keys->list);
    free(keys);
}

// ---- the file -----------------------------------------------------------------------------------

// line: `length` bytes, without the line break.
static enum status add_line(struct keys *keys, const char *path, int number, const char *line,
                            size_t length)
{
    static const char blanks[] = " \t\r";
    for (; length > 0 && strchr(blanks, *line); length--)
        line++;
    while (length > 0 && strchr(blanks, line[length - 1]))
        length--;
    if (length == 0 || *line == '#')
        return STATUS_OK;
    bool printable = true;
    for (size_t i = 0; i < length; i++)
        printable &= line[i] > ' ' && line[i] <= '~';
    if (!printable || length > MAX_KEY_BYTES)
        return status_fail(STATUS_USAGE,
                           "%s: line %d is no key: 1 to %d printable ASCII characters, no blanks",
                           path, number, MAX_KEY_BYTES);
    if (keys->count == MAX_KEYS)
        return status_fail(STATUS_USAGE, "%s: more than %d keys", path, MAX_KEYS);
    memcpy(keys->list[keys->count++].bytes, line, length);
    return STATUS_OK;
}

static enum status parse(const char *path, const char *text, struct keys *keys)
{
    int number = 1;
    for (const char *line = text + utf8_mark(text, strlen(text)); *line; number++) {
        size_t length = strcspn(line, "\n");
        TRY(add_line(keys, path, number, line, length));
        line += length + (line[length] != '\0');
    }
    if (keys->count == 0)
        return status_fail(STATUS_USAGE, "%s: there is no key in it", path);
    return STATUS_OK;
}

static enum status read_keys(const char *path, struct keys **out)
{
    char *text;
    TRY(secret_read(path, &text));
    size_t lines = 1;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    struct keys *keys =
        calloc(1, sizeof *keys + (lines < MAX_KEYS ? lines : MAX_KEYS) * sizeof *keys->list);
    enum status status = keys ? parse(path, text, keys)
                              : status_fail(STATUS_OUT_OF_MEMORY, "%s: out of memory", path);
    secret_free(text);
    if (status == STATUS_OK)
        *out = keys;
    else
        free_keys(keys);
    return status;
}

enum status auth_open(const char *path, struct auth **out)
{
    struct keys *keys;
    TRY(read_keys(path, &keys));
    struct auth *auth = calloc(1, sizeof *auth);
    char *copy = strdup(path);
    if (!auth || !copy) {
        free(auth);
        free(copy);
        free_keys(keys);
        return status_fail(STATUS_OUT_OF_MEMORY, "%s: out of memory", path);
    }
    *auth = (struct auth){.path = copy, .keys = keys};
    pthread_mutex_init(&auth->mutex, NULL);
    *out = auth;
    return STATUS_OK;
}

void auth_close(struct auth *auth)
{
    if (!auth)
        return;
    pthread_mutex_destroy(&auth->mutex);
    free_keys(auth->keys);
    free(auth->path);
    free(auth);
}

enum status auth_reload(struct auth *auth)
{
    struct keys *keys;
    TRY(read_keys(auth->path, &keys));
    pthread_mutex_lock(&auth->mutex);
    struct keys *old = auth->keys;
    auth->keys = keys;
    pthread_mutex_unlock(&auth->mutex);
    free_keys(old);
    return STATUS_OK;
}

// ---- the check ----------------------------------------------------------------------------------

// What the header brings; nothing where that can be no key.
static void read_bearer(const char *authorization, struct key *key)
{
    static const char scheme[] = "Bearer ";
    if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return;
    const char *text = authorization + sizeof scheme - 1;
    text += strspn(text, " ");
    size_t length = strcspn(text, " \t");
    if (length <= MAX_KEY_BYTES && text[length + strspn(text + length, " \t")] == '\0')
        memcpy(key->bytes, text, length);
}

static bool equal(const struct key *a, const struct key *b)
{
    unsigned char difference = 0;
    for (int i = 0; i < MAX_KEY_BYTES; i++)
        difference = (unsigned char)(difference | (a->bytes[i] ^ b->bytes[i]));
    return difference == 0;
}

enum status auth_check(struct auth *auth, const char *authorization)
{
    struct key given = {0};
    bool known = false;
    read_bearer(authorization, &given);
    pthread_mutex_lock(&auth->mutex);
    for (size_t i = 0; i < auth->keys->count; i++)
        known |= equal(&auth->keys->list[i], &given);
    pthread_mutex_unlock(&auth->mutex);
    explicit_bzero(&given, sizeof given);
    return known ? STATUS_OK
                 : status_fail(STATUS_UNAUTHORIZED,
                               "a valid key is needed: \"Authorization: Bearer KEY\"");
}
