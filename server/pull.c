// vitserve pull: the published weights of a model, into a directory.
//
// The file grows as NAME.pth.part and gets its name once its SHA-256 is right: so what has the name
// is whole, and what was interrupted is gone on with.

#include "catalog.h"
#include "commands.h"
#include "download.h"
#include "sha256.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct pull {
    const char *model, *url;
    const char *sha256; // the first digits, or all
    char directory[4096], path[4224], part[4232];
};

// ---- what to get, and where it goes -------------------------------------------------------------

static enum status choose_source(const struct config *config, const struct catalog_entry *entry,
                                 struct pull *pull)
{
    pull->model = entry->name;
    pull->url = *config->url ? config->url : entry->url;
    pull->sha256 = *config->sha256 ? config->sha256 : entry->sha256;
    if (entry->weights)
        return status_fail(STATUS_NOT_FOUND, "%s needs no download: its weights are built in",
                           entry->name);
    if (!*pull->url || !*pull->sha256)
        return status_fail(STATUS_NOT_FOUND,
                           "no download of %s is known: give --url and --sha256, or get the file "
                           "and give serve --weights FILE",
                           entry->name);
    if (!download_allows(pull->url))
        return status_fail(STATUS_USAGE, "--url: \"%.200s\" is not https://...", pull->url);
    if (!catalog_is_sha256(pull->sha256))
        return status_fail(STATUS_USAGE, "--sha256: \"%.80s\" is not 8 to 64 lower-case hex digits",
                           pull->sha256);
    return STATUS_OK;
}

static enum status choose_paths(const struct config *config, struct pull *pull)
{
    const char *dir = *config->dir ? config->dir : config->weights_dir;
    const char *home = strncmp(dir, "~/", 2) == 0 ? getenv("HOME") : NULL;
    const char *suffix = strrchr(pull->url, '.');
    if (!suffix || (strcmp(suffix, ".pth") != 0 && strcmp(suffix, ".safetensors") != 0))
        return status_fail(STATUS_USAGE, "--url: \"%.200s\" ends in neither .pth nor .safetensors",
                           pull->url);
    int length = snprintf(pull->directory, sizeof pull->directory, "%s%s%s", home ? home : "",
                          home ? "/" : "", home ? dir + 2 : dir);
    if (length <= 0 || length >= (int)sizeof pull->directory)
        return status_fail(STATUS_USAGE, "--dir: expected a path of 1 to 4095 bytes");
    snprintf(pull->path, sizeof pull->path, "%s/%s%s", pull->directory, pull->model, suffix);
    snprintf(pull->part, sizeof pull->part, "%s.part", pull->path);
    return STATUS_OK;
}

static enum status make_directory(char *path)
{
    for (char *end = path + 1;; end++) {
        char was = *end;
        if (was && was != '/')
            continue;
        *end = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
        *end = was;
        if (!was)
            return STATUS_OK;
    }
}

// ---- the check ----------------------------------------------------------------------------------

// Reads the file from its beginning; digest: 64 hex digits.
static enum status hash_file(int fd, const char *path, char digest[65])
{
    enum { PIECE = 1 << 16 };
    uint8_t piece[PIECE];
    struct sha256 sha256;
    ssize_t got;
    sha256_init(&sha256);
    for (off_t at = 0; (got = pread(fd, piece, sizeof piece, at)) != 0; at += got) {
        if (got < 0)
            return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
        sha256_update(&sha256, piece, (size_t)got);
    }
    sha256_finish(&sha256, digest);
    return STATUS_OK;
}

static bool is_right(const struct pull *pull, const char *digest)
{
    return strncmp(digest, pull->sha256, strlen(pull->sha256)) == 0;
}

static void print_done(const struct pull *pull, const char *verb, int fd, const char *digest)
{
    struct stat info = {0};
    fstat(fd, &info);
    printf("%s: %s, %.1f MB, SHA-256 %s\n", pull->path, verb, (double)info.st_size * 1e-6, digest);
}

// *found: the file is there, and is the one that is wanted. Another one stays untouched.
static enum status look_for_file(const struct pull *pull, bool *found)
{
    char digest[65];
    int fd = open(pull->path, O_RDONLY | O_CLOEXEC);
    *found = fd >= 0;
    if (fd < 0)
        return errno == ENOENT ? STATUS_OK
                               : status_fail(STATUS_IO, "%s: %s", pull->path, strerror(errno));
    enum status status = hash_file(fd, pull->path, digest);
    if (status == STATUS_OK && is_right(pull, digest))
        print_done(pull, "is there already", fd, digest);
    else if (status == STATUS_OK)
        status = status_fail(STATUS_IO,
                             "%s is another file: its SHA-256 is %s, not %s...; move it away first",
                             pull->path, digest, pull->sha256);
    close(fd);
    return status;
}

// ---- the file -----------------------------------------------------------------------------------

// *fd is locked.
static enum status open_part(const struct pull *pull, int *fd)
{
    *fd = open(pull->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return status_fail(STATUS_IO, "%s: %s", pull->part, strerror(errno));
    // Another pull may have it, or have given it its name since we looked.
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0 || access(pull->path, F_OK) == 0) {
        close(*fd);
        return status_fail(STATUS_IO, "%s: another pull is at it", pull->part);
    }
    return STATUS_OK;
}

static enum status sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status status = STATUS_OK;
    if (fd < 0 || fsync(fd) != 0)
        status = status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return status;
}

static enum status check_and_rename(const struct pull *pull, int fd)
{
    char digest[65];
    TRY(hash_file(fd, pull->part, digest));
    if (!is_right(pull, digest)) {
        unlink(pull->part);
        return status_fail(STATUS_IO, "%.200s: its SHA-256 is %s, not %s...; nothing is kept",
                           pull->url, digest, pull->sha256);
    }
    if (fsync(fd) != 0 || rename(pull->part, pull->path) != 0)
        return status_fail(STATUS_IO, "%s: %s", pull->path, strerror(errno));
    TRY(sync_directory(pull->directory));
    print_done(pull, "downloaded", fd, digest);
    return STATUS_OK;
}

static enum status fetch(struct pull *pull)
{
    bool found;
    int fd;
    int64_t bytes = 0;
    TRY(make_directory(pull->directory));
    TRY(look_for_file(pull, &found));
    if (found)
        return STATUS_OK;
    TRY(open_part(pull, &fd));
    enum status status = download(pull->url, pull->part, fd, &bytes);
    if (status == STATUS_OK)
        status = check_and_rename(pull, fd);
    else if (bytes == 0)
        unlink(pull->part);
    close(fd);
    return status;
}

static enum status pull_model(const struct config *config, const struct catalog *catalog,
                              const char *name)
{
    struct pull pull;
    const struct catalog_entry *entry;
    TRY(catalog_find(catalog, name, &entry));
    TRY(choose_source(config, entry, &pull));
    TRY(choose_paths(config, &pull));
    return fetch(&pull);
}

int pull_main(const struct config *config, int count, char **names)
{
    struct catalog *catalog = NULL;
    if (count != 1)
        return exit_code(status_fail(STATUS_USAGE, "pull: expected the name of one model"));
    enum status status = catalog_open(&catalog);
    if (status == STATUS_OK)
        status = pull_model(config, catalog, names[0]);
    catalog_close(catalog);
    return status == STATUS_OK ? EXIT_OK : exit_code(status);
}
