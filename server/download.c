// DESIGN: the signals that end a program are blocked during a transfer and asked for in the
// progress callback, which comes at least once a second: the user is told what is kept. libcurl is
// loaded and not linked, since it and what it needs would cost the server 3.4 MB.

#include "download.h"
#include "clock.h"
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct curl {
    CURL *(*init)(void);
    CURLcode (*setopt)(CURL *, CURLoption, ...);
    CURLcode (*perform)(CURL *);
    CURLcode (*getinfo)(CURL *, CURLINFO, ...);
    const char *(*strerror)(CURLcode);
    void (*cleanup)(CURL *);
};

struct transfer {
    const char *url, *path;
    int fd;
    struct curl curl;
    CURL *handle;
    char error[CURL_ERROR_SIZE];
    int64_t start, bytes; // of the file: before, and now
    bool begun;           // the body has
    int64_t max_bytes;
    bool too_long;
    int write_error; // an errno

    sigset_t signals;
    bool progress; // shown on standard error
    int64_t start_ns, shown_ns;
};

static bool is_https(const char *url)
{
    return strncmp(url, "https://", 8) == 0;
}

bool download_allows(const char *url)
{
    static const char loopback[] = "http://127.0.0.1";
    if (strncmp(url, loopback, sizeof loopback - 1) != 0)
        return is_https(url);
    url += sizeof loopback - 1;
    if (*url == ':')
        url += 1 + strspn(url + 1, "0123456789");
    return *url == '/';
}

// The library stays loaded.
static enum status load_curl(struct curl *curl)
{
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    const struct {
        const char *name;
        void **function;
    } wanted[] = {{"curl_easy_init", (void **)(void *)&curl->init},
                  {"curl_easy_setopt", (void **)(void *)&curl->setopt},
                  {"curl_easy_perform", (void **)(void *)&curl->perform},
                  {"curl_easy_getinfo", (void **)(void *)&curl->getinfo},
                  {"curl_easy_strerror", (void **)(void *)&curl->strerror},
                  {"curl_easy_cleanup", (void **)(void *)&curl->cleanup}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        *wanted[i].function = library ? dlsym(library, wanted[i].name) : NULL;
        if (!*wanted[i].function)
            return status_fail(STATUS_IO, "a download needs libcurl: %s", dlerror());
    }
    return STATUS_OK;
}

static long response_code(const struct transfer *transfer)
{
    long code = 0;
    transfer->curl.getinfo(transfer->handle, CURLINFO_RESPONSE_CODE, &code);
    return code;
}

