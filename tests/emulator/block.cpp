// One block of a kernel: its threads are fibers, of which one runs at a time.
//
// DESIGN. Of the warps that can run, one is drawn at random and runs as far as it can, its lanes in
// random order, each as far as it can: what a missing barrier leaves open is thereby as wrong as it
// gets. A thread that arrives at a barrier or a collective suspends itself; the last to arrive does
// the work for all and makes them ready.
//
// A block of a kernel launched to overlap the one before may start ahead of it. Such a block is
// held: its threads run up to their grid_wait(), and are left there until the kernel before has
// ended. Other blocks run meanwhile; what it has in static shared arrays is put aside.
#include "block.h"
#include "crash.h"
#include "sanitizer.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator
{

block *running;

std::string position()
{
    if (!running)
        return "";
    const kernel &k = *running->launched;
    // (ASan's report names the function, and is not to be disturbed.)
    std::string source = EMULATOR_ASAN ? "" : source_of(k.function);
    char text[1024];
    snprintf(text, sizeof text,
             "kernel %s\n  launched at %s:%d (%s), block (%u, %u, %u), thread (%u, %u, %u)",
             source.c_str(), k.where.file, k.where.line, k.name.c_str(), blockIdx.x, blockIdx.y,
             blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    return text;
}

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "emulator: ");
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::string where = position();
    fprintf(stderr, "%s%s\nemulator: EMULATOR_SEED=%llu\n", where.empty() ? "" : "\n  in ",
            where.c_str(), static_cast<unsigned long long>(seed()));
    abort();
}

unsigned lane()
{
    return running->current % 32;
}

void require(int capability, const char *instruction)
{
    if (current_settings().capability < capability)
        fail("%s needs compute capability %d.%d", instruction, capability / 10, capability % 10);
}

void *dynamic_shared()
{
    return running->shared;
}

bool in_shared_memory(const void *p, size_t bytes)
{
    const char *begin = static_cast<const char *>(p);
    return (begin >= running->shared && begin + bytes <= running->shared_end) ||
           (begin >= emulator_shared_begin && begin + bytes <= emulator_shared_end);
}

void grid_wait()
{
    running->waited = true;
    if (!running->held)
        return;
    self().now = state::at_grid_wait;
    self().stack.suspend();
}

void grid_launch_dependents()
{
    running->triggered = true;
}

bool lets_dependents_start(const block &b)
{
    return b.triggered;
}

static void entry()
{
    self().stack.arrive();
    running->launched->body();
    self().now = state::done;
    running->done++;
    check_exit();
    self().stack.finish();
}

// Runs lanes of the warp until each of them waits or has exited; false if none could run.
static bool run_warp(size_t first)
{
    size_t lanes = std::min<size_t>(32, running->threads - first);
    for (bool ran = false;; ran = true) {
        size_t start = random_below(lanes), next = lanes;
        for (size_t i = 0; i < lanes && next == lanes; i++)
            if (running->fibers[first + (start + i) % lanes]->now == state::ready)
                next = (start + i) % lanes;
        if (next == lanes)
            return ran;
        running->current = first + next;
        threadIdx = self().index;
        self().stack.resume();
    }
}

static void run_warps()
{
    std::vector<uint32_t> order;
    for (bool ran = true; running->done < running->threads && ran;) {
        ran = false;
        shuffle_order(order, (running->threads + 31) / 32);
        for (uint32_t warp : order)
            ran |= run_warp(warp * size_t(32));
    }
}

static void start_fibers(block &b)
{
    dim3 size = b.launched->block;
    b.threads = size_t(size.x) * size.y * size.z;
    while (b.fibers.size() < b.threads)
        b.fibers.push_back(std::make_unique<fiber>(entry));
    for (size_t i = 0; i < b.threads; i++) {
        fiber &f = *b.fibers[i];
        f.index = {unsigned(i % size.x), unsigned(i / size.x % size.y),
                   unsigned(i / size.x / size.y)};
        f.now = state::ready;
        f.name = nullptr;
        f.open.clear();
        f.groups.clear();
        f.stack.start();
    }
    b.current = b.at_barrier = b.done = 0;
}

// Shared memory: aligned to 128 bytes and no more, and exactly as long as asked for.
constexpr size_t alignment = 128;

static void recycle(std::vector<std::unique_ptr<block>> &idle, block *b)
{
    unpoison(b->shared - alignment, alignment);
    free(b->shared - alignment);
    idle.emplace_back(b);
}

std::shared_ptr<block> start_block(const kernel &launched, uint3 index)
{
    // Never destroyed: blocks of work left over at exit still come back to it.
    static auto &idle = *new std::vector<std::unique_ptr<block>>;
    if (idle.empty())
        idle.push_back(std::make_unique<block>());
    block *b = idle.back().release();
    idle.pop_back();
    void *memory;
    if (posix_memalign(&memory, 2 * alignment, alignment + launched.shared_bytes + overrun_bytes))
        fail("no memory for a block");
    poison(memory, alignment);
    b->launched = &launched;
    b->index = index;
    b->shared = static_cast<char *>(memory) + alignment;
    b->shared_end = b->shared + launched.shared_bytes;
    memset(b->shared, 0xff, launched.shared_bytes); // NaN until written
    b->static_shared.assign(size_t(emulator_shared_end - emulator_shared_begin), char(0xff));
    b->waited = b->triggered = false;
    start_fibers(*b);
    start_race_check(*b);
    return {b, [](block *done) { recycle(idle, done); }};
}

static void check_end(const block &b)
{
    for (size_t i = 0; i < b.threads; i++) {
        const fiber &f = *b.fibers[i];
        if (f.now != state::done)
            fail("deadlock: thread %zu waits for ever in %s at %s:%d", i, f.name, f.where.file,
                 f.where.line);
    }
    if (b.launched->overlaps && !b.waited)
        fail("launched to overlap the kernel before it, but never calls grid_wait()");
}

void run_block(block &b, bool held)
{
    running = &b;
    blockIdx = b.index;
    blockDim = b.launched->block;
    gridDim = b.launched->grid;
    // The arrays' redzones are overwritten too, which ASan's memcpy would report and which harms
    // nobody.
    copy_bytes(emulator_shared_begin, b.static_shared.data(), b.static_shared.size());
    b.held = held;
    for (size_t i = 0; i < b.threads && !held; i++)
        if (b.fibers[i]->now == state::at_grid_wait)
            b.fibers[i]->now = state::ready;
    run_warps();
    if (held)
        copy_bytes(b.static_shared.data(), emulator_shared_begin, b.static_shared.size());
    else
        check_end(b);
    running = nullptr;
}

} // namespace emulator
