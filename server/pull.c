// vitserve pull: the published weights of a model, into a directory.
//
// The file grows as NAME.pth.part and gets its name once its SHA-256 is right: so what has the name
// is whole, and what was interrupted is gone on with.
//
// Of most files only 8 digits of the SHA-256 are published, and a file with any 8 digits takes
// minutes to make: they show damage, no more. So the first file that comes is taken on TLS's word
// and its whole SHA-256 is kept in NAME.pth.sha256; any later file has to match that. A start of
// the server does not: hashing takes ten times as long as loading, and whoever could exchange the
// file could exchange the record too. Another pull looks, or --check does.

#include "catalog.h"
#include "commands.h"
#include "download.h"
#include "log.h"
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
    const char *sha256; // that is wanted: the first digits, or all
    char recorded[65];  // of an earlier pull; "" for none
    bool only_check;
    int64_t max_bytes;
    char directory[4096], path[4224], part[4232], record[4232];
};

enum { DIGITS = 64 };

// ---- what to get, and where it goes -------------------------------------------------------------

static bool is_sha256(const char *text)
{
    return strlen(text) == DIGITS && strspn(text, "0123456789abcdef") == DIGITS;
}

static enum status choose_source(const struct config *config, const struct catalog_entry *entry,
                                 struct pull *pull)
{
    pull->model = entry->name;
    pull->only_check = config->check;
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
    if (*config->sha256 && !is_sha256(config->sha256))
        return status_fail(
            STATUS_USAGE,
            "--sha256: \"%.80s\" is not 64 lower-case hex digits: fewer prove nothing",
            config->sha256);
    return STATUS_OK;
}

// Four numbers of fp32 for each parameter: training keeps an average and an optimizer's two beside
// it. More is no checkpoint of this model, and would only fill the disk.
static enum status choose_limit(const struct catalog_entry *entry, struct pull *pull)
{
    struct tensor_info *rows;
    size_t count;
    TRY(vit_list_weights(&entry->dims, &rows, &count));
    pull->max_bytes = 16 << 20; // names, shapes, configuration
    for (size_t i = 0; i < count; i++)
        pull->max_bytes += 4 * (int64_t)sizeof(float) * tensor_count(&rows[i]);
    free(rows);
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
    snprintf(pull->record, sizeof pull->record, "%s.sha256", pull->path);
    return STATUS_OK;
}

static enum status make_directory(char *path)
{
    for (char *end = path + 1;; end++) {
        char was = *end;
        if (was && was != '/')
            continue;
        *end = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST)
            return status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
        *end = was;
        if (!was)
            return STATUS_OK;
    }
}

// A file of ours to write to, made if need be. A link that somebody else has put there would lead
// to a file that is not.
static enum status open_own(const char *path, int *fd)
{
    struct stat info;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (*fd < 0)
        return status_fail(STATUS_IO, "%s: %s", path,
                           errno == ELOOP ? "a symbolic link, which is not followed"
                                          : strerror(errno));
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_nlink <= 1 &&
        ((info.st_mode & 022) == 0 || fchmod(*fd, info.st_mode & 0644) == 0))
        return STATUS_OK;
    close(*fd);
    return status_fail(STATUS_IO, "%s: not a regular file that is ours alone; delete it first",
                       path);
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

// ---- the digest, and the record of it -----------------------------------------------------------

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

// Behind the digits that are wanted.
static const char *dots(const struct pull *pull)
{
    return strlen(pull->sha256) < DIGITS ? "..." : "";
}

