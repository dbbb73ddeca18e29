#pragma once
// One block of a kernel and its threads: block.cpp decides who runs, barrier.cpp who waits for
// whom, ptx.cpp and race.cpp keep their notes here.
#include "context.h"
#include "device.h"
#include "race.h"

namespace emulator
{

enum class state { ready, at_barrier, at_collective, at_grid_wait, done };

struct copy { // by cp.async
    void *to;
    const void *from;
    unsigned bytes, source_bytes;
};
struct copy_group {
    std::vector<copy> copies;
    bool done; // in memory, though nobody has waited for it
};

struct fiber {
    fiber(void (*entry)()) : stack(entry) {}
    context stack;
    uint3 index;
    state now;
    const char *name; // of the latest barrier or collective
    place where;
    unsigned mask;
    void *operand;
    std::vector<copy> open; // not committed yet
    std::deque<copy_group> groups;
};

struct block {
    const kernel *launched;
    uint3 index;
    std::vector<std::unique_ptr<fiber>> fibers; // grows, never shrinks
    size_t threads, current;
    size_t at_barrier, done;
    char *shared, *shared_end;       // dynamic
    std::vector<char> static_shared; // its static arrays, while another block has their place
    bool held;                       // the kernel before still runs: grid_wait() waits
    bool waited;                     // some thread has called grid_wait()
    bool triggered;                  // some thread has called grid_launch_dependents()
    race_notes races;
};

extern block *running; // null outside a kernel

inline fiber &self()
{
    return *running->fibers[running->current];
}

// A thread that exits must not be missed by anyone. (barrier.cpp)
void check_exit();

} // namespace emulator
