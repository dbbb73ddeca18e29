// The handler runs on a stack of its own, because a fiber may have run out of its stack.
#include "crash.h"
#include "device.h"
#include <cstdio>

namespace emulator
{

static void report(int number, siginfo_t *info, void *)
{
    std::string where = position();
    fprintf(stderr, "emulator: %s at address %p\n  in %s\nemulator: EMULATOR_SEED=%llu\n",
            number == SIGFPE ? "arithmetic fault" : "bad memory access", info->si_addr,
            where.empty() ? "work on the device" : where.c_str(),
            static_cast<unsigned long long>(seed()));
    signal(number, SIG_DFL); // the return repeats the fault, which now is the process's end
}

crash_reports::crash_reports()
{
    alignas(16) static char stack[64 << 10];
    stack_t ours = {};
    ours.ss_sp = stack;
    ours.ss_size = sizeof stack;
    sigaltstack(&ours, &stack_before_);
    struct sigaction action = {};
    action.sa_sigaction = report;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 3; i++)
        sigaction(signals[i], &action, &before_[i]);
}

crash_reports::~crash_reports()
{
    for (int i = 0; i < 3; i++)
        sigaction(signals[i], &before_[i], nullptr);
    sigaltstack(&stack_before_, nullptr);
}

} // namespace emulator