// What an earlier pull has got is what is wanted from then on.
static enum status read_record(struct pull *pull)
{
    char line[DIGITS + 2] = ""; // as sha256sum has it: the digest, two spaces, the file
    int fd = open(pull->record, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? STATUS_OK
                               : status_fail(STATUS_IO, "%s: %s", pull->record, strerror(errno));
    ssize_t got = read(fd, line, sizeof line);
    close(fd);
    bool whole = got == sizeof line && line[DIGITS] == ' ';
    line[DIGITS] = '\0';
    if (!whole || !is_sha256(line))
        return status_fail(STATUS_IO, "%s: not a line of sha256sum: delete it first", pull->record);
    if (!is_right(pull, line))
        return status_fail(STATUS_IO, "%s: it was %s, not %s%s: delete it if the change is wanted",
                           pull->record, line, pull->sha256, dots(pull));
    memcpy(pull->recorded, line, sizeof pull->recorded);
    pull->sha256 = pull->recorded;
    return STATUS_OK;
}

static enum status write_record(const struct pull *pull, const char *digest)
{
    char part[sizeof pull->record + 8];
    int fd;
    snprintf(part, sizeof part, "%s.part", pull->record);
    TRY(open_own(part, &fd));
    bool good = ftruncate(fd, 0) == 0 &&
                dprintf(fd, "%s  %s\n", digest, strrchr(pull->path, '/') + 1) > DIGITS &&
                fsync(fd) == 0 && rename(part, pull->record) == 0;
    enum status status =
        good ? STATUS_OK : status_fail(STATUS_IO, "%s: %s", pull->record, strerror(errno));
    close(fd);
    return status;
}

// Of a file that is right as far as its SHA-256 is known.
static enum status take(const struct pull *pull, const char *digest)
{
    if (strlen(pull->sha256) < DIGITS)
        log_warning("%s: only %zu digits of its SHA-256 are published, which show damage but no "
                    "forgery: TLS alone vouches for this file",
                    pull->path, strlen(pull->sha256));
    return *pull->recorded || pull->only_check ? STATUS_OK : write_record(pull, digest);
}

static void print_done(const struct pull *pull, const char *verb, int fd, const char *digest)
{
    struct stat info = {0};
    fstat(fd, &info);
    printf("%s: %s, %.1f MB, SHA-256 %s\n", pull->path, verb, (double)info.st_size * 1e-6, digest);
}

static enum status another_file(const struct pull *pull, const char *digest)
{
    if (*pull->recorded)
        return status_fail(STATUS_IO,
                           "%s is not the file that was pulled: its SHA-256 is %s, not %s: delete "
                           "it to pull it again, or %s if the change is wanted",
                           pull->path, digest, pull->recorded, pull->record);
    return status_fail(STATUS_IO,
                       "%s is another file: its SHA-256 is %s, not %s%s; move it away first",
                       pull->path, digest, pull->sha256, dots(pull));
}

// *found: the file is there, and is the one that is wanted. Another one stays untouched.
static enum status look_for_file(const struct pull *pull, bool *found)
{
    char digest[65];
    int fd = open(pull->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe is not waited for
    *found = fd >= 0;
    if (fd < 0)
        return errno == ENOENT ? STATUS_OK
                               : status_fail(STATUS_IO, "%s: %s", pull->path, strerror(errno));
    enum status status = hash_file(fd, pull->path, digest);
    if (status == STATUS_OK)
        status = is_right(pull, digest) ? take(pull, digest) : another_file(pull, digest);
    if (status == STATUS_OK)
        print_done(pull, "is there already", fd, digest);
    close(fd);
    return status;
}

// ---- the file -----------------------------------------------------------------------------------

// *fd is locked.
static enum status open_part(const struct pull *pull, int *fd)
{
    TRY(open_own(pull->part, fd));
    // Another pull may have it, or have given it its name since we looked.
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0 || access(pull->path, F_OK) == 0) {
        close(*fd);
        return status_fail(STATUS_IO, "%s: another pull is at it", pull->part);
    }
    return STATUS_OK;
}

static enum status check_and_rename(const struct pull *pull, int fd)
{
    char digest[65];
    TRY(hash_file(fd, pull->part, digest));
    if (!is_right(pull, digest)) {
        unlink(pull->part);
        return status_fail(STATUS_IO, "%.200s: its SHA-256 is %s, not %s%s%s%s; nothing is kept",
                           pull->url, digest, pull->sha256, dots(pull),
                           *pull->recorded ? ": if the change is wanted, delete " : "",
                           *pull->recorded ? pull->record : "");
    }
    TRY(take(pull, digest));
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
    TRY(read_record(pull));
    TRY(look_for_file(pull, &found));
    if (found)
        return STATUS_OK;
    if (pull->only_check)
        return status_fail(STATUS_NOT_FOUND, "%s is not there", pull->path);
    TRY(make_directory(pull->directory));
    TRY(open_part(pull, &fd));
    enum status status = download(pull->url, pull->part, fd, pull->max_bytes, &bytes);
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
    struct pull pull = {0};
    const struct catalog_entry *entry;
    TRY(catalog_find(catalog, name, &entry));
    TRY(choose_source(config, entry, &pull));
    TRY(choose_paths(config, &pull));
    TRY(choose_limit(entry, &pull));
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
