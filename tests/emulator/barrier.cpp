// Barriers and a warp's collective calls. Each names a place or a mask: what can never be completed
// is found at once, when a thread arrives somewhere else or exits.
#include "block.h"

namespace emulator
{

// Names and files are literals: most often the same ones.
static bool same_text(const char *a, const char *b)
{
    return a == b || !strcmp(a, b);
}

static bool same_line(place a, place b)
{
    return a.line == b.line && same_text(a.file, b.file);
}

static void check_barrier(const fiber &waiting)
{
    if (running->done)
        fail("divergent barrier: __syncthreads() at %s:%d, but %zu threads have exited",
             waiting.where.file, waiting.where.line, running->done);
}

void barrier(place where)
{
    fiber &me = self();
    for (size_t i = 0; i < running->threads && running->at_barrier; i++) {
        const fiber &other = *running->fibers[i];
        if (other.now != state::at_barrier)
            continue;
        if (!same_line(other.where, where))
            fail("divergent barrier: __syncthreads() at %s:%d, but thread %zu waits at %s:%d",
                 where.file, where.line, i, other.where.file, other.where.line);
        break; // all that wait, wait at the same place
    }
    me.name = "__syncthreads()";
    me.where = where;
    check_barrier(me);
    if (++running->at_barrier < running->threads) {
        me.now = state::at_barrier;
        me.stack.suspend();
        return;
    }
    running->at_barrier = 0;
    for (size_t i = 0; i < running->threads; i++)
        running->fibers[i]->now = state::ready;
    order_block(*running);
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
        if (first + i >= running->threads)
            fail("%s at %s:%d names lane %u, which the block does not have", me.name, me.where.file,
                 me.where.line, i);
        all &= arrived(me, *running->fibers[first + i], i, same_place);
    }
    return all;
}

void collective(const char *name, unsigned mask, void *operand, combine_fn combine, place where,
                bool same_place)
{
    fiber &me = self();
    size_t first = running->current - lane();
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
            fiber &other = *running->fibers[first + i];
            lanes[i] = other.operand;
            other.now = state::ready;
        }
    if (combine)
        combine(lanes, mask);
}

void check_exit()
{
    size_t first = running->current - lane();
    for (unsigned i = 0; i < 32 && first + i < running->threads; i++) {
        const fiber &other = *running->fibers[first + i];
        if (other.now == state::at_collective && other.mask >> lane() & 1)
            fail("lane %u exited, but lane %u waits for it in %s at %s:%d", lane(), i, other.name,
                 other.where.file, other.where.line);
    }
    if (running->at_barrier)
        for (size_t i = 0; i < running->threads; i++)
            if (running->fibers[i]->now == state::at_barrier)
                check_barrier(*running->fibers[i]);
}

} // namespace emulator
