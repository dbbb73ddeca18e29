// swapcontext saves the signal mask by a system call at each switch, so on x86-64 we switch by
// hand: the callee-saved registers go on the old stack, the stack pointers change places.
#include "context.h"
#include "sanitizer.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

namespace emulator
{

constexpr size_t stack_bytes = 256 << 10, guard_bytes = 4096;
// The upper end of a stack, where the frames of kernels lie.
constexpr size_t frame_bytes = 8 << 10;

// Of the scheduler, while a fiber runs.
static const void *scheduler_stack;
static size_t scheduler_bytes;

#if EMULATOR_SWITCH
static void *scheduler_registers;
extern "C" void emulator_switch(void **old_stack, void *new_stack);
asm(R"(
    .text
    .type emulator_switch, @function
    .globl emulator_switch
    .hidden emulator_switch
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch, . - emulator_switch
)");
#else
static ucontext_t scheduler_registers;
#endif

context::context(void (*entry)()) : entry_(entry)
{
    void *memory = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard_bytes, PROT_NONE)) {
        perror("emulator: no stack for a fiber");
        abort();
    }
    memory_ = static_cast<char *>(memory);
}

context::~context()
{
    munmap(memory_, guard_bytes + stack_bytes);
}

void context::start()
{
    char *stack = memory_ + guard_bytes;
    // NaN in every type: an accumulator that nobody has set shows.
    unpoison(stack + stack_bytes - frame_bytes, frame_bytes);
    fill_bytes(stack + stack_bytes - frame_bytes, char(0xff), frame_bytes);
    fake_stack_ = nullptr;
#if EMULATOR_SWITCH
    // As emulator_switch leaves a stack: six registers, the address to return to, and above it what
    // would be the address that entry returns to.
    void **top = reinterpret_cast<void **>(stack + stack_bytes) - 8;
    for (int i = 0; i < 8; i++)
        top[i] = nullptr;
    top[6] = reinterpret_cast<void *>(entry_);
    stack_pointer_ = top;
#else
    getcontext(&registers_);
    registers_.uc_stack.ss_sp = stack;
    registers_.uc_stack.ss_size = stack_bytes;
    registers_.uc_link = nullptr;
    makecontext(&registers_, entry_, 0);
#endif
}

void context::resume()
{
    void *fake_stack = nullptr;
    before_switch(&fake_stack, memory_ + guard_bytes, stack_bytes);
#if EMULATOR_SWITCH
    emulator_switch(&scheduler_registers, stack_pointer_);
#else
    swapcontext(&scheduler_registers, &registers_);
#endif
    after_switch(fake_stack, nullptr, nullptr);
}

void context::arrive()
{
    after_switch(fake_stack_, &scheduler_stack, &scheduler_bytes);
}

void context::leave(bool for_good)
{
    before_switch(for_good ? nullptr : &fake_stack_, scheduler_stack, scheduler_bytes);
    if (for_good)
        fake_stack_ = nullptr;
#if EMULATOR_SWITCH
    emulator_switch(&stack_pointer_, scheduler_registers);
#else
    swapcontext(&registers_, &scheduler_registers);
#endif
}

void context::suspend()
{
    leave(false);
    arrive();
}

void context::finish()
{
    leave(true);
}

} // namespace emulator
