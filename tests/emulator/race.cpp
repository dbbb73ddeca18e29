// The race detector.
//
// DESIGN. Accesses are ordered by __syncthreads() over the block, and by __syncwarp() over its
// lanes; by nothing else: shuffles, votes and mma exchange registers and order no memory. Of each
// two bytes the latest write and the reads since are noted, with the epoch of the block and the
// clock of the thread. The next access by another thread fails if it is in the same epoch, unless
// both are of one warp and the later thread has been told of the earlier one's clock by a
// __syncwarp(): a missing barrier thus fails under every seed, in whatever order the fibers run.
//
// The compiler calls us at each load and store: -fsanitize=thread, of which only the
// instrumentation is used and this file is the library. Under a sanitizer proper that is not to be
// had, and only ldmatrix and cp.async are checked. Single bytes are not: two share their notes.
// What runs past the end of dynamic shared memory is found here too, where ASan is not there for
// it.
#include "block.h"
#include "crash.h"
#include "trace.h"

namespace emulator
{

static constexpr uint16_t many_warps = 0xffff;
static uint32_t epochs;

void start_race_check(block &b)
{
    race_notes &notes = b.races;
    notes.epoch = notes.first_epoch = ++epochs;
    size_t dynamic_bytes = size_t(b.shared_end - b.shared);
    if (notes.dynamic_cells.size() < (dynamic_bytes + 1) / 2)
        notes.dynamic_cells.resize((dynamic_bytes + 1) / 2);
    notes.static_cells.resize(size_t(emulator_shared_end - emulator_shared_begin + 1) / 2);
    notes.clocks.assign((b.threads + 31) / 32 * 32 * 32, 0);
    for (size_t thread = 0; thread < b.threads; thread++)
        notes.clocks[thread * 32 + thread % 32] = 1;
}

void order_block(block &b)
{
    b.races.epoch = ++epochs;
}

void order_warp(void *const[32], unsigned mask)
{
    uint32_t *clocks = running->races.clocks.data() + running->current / 32 * 32 * 32;
    uint32_t joined[32] = {};
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned of = 0; of < 32 && (mask >> lane & 1); of++)
            joined[of] = std::max(joined[of], clocks[lane * 32 + of]);
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) {
            memcpy(clocks + lane * 32, joined, sizeof joined);
            clocks[lane * 32 + lane]++;
        }
}

static bool has_seen(size_t thread, unsigned lane, uint32_t clock)
{
    return running->races.clocks[thread * 32 + lane] >= clock;
}

static bool within(const void *p, const char *begin, size_t bytes)
{
    return size_t(static_cast<const char *>(p) - begin) < bytes;
}

// The block's shared memory with what lies behind it, or null.
static const char *shared_at(const void *p)
{
    if (within(p, running->shared, size_t(running->shared_end - running->shared) + overrun_bytes))
        return running->shared;
    size_t static_bytes = size_t(emulator_shared_end - emulator_shared_begin);
    return within(p, emulator_shared_begin, static_bytes) ? emulator_shared_begin : nullptr;
}

struct visit {
    const void *p;
    void *code; // where the compiler's call returns to; null for a wrapped instruction
    const char *verb;
    size_t me;
    uint32_t epoch, clock;
};

static std::string latest_call(size_t thread)
{
    const fiber &f = *running->fibers[thread];
    return f.name ? std::string(f.name) + " at " + f.where.file + ":" + std::to_string(f.where.line)
                  : "none";
}

[[noreturn]] static void fail_race(const visit &v, long other, const char *before)
{
    const char *p = static_cast<const char *>(v.p);
    bool is_dynamic = shared_at(p) == running->shared;
    std::string who = other < 0 ? "another warp" : "thread " + std::to_string(other);
    std::string calls = "this thread's latest barrier or warp's call: " + latest_call(v.me);
    if (other >= 0)
        calls += "\n  the other's: " + latest_call(size_t(other));
    if (v.code) // the call's return address
        calls = source_of(static_cast<char *>(v.code) - 1) + "\n  " + calls;
    fail("race: %s byte %zu of %s shared memory, which %s %s, with no barrier between\n  %s",
         v.verb, size_t(p - (is_dynamic ? running->shared : emulator_shared_begin)),
         is_dynamic ? "dynamic" : "static", who.c_str(), before, calls.c_str());
}

static void check_write_before(const cell &c, const visit &v, access_kind how)
{
    if (c.write_epoch != v.epoch || c.writer == v.me || (c.atomic && how == access_kind::atomic))
        return;
    bool seen = c.writer / 32 == v.me / 32 && has_seen(v.me, c.writer % 32, c.write_clock);
    if (!seen)
        fail_race(v, c.writer, "has written");
}

constexpr long other_warp = -1, nobody = -2;

// A thread whose read the running one has not been told of.
static long unseen_reader(const cell &c, const visit &v)
{
    if (c.read_warp == many_warps)
        return other_warp;
    for (unsigned lane = 0; lane < 32; lane++) {
        size_t reader = c.read_warp * size_t(32) + lane;
        if (!(c.readers >> lane & 1) || reader == v.me)
            continue;
        if (c.read_warp != v.me / 32 || !has_seen(v.me, lane, c.read_clock))
            return long(reader);
    }
    return nobody;
}

