#include "commands.h"
#include <stdio.h>

int exit_code(enum status status)
{
    fprintf(stderr, "vitserve: %s\n", status_detail(status));
    return status == STATUS_USAGE ? EXIT_USAGE : EXIT_FAILED;
}
