// The handler runs on a stack of its own, because a fiber may have run out of its stack.
#include "crash.h"
#include "device.h"
#include <cstdio>
#include <dlfcn.h>
#include <ucontext.h>

namespace emulator
{

std::string source_of(const void *code)
{
    Dl_info module;
    if (!code || !dladdr(code, &module))
        return "";
    size_t offset = size_t(static_cast<const char *>(code) - static_cast<char *>(module.dli_fbase));
    char text[1024];
    snprintf(text, sizeof text, "addr2line -Cfpe '%s' %#zx 2>/dev/null", module.dli_fname, offset);
    FILE *output = popen(text, "r");
    bool found = output && fgets(text, sizeof text, output) && *text != '?';
    if (output)
        pclose(output);
    std::string source =
        found ? text : std::string(module.dli_fname) + " + " + std::to_string(offset);
    return source.substr(0, source.find('\n'));
}

static const void *code_of(void *context)
{
#if defined(__x86_64__)
    return reinterpret_cast<void *>(static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP]);
#else
    return (void)context, nullptr;
#endif
}

static void report(int number, siginfo_t *info, void *context)
{
    std::string where = position(), source = source_of(code_of(context));
    fprintf(stderr, "emulator: %s at address %p in %s\n  in %s\nemulator: EMULATOR_SEED=%llu\n",
            number == SIGFPE ? "arithmetic fault" : "bad memory access", info->si_addr,
            source.c_str(), where.empty() ? "work on the device" : where.c_str(),
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
