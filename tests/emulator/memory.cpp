// Device and pinned memory, and the device's properties.
//
// Each allocation on the device has pages of its own, which nobody pays for before they are
// touched, between pages that nobody may touch. It starts at a multiple of 256 bytes, no better,
// and ends as near the page behind it as that allows; the bytes that are left there must stay as
// they are. So a kernel that reads or writes past either end is stopped, or finds NaN. Memory
// starts as NaN; of more than a GB only both ends do.
//
// ASan sees the end of each allocation, holds it poisoned while no work runs on the device (a host
// access is reported as use-after-poison).
#include "device.h"
#include "sanitizer.h"
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

namespace emulator
{

static std::map<const char *, allocation> allocations; // by their first byte
static std::map<int, size_t> used_bytes;
static int open = -1; // the device whose memory may be touched now
constexpr size_t alignment = 256, huge_bytes = size_t(1) << 30, huge_end_bytes = size_t(64) << 20;

const allocation *find_allocation(const void *p, size_t bytes)
{
    const char *begin = static_cast<const char *>(p);
    auto next = allocations.upper_bound(begin);
    if (next == allocations.begin())
        return nullptr;
    const allocation &a = std::prev(next)->second;
    return begin + bytes <= a.memory + a.bytes ? &a : nullptr;
}

bool in_device_memory(const void *p, size_t bytes)
{
    const allocation *a = find_allocation(p, bytes);
    return a && a->device >= 0;
}

// Of huge ones not even ASan's record can be kept.
static bool watched(const allocation &a)
{
    return a.bytes <= huge_bytes;
}

void open_device(int device)
{
    if (open == device)
        return;
    close_device();
    for (const auto &entry : allocations)
        if (entry.second.device == device && watched(entry.second))
            unpoison(entry.second.memory, entry.second.bytes);
    open = device;
}

void close_device()
{
    if (open < 0)
        return;
    for (const auto &entry : allocations)
        if (entry.second.device == open && watched(entry.second))
            poison(entry.second.memory, entry.second.bytes);
    open = -1;
}

long live_allocations()
{
    return long(allocations.size());
}

// The bytes between the end of an allocation and the page behind it.
static size_t gap_of(const allocation &a)
{
    return -a.bytes % alignment;
}

__attribute__((no_sanitize("address"))) void check_gaps(int device)
{
    for (const auto &entry : allocations) {
        const allocation &a = entry.second;
        const char *end = a.memory + a.bytes;
        if (a.device == device)
            for (size_t i = 0; i < gap_of(a); i++)
                if (end[i] != char(0xff))
                    fail("written %zu bytes past the end of %zu bytes of device memory", i + 1,
                         a.bytes);
    }
}

// The pages of an allocation with its gap, without those around them.
static size_t inside_bytes(size_t bytes)
{
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    return (bytes + -bytes % alignment + page - 1) / page * page;
}

static char *map_pages(size_t bytes)
{
    size_t page = size_t(sysconf(_SC_PAGESIZE)), inside = inside_bytes(bytes);
    void *pages = mmap(nullptr, inside + 2 * page, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return nullptr;
    if (mprotect(static_cast<char *>(pages) + page, inside, PROT_READ | PROT_WRITE)) {
        munmap(pages, inside + 2 * page);
        return nullptr;
    }
    return static_cast<char *>(pages) + page + inside - bytes - -bytes % alignment;
}

static void unmap_pages(const allocation &a)
{
    size_t page = size_t(sysconf(_SC_PAGESIZE)), inside = inside_bytes(a.bytes);
    munmap(a.memory + a.bytes + gap_of(a) - inside - page, inside + 2 * page);
}

void fill(void *memory, int value, size_t bytes)
{
    size_t end_bytes = bytes > huge_bytes ? huge_end_bytes : bytes;
    memset(memory, value, end_bytes);
    memset(static_cast<char *>(memory) + bytes - end_bytes, value, end_bytes);
}

static char *take_memory(size_t bytes, int device)
{
    void *pinned = nullptr;
    if (device < 0)
        return posix_memalign(&pinned, 4096, bytes) ? nullptr : static_cast<char *>(pinned);
    return map_pages(bytes);
}

static void give_back_memory(const allocation &a)
{
    if (a.device < 0)
        free(a.memory);
    else
        unmap_pages(a);
}

static cudaError_t allocate(void **memory, size_t bytes, int device)
{
    if (!memory)
        return cudaErrorInvalidValue;
    *memory = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    cudaError_t error = check_unsafe();
    if (error != cudaSuccess)
        return error;
    size_t limit = current_settings().memory_bytes;
    if (device >= 0 && (bytes > limit || used_bytes[device] > limit - bytes))
        return cudaErrorMemoryAllocation;
    allocation a = {take_memory(bytes, device), bytes, device};
    if (!a.memory)
        return cudaErrorMemoryAllocation;
    allocations[a.memory] = a;
    if (device >= 0) {
        used_bytes[device] += bytes;
        fill(a.memory, 0xff, bytes + gap_of(a));
        if (watched(a))
            poison(a.memory, a.bytes + gap_of(a));
    } else {
        memset(a.memory, 0xff, bytes);
    }
    *memory = a.memory;
    return cudaSuccess;
}

static cudaError_t release(void *memory, bool on_device)
{
    if (!memory)
        return cudaSuccess;
    auto found = allocations.find(static_cast<char *>(memory));
    if (found == allocations.end() || (found->second.device >= 0) != on_device)
        return cudaErrorInvalidValue;
    cudaError_t error = check_unsafe();
    if (error != cudaSuccess)
        return error;
    for (int i = 0; i < current_settings().devices; i++)
        wait_for_device(i);
    close_device();
    allocation freed = found->second;
    allocations.erase(found);
    if (on_device) {
        used_bytes[freed.device] -= freed.bytes;
        if (watched(freed))
            unpoison(memory, freed.bytes + gap_of(freed));
    }
    give_back_memory(freed);
    return cudaSuccess;
}

// Shared memory per block and per SM, in bytes, of a compute capability.
static size_t shared_per_block(int capability)
{
    switch (capability) {
    case 75:
        return 64 << 10;
    case 80:
    case 87:
        return 163 << 10;
    case 86:
    case 89:
    case 120:
    case 121:
        return 99 << 10;
    default:
        return 227 << 10;
    }
}

static void fill_properties(cudaDeviceProp *p)
{
    const settings &set = current_settings();
    *p = {};
    strcpy(p->name, "Emulated GPU");
    strcpy(p->uuid.bytes, "vitserve-gpu");
    p->major = set.capability / 10;
    p->minor = set.capability % 10;
    p->totalGlobalMem = set.memory_bytes;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = shared_per_block(set.capability);
    p->sharedMemPerMultiprocessor = p->sharedMemPerBlockOptin + 1024;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->maxBlocksPerMultiProcessor = 32;
    p->multiProcessorCount = 132;
    p->l2CacheSize = 1 << 20; // small: who flushes it writes as much
    p->totalConstMem = 64 << 10;
    p->memoryBusWidth = 5120;
    p->asyncEngineCount = 3;
    p->concurrentKernels = p->unifiedAddressing = p->canMapHostMemory = 1;
    p->streamPrioritiesSupported = 1;
}

static cudaError_t attribute(const cudaDeviceProp &p, cudaDeviceAttr which, int *value)
{
    switch (which) {
    case cudaDevAttrComputeCapabilityMajor:
        return *value = p.major, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        return *value = p.minor, cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        return *value = p.multiProcessorCount, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        return *value = int(p.sharedMemPerBlock), cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        return *value = int(p.sharedMemPerBlockOptin), cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        return *value = int(p.sharedMemPerMultiprocessor), cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock:
        return *value = p.maxThreadsPerBlock, cudaSuccess;
    case cudaDevAttrWarpSize:
        return *value = p.warpSize, cudaSuccess;
    case cudaDevAttrL2CacheSize:
        return *value = p.l2CacheSize, cudaSuccess;
    case cudaDevAttrClockRate: // kHz
        return *value = 1980000, cudaSuccess;
    case cudaDevAttrMemoryClockRate:
        return *value = 3201000, cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
        return *value = p.memoryBusWidth, cudaSuccess;
    case cudaDevAttrIntegrated:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrComputeMode:
        return *value = 0, cudaSuccess;
    default:
        return cudaErrorInvalidValue;
    }
}

static bool valid_device(int device)
{
    return device >= 0 && device < current_settings().devices;
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    return call(__func__, [&] { return allocate(memory, bytes, current_device()); });
}

cudaError_t cudaFree(void *memory)
{
    return call(__func__, [&] { return release(memory, true); });
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    return call(__func__, [&] { return allocate(memory, bytes, -1); });
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    return call(__func__, [&] {
        bool known =
            !(flags & ~(cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined));
        return known ? allocate(memory, bytes, -1) : cudaErrorInvalidValue;
    });
}

cudaError_t cudaFreeHost(void *memory)
{
    return call(__func__, [&] { return release(memory, false); });
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    return call(__func__, [&] {
        *total_bytes = current_settings().memory_bytes;
        *free_bytes = *total_bytes - used_bytes[current_device()];
        return cudaSuccess;
    });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    return call_without_context(__func__, [&] {
        if (!valid_device(device))
            return cudaErrorInvalidDevice;
        fill_properties(properties);
        properties->pciBusID = device + 1;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int device)
{
    return call_without_context(__func__, [&] {
        if (!valid_device(device))
            return cudaErrorInvalidDevice;
        cudaDeviceProp properties;
        fill_properties(&properties);
        return attribute(properties, which, value);
    });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *p)
{
    return call(__func__, [&] {
        const allocation *a = find_allocation(p, 1);
        *attributes = {};
        attributes->type = !a              ? cudaMemoryTypeUnregistered
                           : a->device < 0 ? cudaMemoryTypeHost
                                           : cudaMemoryTypeDevice;
        attributes->device = a && a->device >= 0 ? a->device : current_device();
        return cudaSuccess;
    });
}

// Those of the machine, not of a device: they work without one.
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = current_settings().devices < 0 ? 0 : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}
