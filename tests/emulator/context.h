#pragma once
// A fiber: a stack of its own and a way to it and back. Only the scheduler resumes a fiber, and a
// fiber only goes back to the scheduler.
#include <cstddef>
#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_SWITCH 1
#else
#define EMULATOR_SWITCH 0
#include <ucontext.h>
#endif

namespace emulator
{

class context
{
  public:
    context(void (*entry)());
    ~context();
    context(const context &) = delete;
    void start();   // the next resume() calls entry on an empty stack, all NaN
    void resume();  // called by the scheduler
    void suspend(); // called on the fiber
    void finish();  // the same for the last time
    void arrive();  // the first thing that entry calls

  private:
    void leave(bool for_good);
    void (*entry_)();
    char *memory_; // guard page, then the stack
    void *fake_stack_ = nullptr;
#if EMULATOR_SWITCH
    void *stack_pointer_;
#else
    ucontext_t registers_;
#endif
};

} // namespace emulator
