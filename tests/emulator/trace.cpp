// The trace. A kernel's bytes are the distinct 32-byte sectors of device memory that it reads and
// those that it writes: a GPU's caches fetch in these units, so strided accesses cost what they do
// there. What is read twice counts once. The bytes of a product follow from its shape.
#include "trace.h"
#include <bitset>
#include <cstdio>
#include <cstdlib>
#include <cxxabi.h>
#include <dlfcn.h>
#include <unordered_map>

namespace emulator
{

constexpr uintptr_t sector = 32, page_sectors = 1 << 15;

struct page {
    std::bitset<page_sectors> read, written;
};

// Marks are of any memory, stacks and shared memory included; what lies in device memory is found
// out once per kernel and not at each access.
struct marks {
    std::unordered_map<uintptr_t, page> pages; // by address / (sector * page_sectors)
    uintptr_t latest = ~uintptr_t(0);
    page *latest_page = nullptr;
};
static marks marked;
bool marking;
static thread_local bool on_this_thread; // others run host code meanwhile, which is compiled alike
static double mma_flops;

#ifdef EMULATOR_HOOKS
static constexpr bool accesses_are_reported = true;
#else
static constexpr bool accesses_are_reported = false;
#endif

struct trace {
    FILE *file = nullptr;
    long run = -1; // EMULATOR_TRACE_RUN
    long graphs = 0, graph = 0;
};

static trace open_trace()
{
    trace t;
    const char *path = getenv("EMULATOR_TRACE"), *run = getenv("EMULATOR_TRACE_RUN");
    if (path && *path && !(t.file = fopen(path, "w")))
        fail("EMULATOR_TRACE: cannot write %s", path);
    if (run && *run)
        t.run = atol(run);
    return t;
}

static trace &the_trace()
{
    static trace t = open_trace();
    return t;
}

bool tracing()
{
    return the_trace().file;
}

static bool runs_everything()
{
    return the_trace().run < 0;
}

long trace_graph_number()
{
    return ++the_trace().graphs;
}

traced_graph::traced_graph(long number)
{
    the_trace().graph = number;
}

traced_graph::~traced_graph()
{
    the_trace().graph = 0;
}

// -- accesses -------------------------------------------------------------------------------------

static page &page_of(uintptr_t number)
{
    if (number != marked.latest) {
        marked.latest = number;
        marked.latest_page = &marked.pages[number];
    }
    return *marked.latest_page;
}

void mark_access(const void *p, size_t bytes, bool reads)
{
    std::bitset<page_sectors> page::*which = reads ? &page::read : &page::written;
    uintptr_t first = reinterpret_cast<uintptr_t>(p) / sector;
    uintptr_t last = (reinterpret_cast<uintptr_t>(p) + bytes - 1) / sector;
    for (uintptr_t i = first; on_this_thread && bytes && i <= last; i++)
        (page_of(i / page_sectors).*which)[i % page_sectors] = true;
}

void trace_mma(int k)
{
    mma_flops += 2.0 * 16 * 8 * k;
}

struct traffic {
    size_t read, written, touched; // touched: what is read or written, once
};

static bool in_device_memory(uintptr_t address, const allocation *&latest)
{
    const char *p = reinterpret_cast<const char *>(address);
    if (!latest || p < latest->memory || p >= latest->memory + latest->bytes)
        latest = find_allocation(p, 1);
    return latest && latest->device >= 0;
}

static traffic count_marks()
{
    traffic sum = {};
    const allocation *latest = nullptr;
    for (const auto &entry : marked.pages)
        for (uintptr_t i = 0; i < page_sectors; i++) {
            bool read = entry.second.read[i], written = entry.second.written[i];
            if (!(read || written) ||
                !in_device_memory((entry.first * page_sectors + i) * sector, latest))
                continue;
            sum.read += read * sector;
            sum.written += written * sector;
            sum.touched += sector;
        }
    marked.pages.clear();
    marked.latest = ~uintptr_t(0);
    return sum;
}

// -- names ----------------------------------------------------------------------------------------

// Kernels are static functions, which the dynamic linker does not know: nm reads the module.
static std::map<uintptr_t, std::string> read_symbols(const char *module)
{
    std::map<uintptr_t, std::string> symbols;
    FILE *nm = popen(("nm --defined-only '" + std::string(module) + "' 2>/dev/null").c_str(), "r");
    char name[2048];
    for (unsigned long address; nm && fscanf(nm, "%lx %*c %2047s", &address, name) > 0;)
        symbols[address] = name;
    if (nm)
        pclose(nm);
    return symbols;
}

// "void f<T>(T *)" and "f(float *)" are f.
static std::string bare_name(const char *mangled)
{
    char *demangled = abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr);
    std::string name = demangled ? demangled : mangled;
    free(demangled);
    name = name.substr(0, name.find_first_of("<("));
    return name.substr(name.rfind(' ') + 1);
}

