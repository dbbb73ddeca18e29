// Warp-wide exchanges, matrix products and asynchronous copies, by the PTX ISA's fragment maps. The
// last lane of a warp to arrive computes for all of them, on operands that lie on their stacks.
#include "block.h"
#include "trace.h"

namespace emulator
{

void combine_exchange(void *const lanes[32], unsigned mask)
{
    for (unsigned i = 0; i < 32; i++) {
        if (!lanes[i])
            continue;
        const exchange &mine = *static_cast<exchange *>(lanes[i]);
        if (mine.source >= 32 || !(mask >> mine.source & 1))
            fail("a shuffle reads lane %u, which is not in its mask %08x", mine.source, mask);
        const exchange &other = *static_cast<exchange *>(lanes[mine.source]);
        if (other.size != mine.size)
            fail("a shuffle of %u bytes meets one of %u", mine.size, other.size);
        memcpy(mine.result, other.value, mine.size);
    }
}

struct ballot {
    vote how;
    int64_t value;
    uint64_t result;
};

static void combine_vote(void *const lanes[32], unsigned)
{
    uint64_t result = 0;
    bool first = true;
    for (unsigned i = 0; i < 32; i++) {
        if (!lanes[i])
            continue;
        const ballot &b = *static_cast<ballot *>(lanes[i]);
        int64_t so_far = int64_t(result);
        if (b.how == vote::ballot)
            result |= uint64_t(b.value) << i;
        else if (first)
            result = b.value;
        else if (b.how == vote::add)
            result += b.value;
        else if (b.how == vote::min)
            result = std::min(so_far, b.value);
        else if (b.how == vote::max)
            result = std::max(so_far, b.value);
        else
            result = b.how == vote::bit_and ? so_far & b.value : so_far | b.value;
        first = false;
    }
    for (unsigned i = 0; i < 32; i++)
        if (lanes[i])
            static_cast<ballot *>(lanes[i])->result = result;
}

uint64_t reduce(const char *name, vote how, unsigned mask, int64_t value, place where)
{
    if (how != vote::ballot)
        require(80, name);
    ballot mine = {how, value, 0};
    collective(name, mask, &mine, combine_vote, where, false);
    return mine.result;
}

float half_to_float(uint16_t bits)
{
    static const std::vector<float> table = [] {
        std::vector<float> values(1 << 16);
        for (unsigned i = 0; i < values.size(); i++) {
            __half_raw raw;
            raw.x = uint16_t(i);
            values[i] = __half2float(__half(raw));
        }
        return values;
    }();
    return table[bits];
}

struct product {
    element type;
    int k;
    float *d;
    const uint32_t *a, *b;
};

// Value number i of a fragment.
static float value_of(element type, const uint32_t *registers, int i)
{
    uint16_t half = uint16_t(registers[i / 2] >> (16 * (i % 2)));
    return type == element::fp16 ? half_to_float(half) : bits_as<float>(uint32_t(half) << 16);
}

// Products are exact and summed exactly enough; one rounding at the end.
static void combine_mma(void *const lanes[32], unsigned)
{
    const product &any = *static_cast<product *>(lanes[0]);
    int k = any.k;
    trace_mma(k);
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const product &p = *static_cast<product *>(lanes[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 16 * k / 32; i++) {
            int row = g + 8 * (i / 2 % 2), column = 2 * t + i % 2 + 8 * (i / 4);
            a[row][column] = value_of(any.type, p.a, i);
        }
        for (int i = 0; i < 8 * k / 32; i++)
            b[2 * t + i % 2 + 8 * (i / 2)][g] = value_of(any.type, p.b, i);
    }
    for (int lane = 0; lane < 32; lane++) {
        const product &p = *static_cast<product *>(lanes[lane]);
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
            double sum = p.d[i];
            for (int j = 0; j < k; j++)
                sum += double(a[row][j]) * b[j][column];
            p.d[i] = float(sum);
        }
    }
}

