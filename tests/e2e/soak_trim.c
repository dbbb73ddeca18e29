// Preloaded into the server by soak.py: on SIGUSR2 glibc gives back what was freed but is kept for
// later, so that what remains is what the server holds.

#include <malloc.h>
#include <pthread.h>
#include <signal.h>

static sigset_t only_usr2(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    return set;
}

static void *trim_on_signal(void *argument)
{
    (void)argument;
    sigset_t set = only_usr2();
    for (int number; sigwait(&set, &number) == 0;)
        malloc_trim(0);
    return NULL;
}

// Before main(): every thread inherits the mask.
__attribute__((constructor)) static void start(void)
{
    sigset_t set = only_usr2();
    pthread_t thread;
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_create(&thread, NULL, trim_on_signal, NULL);
}
