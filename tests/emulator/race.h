#pragma once
// Races in shared memory: two accesses by different threads, one of them a write, with nothing
// between them that orders memory. race.cpp says what does.
#include <cstddef>
#include <cstdint>
#include <vector>

namespace emulator
{

struct block;

// What is known of two bytes of shared memory.
struct cell {
    uint32_t write_epoch, write_clock; // of the latest write
    uint32_t read_epoch, read_clock;   // of the reads since
    uint32_t readers;                  // lanes of read_warp
    uint32_t pending;                  // the epoch of a cp.async that nobody has waited for yet
    uint16_t writer, read_warp;
    bool atomic; // the latest write
};

struct race_notes {
    // Counts the stretches between two __syncthreads(), upwards over all blocks, so that notes of
    // a block that had this memory before need not be wiped.
    uint32_t epoch, first_epoch;
    std::vector<cell> dynamic_cells, static_cells;
    // By thread and lane of its warp: up to which of that lane's own stretches between two
    // __syncwarp() it has seen everything.
    std::vector<uint32_t> clocks;
};

// Lies behind dynamic shared memory, where we find what runs past its end. (ASan has redzones.)
#ifdef EMULATOR_HOOKS
constexpr size_t overrun_bytes = 256;
#else
constexpr size_t overrun_bytes = 0;
#endif

void start_race_check(block &b);
void order_block(block &b); // by __syncthreads()

enum class access_kind { read, write, atomic, copy_issued, copy_done };
// By the running thread. Does nothing where the memory is not shared.
void check_access(const void *p, size_t bytes, access_kind how);

} // namespace emulator
