// Preloaded into the server: memory that runs out on command. The file that SCARCE_MEMORY names is
// mapped by both sides, and holds a struct scarce: of all allocations, `left` more succeed, and
// then one fails, or all of them if `lasting`. Under 0 means no failure. Beneath it is the C
// library or a sanitizer.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct scarce {
    _Atomic int64_t left, lasting;
    _Atomic int64_t made; // allocations so far, the failed ones included
};

static struct scarce plenty = {.left = -1}, *scarce = &plenty;

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    int (*getattr)(pthread_t, pthread_attr_t *);
} next;

// Read without a call, which would be a sanitizer's and not ready.
static _Thread_local bool sheltered __attribute__((tls_model("initial-exec")));

// Not by memcpy(), for the same reason.
static void find(const char *name, void *function)
{
    *(void **)function = dlsym(RTLD_NEXT, name);
}

// Runs at the first allocation, which may come before any constructor.
static void prepare(void)
{
    find("calloc", &next.calloc);
    find("realloc", &next.realloc);
    find("posix_memalign", &next.posix_memalign);
    find("aligned_alloc", &next.aligned_alloc);
    find("pthread_getattr_np", &next.getattr);
    find("malloc", &next.malloc);
}

__attribute__((constructor)) static void map_command(void)
{
    const char *path = getenv("SCARCE_MEMORY");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = mmap(NULL, sizeof *scarce, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        abort();
    close(fd);
    scarce = map;
}

static bool runs_out(void)
{
    if (!next.malloc)
        prepare();
    if (sheltered)
        return false;
    atomic_fetch_add(&scarce->made, 1);
    int64_t left = scarce->left;
    do {
        if (left < 0)
            return false;
    } while (!atomic_compare_exchange_weak(&scarce->left, &left,
                                           left == 0 && scarce->lasting ? 0 : left - 1));
    if (left > 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t bytes)
{
    return runs_out() ? NULL : next.malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return runs_out() ? NULL : next.calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    return runs_out() ? NULL : next.realloc(memory, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    return runs_out() ? ENOMEM : next.posix_memalign(memory, alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return runs_out() ? NULL : next.aligned_alloc(alignment, bytes);
}

// Of all that allocates, a sanitizer's question for the stack of a new thread takes no refusal.
int pthread_getattr_np(pthread_t thread, pthread_attr_t *attributes)
{
    if (!next.malloc)
        prepare();
    sheltered = true;
    int error = next.getattr(thread, attributes);
    sheltered = false;
    return error;
}