void mma_m16n8(element type, int k, float *d, const uint32_t *a, const uint32_t *b, place where)
{
    const char *name = type == element::fp16 ? "mma.m16n8.fp16" : "mma.m16n8.bf16";
    // On sm_75 cuda.cuh makes fp16's k16 of two k8.
    require(type == element::fp16 ? 75 : 80, name);
    product mine = {type, k, d, a, b};
    collective(name, 0xffffffffu, &mine, combine_mma, where, true);
}

struct matrix_load {
    bool transposed;
    uint32_t *registers;
    const void *row;
};

static void combine_ldmatrix(void *const lanes[32], unsigned)
{
    bool transposed = static_cast<matrix_load *>(lanes[0])->transposed;
    uint16_t matrix[4][8][8];
    for (int lane = 0; lane < 32; lane++)
        memcpy(matrix[lane / 8][lane % 8], static_cast<matrix_load *>(lanes[lane])->row, 16);
    for (int lane = 0; lane < 32; lane++) {
        uint32_t *registers = static_cast<matrix_load *>(lanes[lane])->registers;
        int g = lane / 4, t = lane % 4;
        for (int j = 0; j < 4; j++) {
            uint32_t low = transposed ? matrix[j][2 * t][g] : matrix[j][g][2 * t];
            uint32_t high = transposed ? matrix[j][2 * t + 1][g] : matrix[j][g][2 * t + 1];
            registers[j] = low | high << 16;
        }
    }
}

void ldmatrix_x4(bool transposed, uint32_t *registers, const void *row, place where)
{
    if (!in_shared_memory(row, 16))
        fail("ldmatrix at %s:%d: the row of a lane is not in shared memory", where.file,
             where.line);
    if (reinterpret_cast<uintptr_t>(row) % 16)
        fail("ldmatrix at %s:%d: the row of a lane is not aligned to 16 bytes", where.file,
             where.line);
    check_access(row, 16, access_kind::read);
    matrix_load mine = {transposed, registers, row};
    collective(transposed ? "ldmatrix.x4.trans" : "ldmatrix.x4", 0xffffffffu, &mine,
               combine_ldmatrix, where, true);
}

// -- cp.async -------------------------------------------------------------------------------------

static void finish(copy_group &group)
{
    for (const copy &c : group.copies) {
        memcpy(c.to, c.from, c.source_bytes);
        memset(static_cast<char *>(c.to) + c.source_bytes, 0, c.bytes - c.source_bytes);
    }
    group.done = true;
}

void cp_async(void *shared, const void *global, unsigned bytes, unsigned source_bytes, place where)
{
    if (!in_shared_memory(shared, bytes))
        fail("cp.async at %s:%d: the target is not in shared memory", where.file, where.line);
    if (source_bytes && !in_device_memory(global, source_bytes))
        fail("cp.async at %s:%d: the source is not in device memory", where.file, where.line);
    if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes)
        fail("cp.async at %s:%d: not aligned to %u bytes", where.file, where.line, bytes);
    check_access(shared, bytes, access_kind::copy_issued);
    if (marking)
        mark_access(global, source_bytes, true);
    self().open.push_back({shared, global, bytes, source_bytes});
    if (current_settings().capability < 80) { // cuda.cuh copies at once there
        cp_async_commit();
        cp_async_wait(0);
    }
}

// Copies as late as allowed or, now and then, early: a buffer filled too soon shows too.
void cp_async_commit()
{
    self().groups.push_back({std::move(self().open), false});
    self().open.clear();
    if (one_in(4))
        for (copy_group &group : self().groups)
            if (!group.done)
                finish(group);
}

void cp_async_wait(unsigned groups_left)
{
    std::deque<copy_group> &groups = self().groups;
    for (; groups.size() > groups_left; groups.pop_front()) {
        if (!groups.front().done)
            finish(groups.front());
        for (const copy &c : groups.front().copies)
            check_access(c.to, c.bytes, access_kind::copy_done);
    }
}

} // namespace emulator