static void note_read(cell &c, const visit &v)
{
    uint32_t me = 1u << v.me % 32;
    bool others = c.read_epoch == v.epoch;
    if (others && c.read_warp != v.me / 32) {
        c.read_warp = many_warps;
    } else if (others && (c.read_clock == v.clock || unseen_reader(c, v) != nobody)) {
        c.readers |= me;
        c.read_clock = std::min(c.read_clock, v.clock); // rarely unequal: then rather too lenient
    } else {
        c.read_epoch = v.epoch;
        c.read_clock = v.clock;
        c.readers = me;
        c.read_warp = uint16_t(v.me / 32);
    }
}

static void visit_cell(cell &c, const visit &v, access_kind how)
{
    if (c.pending >= running->races.first_epoch && how != access_kind::copy_done)
        fail_race(v, c.writer, "fills by a cp.async that it has not waited for");
    check_write_before(c, v, how);
    if (how == access_kind::read)
        return note_read(c, v);
    long reader = c.read_epoch == v.epoch ? unseen_reader(c, v) : nobody;
    if (reader != nobody)
        fail_race(v, reader, "has read");
    c.read_epoch = 0;
    c.write_epoch = v.epoch;
    c.write_clock = v.clock;
    c.writer = uint16_t(v.me);
    c.atomic = how == access_kind::atomic;
    c.pending = how == access_kind::copy_issued ? v.epoch : 0;
}

static void check(const void *p, size_t bytes, access_kind how, void *code)
{
    static const char *const verbs[] = {"reads", "writes", "updates", "starts a copy into",
                                        "ends a copy into"};
    const char *begin = running ? shared_at(p) : nullptr;
    if (!begin || bytes < 2 || !current_settings().races)
        return;
    race_notes &notes = running->races;
    bool is_dynamic = begin == running->shared;
    size_t first = size_t(static_cast<const char *>(p) - begin) / 2, end = first + bytes / 2;
    if (is_dynamic && static_cast<const char *>(p) + bytes > running->shared_end)
        fail("%s byte %zu of dynamic shared memory, which has %zu", verbs[int(how)], 2 * end - 1,
             size_t(running->shared_end - begin));
    size_t me = running->current;
    visit v = {p, code, verbs[int(how)], me, notes.epoch, notes.clocks[me * 32 + me % 32]};
    std::vector<cell> &cells = is_dynamic ? notes.dynamic_cells : notes.static_cells;
    for (size_t i = first; i < std::min(end, cells.size()); i++)
        visit_cell(cells[i], v, how);
}

void atomic_access(void *p, size_t bytes)
{
    check(p, bytes, access_kind::atomic, nullptr);
}

void check_access(const void *p, size_t bytes, access_kind how)
{
    check(p, bytes, how, nullptr);
}

} // namespace emulator

#ifdef EMULATOR_HOOKS
using namespace emulator;

static void note(const void *p, size_t bytes, access_kind how, void *code)
{
    if (marking)
        mark_access(p, bytes, how == access_kind::read);
    check(p, bytes, how, code);
}

// Most accesses are to other memory, and many come from host code. It has no frame, which would
// leave something in the stacks' NaN.
static inline void hook(const void *p, size_t bytes, access_kind how, void *code)
{
    if (running && (marking || shared_at(p)))
        note(p, bytes, how, code);
}

#define HOOK extern "C" __attribute__((visibility("hidden"))) void
#define ALIGNED_HOOKS(bytes)                                                                       \
    HOOK __tsan_read##bytes(void *p)                                                               \
    {                                                                                              \
        hook(p, bytes, access_kind::read, __builtin_return_address(0));                            \
    }                                                                                              \
    HOOK __tsan_write##bytes(void *p)                                                              \
    {                                                                                              \
        hook(p, bytes, access_kind::write, __builtin_return_address(0));                           \
    }
#define HOOKS(bytes)                                                                               \
    ALIGNED_HOOKS(bytes)                                                                           \
    HOOK __tsan_unaligned_read##bytes(void *p)                                                     \
    {                                                                                              \
        hook(p, bytes, access_kind::read, __builtin_return_address(0));                            \
    }                                                                                              \
    HOOK __tsan_unaligned_write##bytes(void *p)                                                    \
    {                                                                                              \
        hook(p, bytes, access_kind::write, __builtin_return_address(0));                           \
    }
ALIGNED_HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
HOOK __tsan_read_range(void *p, size_t bytes)
{
    hook(p, bytes, access_kind::read, __builtin_return_address(0));
}
HOOK __tsan_write_range(void *p, size_t bytes)
{
    hook(p, bytes, access_kind::write, __builtin_return_address(0));
}
HOOK __tsan_init() {}
HOOK __tsan_vptr_update(void **, void *) {}
HOOK __tsan_vptr_read(void **) {}
extern "C" __attribute__((visibility("hidden"))) char __tsan_atomic8_load(const volatile char *p,
                                                                          int)
{
    return __atomic_load_n(p, __ATOMIC_SEQ_CST); // of a static variable's guard
}
#endif
