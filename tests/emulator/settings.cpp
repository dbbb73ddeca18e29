// The emulated machine's settings, random choices, injected faults, lost devices and last errors.
#include "device.h"
#include "sanitizer.h"
#include <cstdio>
#include <cstdlib>

namespace emulator
{

std::mutex mutex;

struct injected {
    std::string call;
    long at; // the count of that call at which it strikes
    int error;
};

struct machine {
    settings set;
    uint64_t seed, random;
    std::vector<injected> faults;
    std::map<std::string, long> calls;
    std::map<int, cudaError_t> lost;
    std::set<int> contexts; // the devices that have one
};

constexpr heuristic heuristic_by_default = heuristic::rough;

static thread_local int device_of_thread;
static thread_local cudaError_t last_error;

static long environment(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static void add_faults(machine &m, const char *text)
{
    char call[64];
    int nth, error, length;
    while (text && sscanf(text, "%63[^:]:%d:%d%n", call, &nth, &error, &length) == 3) {
        m.faults.push_back({call, nth, error});
        text += length;
        text += *text == ',';
    }
}

static heuristic read_heuristic(const char *text)
{
    return !text || !*text          ? heuristic_by_default
           : !strcmp(text, "none")  ? heuristic::none
           : !strcmp(text, "rough") ? heuristic::rough
                                    : heuristic::smooth;
}

static machine read_environment()
{
    machine m = {};
    double capability = getenv("EMULATOR_CC") ? atof(getenv("EMULATOR_CC")) : 9.0;
    m.set.devices = int(environment("EMULATOR_DEVICES", 1));
    m.set.capability = int(capability * 10 + 0.5);
    m.set.memory_bytes = size_t(environment("EMULATOR_MEMORY_MB", 8192)) << 20;
    m.set.heuristic = read_heuristic(getenv("EMULATOR_HEURISTIC"));
    m.set.library = int(environment("EMULATOR_LIBRARY", 1));
    m.set.only_device = int(environment("EMULATOR_ONLY_DEVICE", -1));
    m.set.blocks = uint64_t(environment("EMULATOR_BLOCKS", 0));
    m.set.races = environment("EMULATOR_RACES", 1) != 0;
    m.seed = m.random = uint64_t(environment("EMULATOR_SEED", 1));
    add_faults(m, getenv("EMULATOR_FAIL"));
    return m;
}

static void print_seed(int status, void *)
{
    if (status)
        fprintf(stderr, "emulator: EMULATOR_SEED=%llu\n", static_cast<unsigned long long>(seed()));
}

static machine &the_machine()
{
    static machine m = (on_exit(print_seed, nullptr), read_environment());
    return m;
}

const settings &current_settings()
{
    return the_machine().set;
}

uint64_t seed()
{
    return the_machine().seed;
}

// splitmix64; the small bias of the remainder does not matter here.
uint64_t random_below(uint64_t bound)
{
    uint64_t z = the_machine().random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % bound;
}

bool one_in(unsigned n)
{
    return random_below(n) == 0;
}

void shuffle_order(std::vector<uint32_t> &order, size_t n)
{
    order.resize(n);
    for (size_t i = 0; i < n; i++) {
        size_t j = random_below(i + 1);
        order[i] = order[j];
        order[j] = uint32_t(i);
    }
}

int fault(const char *call)
{
    machine &m = the_machine();
    long count = ++m.calls[call];
    for (size_t i = 0; i < m.faults.size(); i++)
        if (m.faults[i].at == count && m.faults[i].call == call) {
            int error = m.faults[i].error;
            m.faults.erase(m.faults.begin() + i);
            return error;
        }
    return 0;
}

bool sticky(cudaError_t error)
{
    switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

cudaError_t device_error(int device)
{
    const std::map<int, cudaError_t> &lost = the_machine().lost;
    auto found = lost.find(device);
    return found == lost.end() ? cudaSuccess : found->second;
}

void lose_device(int device, cudaError_t error)
{
    the_machine().lost.emplace(device, error);
}

int current_device()
{
    return device_of_thread;
}

void enter_device(const char *call)
{
    int only = current_settings().only_device, device = current_device();
    the_machine().contexts.insert(device);
    if (only >= 0 && device != only)
        fail("%s makes a context on GPU %d, which takes half a GB there; only GPU %d is in use",
             call, device, only);
}

cudaError_t remember(cudaError_t error)
{
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

cudaError_t check_driver()
{
    int devices = current_settings().devices;
    if (devices < 0)
        return cudaErrorInsufficientDriver;
    return devices == 0 ? cudaErrorNoDevice : cudaSuccess;
}

} // namespace emulator

using namespace emulator;

#if EMULATOR_ASAN
// Called by ASan before its report.
extern "C" void __asan_on_error()
{
    fprintf(stderr, "emulator: %s\nemulator: EMULATOR_SEED=%llu\n", position().c_str(),
            static_cast<unsigned long long>(seed()));
}
#endif

void emulator_fail(const char *call, int nth, int error)
{
    std::lock_guard<std::mutex> guard(mutex);
    machine &m = the_machine();
    m.faults.push_back({call, m.calls[call] + nth, error});
}

long emulator_calls(const char *call)
{
    std::lock_guard<std::mutex> guard(mutex);
    return the_machine().calls[call];
}

void emulator_reset(void)
{
    std::lock_guard<std::mutex> guard(mutex);
    the_machine() = read_environment();
    last_error = cudaSuccess;
}

void emulator_seed(uint64_t value)
{
    std::lock_guard<std::mutex> guard(mutex);
    the_machine().seed = the_machine().random = value;
}

int emulator_has_context(int device)
{
    std::lock_guard<std::mutex> guard(mutex);
    return int(the_machine().contexts.count(device));
}

long emulator_live(void)
{
    std::lock_guard<std::mutex> guard(mutex);
    return live_allocations() + live_streams() + live_events() + live_graphs() + live_cublaslt();
}

cudaError_t cudaGetLastError(void)
{
    std::lock_guard<std::mutex> guard(mutex);
    cudaError_t error = device_error(current_device());
    if (error == cudaSuccess)
        std::swap(error, last_error);
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    std::lock_guard<std::mutex> guard(mutex);
    cudaError_t error = device_error(current_device());
    return error == cudaSuccess ? last_error : error;
}

cudaError_t cudaSetDevice(int device)
{
    std::lock_guard<std::mutex> guard(mutex);
    cudaError_t error = static_cast<cudaError_t>(fault(__func__));
    if (error == cudaSuccess)
        error = check_driver();
    if (error == cudaSuccess && (device < 0 || device >= current_settings().devices))
        error = cudaErrorInvalidDevice;
    if (error == cudaSuccess)
        device_of_thread = device;
    if (error == cudaSuccess)
        enter_device(__func__);
    return remember(error == cudaSuccess ? device_error(device) : error);
}

cudaError_t cudaGetDevice(int *device)
{
    return call_without_context(__func__, [&] {
        *device = device_of_thread;
        return cudaSuccess;
    });
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    return call_without_context(__func__, [&] {
        *count = current_settings().devices;
        return cudaSuccess;
    });
}