static bool begin_body(struct transfer *transfer)
{
    curl_off_t length = -1; // unknown
    transfer->begun = true;
    if (response_code(transfer) != 206) { // the server sends the file from its beginning
        transfer->start = transfer->bytes = 0;
        if (ftruncate(transfer->fd, 0) != 0 || lseek(transfer->fd, 0, SEEK_SET) != 0)
            return false;
    }
    transfer->curl.getinfo(transfer->handle, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    transfer->too_long = length > transfer->max_bytes - transfer->start;
    return !transfer->too_long;
}

static size_t on_body(char *piece, size_t one, size_t length, void *context)
{
    struct transfer *transfer = context;
    (void)one;
    bool good = transfer->begun || begin_body(transfer);
    transfer->too_long |= (int64_t)length > transfer->max_bytes - transfer->bytes;
    good = good && !transfer->too_long;
    for (size_t done = 0; good && done < length;) {
        ssize_t written = write(transfer->fd, piece + done, length - done);
        good = written >= 0;
        done += good ? (size_t)written : 0;
        transfer->bytes += good ? written : 0;
    }
    if (!good && !transfer->too_long)
        transfer->write_error = errno;
    return good ? length : 0;
}

// [#####     ]  26 %  87.1 of 336.6 MB  12.3 MB/s
static void show_progress(struct transfer *transfer, int64_t whole)
{
    const int64_t now_ns = clock_ns(), pause_ns = 100 * 1000000;
    if (!transfer->progress || now_ns - transfer->shown_ns < pause_ns)
        return;
    transfer->shown_ns = now_ns;
    double share = (double)transfer->bytes / (double)whole;
    double seconds = (double)(now_ns - transfer->start_ns) * 1e-9;
    int filled = share < 1 ? (int)(30 * share) : 30;
    fprintf(stderr, "\r[%.*s%*s] %3.0f %%  %.1f of %.1f MB  %.1f MB/s\033[K", filled,
            "##############################", 30 - filled, "", 100 * share,
            (double)transfer->bytes * 1e-6, (double)whole * 1e-6,
            (double)(transfer->bytes - transfer->start) * 1e-6 / seconds);
}

static bool interrupted(const struct transfer *transfer)
{
    sigset_t pending, wanted;
    sigpending(&pending);
    sigandset(&wanted, &pending, &transfer->signals);
    return !sigisemptyset(&wanted);
}

// total: bytes of this body, 0 while that is unknown. A return of 1 ends the transfer.
static int on_progress(void *context, curl_off_t total, curl_off_t done, curl_off_t to_send,
                       curl_off_t sent)
{
    struct transfer *transfer = context;
    (void)done, (void)to_send, (void)sent;
    if (total > 0 && transfer->begun)
        show_progress(transfer, transfer->start + total);
    return interrupted(transfer);
}

static enum status set_up(struct transfer *transfer)
{
    CURL *handle = transfer->handle;
    CURLcode (*set)(CURL *, CURLoption, ...) = transfer->curl.setopt;
    char range[32];
    snprintf(range, sizeof range, "%lld-", (long long)transfer->start);
    bool failed = set(handle, CURLOPT_URL, transfer->url);
    failed |= set(handle, CURLOPT_PROTOCOLS_STR, is_https(transfer->url) ? "https" : "http");
    failed |= set(handle, CURLOPT_REDIR_PROTOCOLS_STR, "https");
    failed |= set(handle, CURLOPT_FOLLOWLOCATION, 1L);
    failed |= set(handle, CURLOPT_MAXREDIRS, 5L);
    failed |= set(handle, CURLOPT_FAILONERROR, 1L);
    failed |= set(handle, CURLOPT_RANGE, transfer->start > 0 ? range : NULL);
    failed |= set(handle, CURLOPT_USERAGENT, "vitserve/" VITSERVE_VERSION);
    failed |= set(handle, CURLOPT_NOSIGNAL, 1L);
    failed |= set(handle, CURLOPT_CONNECTTIMEOUT, 30L);
    failed |= set(handle, CURLOPT_LOW_SPEED_LIMIT, 1L); // bytes a second,
    failed |= set(handle, CURLOPT_LOW_SPEED_TIME, 60L); // for so many seconds
    failed |= set(handle, CURLOPT_ERRORBUFFER, transfer->error);
    failed |= set(handle, CURLOPT_WRITEFUNCTION, on_body);
    failed |= set(handle, CURLOPT_WRITEDATA, transfer);
    failed |= set(handle, CURLOPT_XFERINFOFUNCTION, on_progress);
    failed |= set(handle, CURLOPT_XFERINFODATA, transfer);
    failed |= set(handle, CURLOPT_NOPROGRESS, 0L);
    return failed ? status_fail(STATUS_IO, "a download needs libcurl 7.85 or later") : STATUS_OK;
}

static enum status judge(const struct transfer *transfer, CURLcode result)
{
    char kept[64] = "";
    const long code = response_code(transfer);
    if (code == 416 && transfer->start > 0) // nothing was missing
        return STATUS_OK;
    if (transfer->too_long)
        return status_fail(STATUS_IO,
                           "%.300s: longer than the %.1f MB expected at most; nothing is kept",
                           transfer->url, (double)transfer->max_bytes * 1e-6);
    if (transfer->bytes > 0)
        snprintf(kept, sizeof kept, "; %.1f MB are kept, pull again to go on",
                 (double)transfer->bytes * 1e-6);
    if (transfer->write_error)
        return status_fail(STATUS_IO, "%.300s: %s%s", transfer->path,
                           strerror(transfer->write_error), kept);
    if (interrupted(transfer))
        return status_fail(STATUS_IO, "interrupted%s", kept);
    if (code >= 400)
        return status_fail(STATUS_IO, "%.300s: HTTP status %ld%s", transfer->url, code, kept);
    if (result != CURLE_OK)
        return status_fail(STATUS_IO, "%.200s: %.200s%s", transfer->url,
                           *transfer->error ? transfer->error : transfer->curl.strerror(result),
                           kept);
    return STATUS_OK;
}

static enum status perform(struct transfer *transfer)
{
    TRY(load_curl(&transfer->curl));
    transfer->handle = transfer->curl.init();
    if (!transfer->handle)
        return status_fail(STATUS_OUT_OF_MEMORY, "libcurl: out of memory");
    enum status status = set_up(transfer);
    if (status == STATUS_OK) {
        transfer->start_ns = clock_ns();
        CURLcode result = transfer->curl.perform(transfer->handle);
        if (transfer->shown_ns > 0)
            fputs("\r\033[K", stderr);
        status = judge(transfer, result);
    }
    transfer->curl.cleanup(transfer->handle);
    return status;
}

enum status download(const char *url, const char *path, int fd, int64_t max_bytes, int64_t *bytes)
{
    const struct timespec now = {0};
    struct transfer transfer = {.url = url,
                                .path = path,
                                .fd = fd,
                                .max_bytes = max_bytes,
                                .progress = isatty(STDERR_FILENO)};
    transfer.start = transfer.bytes = lseek(fd, 0, SEEK_END);
    sigset_t before;
    sigemptyset(&transfer.signals);
    sigaddset(&transfer.signals, SIGINT);
    sigaddset(&transfer.signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &transfer.signals, &before);
    signal(SIGPIPE, SIG_IGN); // TLS writes to a socket that the server may have closed
    enum status status = perform(&transfer);
    while (sigtimedwait(&transfer.signals, NULL, &now) > 0) // said already
        ;
    sigprocmask(SIG_SETMASK, &before, NULL);
    *bytes = transfer.too_long ? 0 : transfer.bytes;
    return status;
}
