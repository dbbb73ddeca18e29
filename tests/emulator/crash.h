#pragma once
// A fault of the host in code for the device: says which kernel, block and thread, and ends the
// process. Without it cmocka's handler would leave the test by longjmp, with the emulator locked,
// and the next test would wait for ever.
#include <csignal>
#include <string>

namespace emulator
{

class crash_reports // while it lives; one at a time
{
  public:
    crash_reports();
    ~crash_reports();
    crash_reports(const crash_reports &) = delete;

  private:
    static constexpr int signals[] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction before_[3];
    stack_t stack_before_;
};

// "function at file:line" of an address of code, from the debugging information.
std::string source_of(const void *code);

} // namespace emulator
