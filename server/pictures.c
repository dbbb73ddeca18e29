#include "pictures.h"
#include <errno.h>
#include <fts.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static enum status append(struct pictures *pictures, const char *path)
{
    size_t count = pictures->count;
    char *copy = strdup(path);
    if ((count & (count - 1)) == 0) { // full: room for twice as many
        char **grown = reallocarray(pictures->paths, count ? 2 * count : 1, sizeof *grown);
        pictures->paths = grown ? grown : pictures->paths;
        if (!grown) {
            free(copy);
            copy = NULL;
        }
    }
    if (!copy)
        return status_fail(STATUS_OUT_OF_MEMORY, "%zu paths: out of memory", count);
    pictures->paths[pictures->count++] = copy;
    return STATUS_OK;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_picture_suffix(const char *name)
{
    const char *suffix = strrchr(name, '.');
    return suffix && (strcasecmp(suffix, ".jpg") == 0 || strcasecmp(suffix, ".jpeg") == 0 ||
                      strcasecmp(suffix, ".png") == 0 || strcasecmp(suffix, ".webp") == 0);
}

static bool is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

// What cannot be read is listed too: opening it says why.
static bool is_listed(const FTSENT *entry)
{
    switch (entry->fts_info) {
    case FTS_F:
        return has_picture_suffix(entry->fts_name);
    case FTS_SL:
        return has_picture_suffix(entry->fts_name) && !is_directory(entry->fts_path);
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return true;
    default:
        return false;
    }
}

static enum status add_directory(struct pictures *pictures, const char *path)
{
    char *const roots[] = {(char *)(uintptr_t)path, NULL};
    size_t first = pictures->count;
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
    if (!walk)
        return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
    enum status status = STATUS_OK;
    FTSENT *entry;
    while (status == STATUS_OK && (entry = fts_read(walk)) != NULL)
        if (is_listed(entry))
            status = append(pictures, entry->fts_path);
    if (status == STATUS_OK && errno != 0)
        status = status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
    fts_close(walk);
    TRY(status);
    if (pictures->count == first)
        return append(pictures, path);
    qsort(pictures->paths + first, pictures->count - first, sizeof *pictures->paths, compare_paths);
    return STATUS_OK;
}

static enum status add_path(struct pictures *pictures, const char *path)
{
    return is_directory(path) ? add_directory(pictures, path) : append(pictures, path);
}

static bool is_pattern(const char *word)
{
    struct stat info;
    return strpbrk(word, "*?[") && lstat(word, &info) != 0;
}

static enum status add_pattern(struct pictures *pictures, const char *pattern)
{
    glob_t found;
    int error = glob(pattern, 0, NULL, &found);
    enum status status = STATUS_OK;
    if (error == GLOB_NOMATCH)
        status = append(pictures, pattern);
    else if (error != 0)
        status = status_fail(STATUS_OUT_OF_MEMORY, "%s: out of memory", pattern);
    for (size_t i = 0; error == 0 && i < found.gl_pathc && status == STATUS_OK; i++)
        status = add_path(pictures, found.gl_pathv[i]);
    globfree(&found);
    return status;
}

enum status pictures_init(struct pictures *pictures, int count, char **words)
{
    *pictures = (struct pictures){0};
    for (int i = 0; i < count; i++)
        TRY(is_pattern(words[i]) ? add_pattern(pictures, words[i]) : add_path(pictures, words[i]));
    return STATUS_OK;
}

void pictures_release(struct pictures *pictures)
{
    for (size_t i = 0; i < pictures->count; i++)
        free(pictures->paths[i]);
    free(pictures->paths);
    *pictures = (struct pictures){0};
}

enum status picture_map(const char *path, struct mapping *mapping)
{
    struct stat info;
    bool there = stat(path, &info) == 0;
    if (!there && is_pattern(path))
        return status_fail(STATUS_IO, "no file matches this pattern");
    if (there && S_ISDIR(info.st_mode))
        return status_fail(STATUS_IO, "a directory without pictures (.jpg, .jpeg, .png, .webp)");
    return mapping_open(path, mapping);
}
