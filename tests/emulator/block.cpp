// One block of a kernel: its threads are fibers, of which one runs at a time.
//
// DESIGN. Of the warps that can run, one is drawn at random and runs as far as it can, its lanes in
// random order, each as far as it can: what a missing barrier leaves open is thereby as wrong as it
// gets. A thread that arrives at a barrier or a collective suspends itself; the last to arrive does
// the work for all and makes them ready. What can never be completed is found at once, when a
// thread arrives somewhere else or exits, and fails by name.
#include "context.h"
#include "device.h"
#include "sanitizer.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// The bounds of all static shared arrays, by shared.ld.
extern char emulator_shared_begin[] __attribute__((visibility("hidden")));
extern char emulator_shared_end[] __attribute__((visibility("hidden")));

namespace emulator
{

enum class state { ready, at_barrier, at_collective, done };

struct fiber {
    fiber(void (*entry)()) : stack(entry) {}
    context stack;
    uint3 index;
    state now;
    const char *name; // what it waits for
    place where;
    unsigned mask;
    void *operand;
};

static void entry();

struct block {
    const kernel *launched = nullptr;
    std::vector<std::unique_ptr<fiber>> fibers; // grows, never shrinks
    size_t threads, current;
    size_t at_barrier, done;
    char *shared, *shared_end; // dynamic
    bool waited;               // some thread has called grid_wait()
};
static block running;

static fiber &self()
{
    return *running.fibers[running.current];
}

// Names and files are literals: most often the same ones.
static bool same_text(const char *a, const char *b)
{
    return a == b || !strcmp(a, b);
}

static bool same_line(place a, place b)
{
    return a.line == b.line && same_text(a.file, b.file);
}

std::string position()
{
    if (!running.launched)
        return "";
    const kernel &k = *running.launched;
    char text[512];
    snprintf(text, sizeof text,
             "kernel launched at %s:%d (%s), block (%u, %u, %u), thread (%u, %u, %u)", k.where.file,
             k.where.line, k.name.c_str(), blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
             threadIdx.y, threadIdx.z);
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
    return running.current % 32;
}

void require(int capability, const char *instruction)
{
    if (current_settings().capability < capability)
        fail("%s needs compute capability %d.%d", instruction, capability / 10, capability % 10);
}

void *dynamic_shared()
{
    return running.shared;
}

void grid_wait()
{
    running.waited = true;
}

bool in_shared_memory(const void *p, size_t bytes)
{
    const char *begin = static_cast<const char *>(p);
    return (begin >= running.shared && begin + bytes <= running.shared_end) ||
           (begin >= emulator_shared_begin && begin + bytes <= emulator_shared_end);
}

static void check_barrier(const fiber &waiting)
{
    if (running.done)
        fail("divergent barrier: __syncthreads() at %s:%d, but %zu threads have exited",
             waiting.where.file, waiting.where.line, running.done);
}

void barrier(place where)
{
    fiber &me = self();
    for (size_t i = 0; i < running.threads && running.at_barrier; i++) {
        const fiber &other = *running.fibers[i];
        if (other.now != state::at_barrier)
            continue;
        if (!same_line(other.where, where))
            fail("divergent barrier: __syncthreads() at %s:%d, but thread %zu waits at %s:%d",
                 where.file, where.line, i, other.where.file, other.where.line);
        break; // all that wait, wait at the same place
    }
    me.where = where;
    check_barrier(me);
    if (++running.at_barrier < running.threads) {
        me.now = state::at_barrier;
        me.stack.suspend();
        return;
    }
    running.at_barrier = 0;
    for (size_t i = 0; i < running.threads; i++)
        running.fibers[i]->now = state::ready;
}

static bool same_call(const fiber &a, const fiber &b, bool same_place)
{
    return a.mask == b.mask && same_text(a.name, b.name) &&
           (!same_place || same_line(a.where, b.where));
}

// Whether the lane that `me` waits for has arrived; fails where it never will.
static bool arrived(const fiber &me, const fiber &other, unsigned other_lane, bool same_place)
{
    if (other.now == state::done)
        fail("%s at %s:%d names lane %u, which has exited", me.name, me.where.file, me.where.line,
             other_lane);
    if (other.now != state::at_collective)
        return false;
    if (same_call(me, other, same_place))
        return true;
    if (other.mask >> lane() & 1)
        fail("divergent warp: %s, mask %08x, at %s:%d, but lane %u waits in %s, mask %08x, at "
             "%s:%d",
             me.name, me.mask, me.where.file, me.where.line, other_lane, other.name, other.mask,
             other.where.file, other.where.line);
    return false; // it first meets others, without us
}

static bool all_arrived(const fiber &me, size_t first, bool same_place)
{
    bool all = true;
    for (unsigned i = 0; i < 32; i++) {
        if (!(me.mask >> i & 1) || i == lane())
            continue;
        if (first + i >= running.threads)
            fail("%s at %s:%d names lane %u, which the block does not have", me.name, me.where.file,
                 me.where.line, i);
        all &= arrived(me, *running.fibers[first + i], i, same_place);
    }
    return all;
}

void collective(const char *name, unsigned mask, void *operand, combine_fn combine, place where,
                bool same_place)
{
    fiber &me = self();
    size_t first = running.current - lane();
    me.name = name, me.mask = mask, me.operand = operand, me.where = where;
    if (!(mask >> lane() & 1))
        fail("%s at %s:%d: mask %08x lacks the calling lane %u", name, where.file, where.line, mask,
             lane());
    if (!all_arrived(me, first, same_place)) {
        me.now = state::at_collective;
        me.stack.suspend();
        return;
    }
    void *lanes[32] = {};
    for (unsigned i = 0; i < 32; i++)
        if (mask >> i & 1) {
            fiber &other = *running.fibers[first + i];
            lanes[i] = other.operand;
            other.now = state::ready;
        }
    if (combine)
        combine(lanes, mask);
}

// A thread that exits must not be missed by anyone.
static void check_exit()
{
    size_t first = running.current - lane();
    for (unsigned i = 0; i < 32 && first + i < running.threads; i++) {
        const fiber &other = *running.fibers[first + i];
        if (other.now == state::at_collective && other.mask >> lane() & 1)
            fail("lane %u exited, but lane %u waits for it in %s at %s:%d", lane(), i, other.name,
                 other.where.file, other.where.line);
    }
    if (running.at_barrier)
        for (size_t i = 0; i < running.threads; i++)
            if (running.fibers[i]->now == state::at_barrier)
                check_barrier(*running.fibers[i]);
}

static void entry()
{
    self().stack.arrive();
    running.launched->body();
    self().now = state::done;
    running.done++;
    check_exit();
    self().stack.finish();
}

// Runs lanes of the warp until each of them waits or has exited; false if none could run.
static bool run_warp(size_t first)
{
    size_t lanes = std::min<size_t>(32, running.threads - first);
    for (bool ran = false;; ran = true) {
        size_t start = random_below(lanes), next = lanes;
        for (size_t i = 0; i < lanes && next == lanes; i++)
            if (running.fibers[first + (start + i) % lanes]->now == state::ready)
                next = (start + i) % lanes;
        if (next == lanes)
            return ran;
        running.current = first + next;
        threadIdx = self().index;
        self().stack.resume();
    }
}

// Shared memory holds NaN until written. The arrays' redzones are overwritten too, which ASan's
// memset would report and which harms nobody.
static void fill_shared()
{
    memset(running.shared, 0xff, running.shared_end - running.shared);
#if defined(__x86_64__)
    char *begin = emulator_shared_begin;
    size_t count = emulator_shared_end - begin;
    asm volatile("rep stosb" : "+D"(begin), "+c"(count) : "a"(0xff) : "memory");
#else
    for (volatile char *p = emulator_shared_begin; p < emulator_shared_end; p++)
        *p = char(0xff);
#endif
}

static void start_fibers(dim3 size)
{
    running.threads = size_t(size.x) * size.y * size.z;
    while (running.fibers.size() < running.threads)
        running.fibers.push_back(std::make_unique<fiber>(entry));
    for (size_t i = 0; i < running.threads; i++) {
        fiber &f = *running.fibers[i];
        f.index = {unsigned(i % size.x), unsigned(i / size.x % size.y),
                   unsigned(i / size.x / size.y)};
        f.now = state::ready;
        f.stack.start();
    }
    running.at_barrier = running.done = 0;
    running.waited = false;
}

static void run_warps()
{
    std::vector<uint32_t> order;
    for (bool ran = true; running.done < running.threads && ran;) {
        ran = false;
        shuffle_order(order, (running.threads + 31) / 32);
        for (uint32_t warp : order)
            ran |= run_warp(warp * size_t(32));
    }
    for (size_t i = 0; i < running.threads; i++)
        if (running.fibers[i]->now != state::done)
            fail("deadlock: thread %zu waits for ever in %s at %s:%d", i,
                 running.fibers[i]->now == state::at_barrier ? "__syncthreads()"
                                                             : running.fibers[i]->name,
                 running.fibers[i]->where.file, running.fibers[i]->where.line);
}

void run_block(const kernel &launched, uint3 index)
{
    // Aligned to 128 bytes and no more, and exactly as long as asked for.
    constexpr size_t alignment = 128;
    void *memory;
    if (posix_memalign(&memory, 2 * alignment, alignment + launched.shared_bytes))
        fail("no memory for a block");
    running.launched = &launched;
    running.shared = static_cast<char *>(memory) + alignment;
    running.shared_end = running.shared + launched.shared_bytes;
    poison(memory, alignment);
    blockIdx = index;
    blockDim = launched.block;
    gridDim = launched.grid;
    fill_shared();
    start_fibers(launched.block);
    run_warps();
    drop_copies();
    if (launched.overlaps && !running.waited)
        fail("launched to overlap the kernel before it, but never calls grid_wait()");
    running.launched = nullptr;
    unpoison(memory, alignment);
    free(memory);
}

} // namespace emulator