static const std::string &name_of(const void *function)
{
    static std::map<const void *, std::string> names;
    std::string &name = names[function];
    Dl_info module;
    if (name.empty() && dladdr(function, &module)) {
        static const auto symbols = read_symbols(module.dli_fname);
        uintptr_t base = reinterpret_cast<uintptr_t>(module.dli_fbase);
        auto found = symbols.find(reinterpret_cast<uintptr_t>(function) - base);
        name = found == symbols.end() ? "unknown" : bare_name(found->second.c_str());
    }
    return name;
}

// -- lines ----------------------------------------------------------------------------------------

static void write_kernel(const kernel &k, bool ran)
{
    trace &t = the_trace();
    fprintf(t.file,
            "{\"graph\": %ld, \"op\": \"%s\", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], "
            "\"shared\": %zu",
            t.graph, name_of(k.function).c_str(), k.grid.x, k.grid.y, k.grid.z, k.block.x,
            k.block.y, k.block.z, k.shared_bytes);
    traffic bytes = count_marks();
    if (ran && accesses_are_reported)
        fprintf(t.file, ", \"read\": %zu, \"written\": %zu, \"touched\": %zu, \"flops\": %.0f",
                bytes.read, bytes.written, bytes.touched, mma_flops);
    fputs("}\n", t.file);
}

bool trace_kernel(const kernel &launched, const std::function<bool()> &run)
{
    trace &t = the_trace();
    if (!t.file)
        return run();
    bool runs = runs_everything() || (t.graph > 0 && t.graph <= t.run);
    mma_flops = 0.0;
    marking = on_this_thread = true;
    for (bool done = !runs; !done;)
        done = run();
    marking = on_this_thread = false;
    write_kernel(launched, runs);
    return true;
}

static const char *name_of(cudaDataType type)
{
    return type == CUDA_R_16BF ? "bf16" : type == CUDA_R_16F ? "fp16" : "fp32";
}

// cuBLAS counts in columns: its m x n matrix is our row-major N x M.
bool trace_product(const gemm &g, float beta)
{
    trace &t = the_trace();
    if (!t.file)
        return true;
    size_t weights = g.m * g.k * bytes_of(g.a.type) * (g.a.batch_stride ? g.batches : 1);
    size_t in = g.n * g.k * bytes_of(g.b.type) * (g.b.batch_stride ? g.batches : 1);
    size_t out = g.m * g.n * bytes_of(g.d.type) * g.batches;
    size_t bias = g.bias ? g.m * bytes_of(g.bias_type) : 0;
    fprintf(t.file,
            "{\"graph\": %ld, \"op\": \"matmul\", \"M\": %ld, \"N\": %ld, \"K\": %ld, "
            "\"batch\": %ld, \"in\": \"%s\", \"compute\": \"%s\", \"out\": \"%s\", "
            "\"beta\": %g, \"bias\": %d, \"gelu\": %d, \"weights\": %zu, \"read\": %zu, "
            "\"written\": %zu, \"touched\": %zu, \"flops\": %.0f}\n",
            t.graph, long(g.n), long(g.m), long(g.k), long(g.batches), name_of(g.b.type),
            g.tf32 ? "tf32" : "fp32", name_of(g.d.type), beta, g.bias != nullptr, g.gelu, weights,
            weights + in + bias + (beta != 0.0f ? out : 0), out, weights + in + bias + out,
            2.0 * g.m * g.n * g.k * g.batches);
    return runs_everything();
}

bool trace_fill(size_t bytes)
{
    trace &t = the_trace();
    if (t.file)
        fprintf(t.file, "{\"graph\": %ld, \"op\": \"fill\", \"bytes\": %zu}\n", t.graph, bytes);
    return !t.file || runs_everything();
}

static const char *place_of(const void *p)
{
    const allocation *found = find_allocation(p, 1);
    return !found ? "pageable" : found->device < 0 ? "pinned" : "device";
}

void trace_copy(const void *to, const void *from, size_t bytes)
{
    trace &t = the_trace();
    if (t.file)
        fprintf(t.file,
                "{\"graph\": %ld, \"op\": \"copy\", \"from\": \"%s\", \"to\": \"%s\", "
                "\"bytes\": %zu}\n",
                t.graph, place_of(from), place_of(to), bytes);
}

} // namespace emulator
