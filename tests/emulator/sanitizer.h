#pragma once
// AddressSanitizer's hooks, doing nothing where it is not compiled in.
#include <cstddef>

#if defined(__has_feature)
#define EMULATOR_ASAN __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define EMULATOR_ASAN 1
#else
#define EMULATOR_ASAN 0
#endif
#if EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace emulator
{

inline void poison(const volatile void *memory, size_t bytes)
{
#if EMULATOR_ASAN
    __asan_poison_memory_region(memory, bytes);
#endif
    (void)memory, (void)bytes;
}

inline void unpoison(const volatile void *memory, size_t bytes)
{
#if EMULATOR_ASAN
    __asan_unpoison_memory_region(memory, bytes);
#endif
    (void)memory, (void)bytes;
}

// memcpy and memset past the sanitizer's eyes.
inline void copy_bytes(char *to, const char *from, size_t bytes)
{
#if defined(__x86_64__)
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
#else
    for (volatile char *p = to; bytes; bytes--)
        *p++ = *from++;
#endif
}

inline void fill_bytes(char *to, char value, size_t bytes)
{
#if defined(__x86_64__)
    asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
#else
    for (volatile char *p = to; bytes; bytes--)
        *p++ = value;
#endif
}

// Before a switch to another stack; without a place to save it, the old fake stack is freed.
inline void before_switch(void **fake_stack, const void *new_stack, size_t bytes)
{
#if EMULATOR_ASAN
    __sanitizer_start_switch_fiber(fake_stack, new_stack, bytes);
#endif
    (void)fake_stack, (void)new_stack, (void)bytes;
}

// After it, on the new stack.
inline void after_switch(void *fake_stack, const void **old_stack, size_t *bytes)
{
#if EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, old_stack, bytes);
#endif
    (void)fake_stack, (void)old_stack, (void)bytes;
}

} // namespace emulator
