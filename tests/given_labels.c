#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "given_labels.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct labels *given_labels(const struct catalog_entry *entry, const char *lines)
{
    char path[] = "labels_XXXXXX";
    struct labels *labels;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, lines, strlen(lines)), strlen(lines));
    close(fd);
    enum status status = labels_open(entry, path, &labels);
    unlink(path);
    assert_int_equal(status, STATUS_OK);
    return labels;
}
