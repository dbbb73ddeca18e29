// Blanks around a header's value are no part of it (RFC 9110, 5.5), but libmicrohttpd 0.9.75 keeps
// those that follow it: it refuses "Content-Length: 5 ", and finds no end of a body whose coding is
// "chunked ". It does so before it calls us. So this function stands in for its own: the library
// calls it through the dynamic linker, which finds ours first. Where it was linked to its own we
// lose this tolerance and nothing else; 1.0 trims by itself.

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>
#include <strings.h>

struct search {
    const char *key;
    size_t key_size;
    const char *value;
    size_t value_size;
    bool found;
};

static enum MHD_Result compare(void *context, enum MHD_ValueKind kind, const char *key,
                               size_t key_size, const char *value, size_t value_size)
{
    struct search *search = context;
    (void)kind;
    if (!search->key
            ? key != NULL
            : !key || key_size != search->key_size || strncasecmp(key, search->key, key_size) != 0)
        return MHD_YES;
    search->value = value;
    search->value_size = value_size;
    search->found = true;
    return MHD_NO;
}

enum MHD_Result MHD_lookup_connection_value_n(struct MHD_Connection *connection,
                                              enum MHD_ValueKind kind, const char *key,
                                              size_t key_size, const char **value_ptr,
                                              size_t *value_size_ptr)
{
    struct search search = {.key = key, .key_size = key_size};
    MHD_get_connection_values_n(connection, kind, compare, &search);
    if (!search.found)
        return MHD_NO;
    // In place: the library and we read it to its zero. It lies in the connection's own memory.
    char *value = (char *)(uintptr_t)search.value;
    while (kind == MHD_HEADER_KIND && search.value_size > 0 &&
           (value[search.value_size - 1] == ' ' || value[search.value_size - 1] == '\t'))
        value[--search.value_size] = '\0';
    if (value_ptr)
        *value_ptr = value;
    if (value_size_ptr)
        *value_size_ptr = search.value_size;
    return MHD_YES;
}
