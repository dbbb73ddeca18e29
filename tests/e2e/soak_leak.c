// The negative control of soak.py: preloaded into the server, it leaks 64 bytes for each answer.

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// libmicrohttpd's, which server/http.c calls once for each answer.
int MHD_queue_response(void *connection, unsigned status, void *response);

int MHD_queue_response(void *connection, unsigned status, void *response)
{
    static int (*queue_response)(void *, unsigned, void *);
    static void *volatile leaked; // volatile: or the compiler leaves it all out
    if (!queue_response) {
        void *found = dlsym(RTLD_NEXT, "MHD_queue_response");
        memcpy(&queue_response, &found, sizeof found);
    }
    leaked = malloc(64);
    if (leaked)
        memset(leaked, 1, 64);
    return queue_response(connection, status, response);
}
