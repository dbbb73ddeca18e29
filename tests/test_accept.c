// accept_weight(): the closest range decides, and what is malformed does no harm.

#include "accept.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_weights(void **state)
{
    (void)state;
    static const struct {
        const char *accept, *type;
        int weight;
    } rows[] = {
        {"text/plain", "text/plain", 1000},
        {"text/plain", "text/plain; charset=utf-8", 1000},
        {"TEXT/Plain;Q=0.5", "text/plain", 500},
        {"text/*", "text/plain", 1000},
        {"TEXT/*", "text/plain", 1000},
        {"*/*", "text/plain", 1000},
        {"text/plai", "text/plain", 0},
        {"text/plainer", "text/plain", 0},
        {"text/", "text/plain", 0},
        {"tex/*", "text/plain", 0},
        {"text/*x", "text/plain", 0},
        {"image/*", "text/plain", 0},
        {"*", "text/plain", 0},
        {"", "text/plain", 0},
        {"text/plain;q=0", "text/plain", 0},
        {"text/plain;q=1", "text/plain", 1000},
        {"text/plain;q=1.", "text/plain", 1000},
        {"text/plain;q=0.001", "text/plain", 1},
        {"text/plain;q=0.0009", "text/plain", 0},
        {"text/plain;q=0.12345", "text/plain", 123},
        {"text/plain;q=1.5", "text/plain", 1000},
        {"text/plain;q=5", "text/plain", 0},
        {"text/plain;q=nan", "text/plain", 0},
        {"text/plain;q=-1", "text/plain", 0},
        {"text/plain;q=", "text/plain", 0},
        {"text/plain;q", "text/plain", 1000},
        {"text/plain;", "text/plain", 1000},
        {"text/plain ; q=0.25", "text/plain", 250},
        {"text/plain;format=flowed;\tq=0.25;ext=1", "text/plain", 250},
        {"text/plain;quality=0.1", "text/plain", 1000},
        {" , ,, text/plain;q=0.5 ,", "text/plain", 500},
        {"text/html;q=0.1,\ttext/plain;q=0.2", "text/plain", 200},
        {"text/plain, text/html;q=0.1", "text/plain", 1000},
        // The closest range wins wherever it stands.
        {"*/*;q=0.9, text/*;q=0.8, text/plain;q=0.7", "text/plain", 700},
        {"text/plain;q=0.7, text/*;q=0.8, */*;q=0.9", "text/plain", 700},
        {"text/*;q=0.8, */*;q=0.9", "text/plain", 800},
        {"*/*;q=0.9, text/*;q=0.8", "image/png", 900},
        {"*/*, text/plain;q=0", "text/plain", 0},
        // Of two that are equally close, the first.
        {"text/plain;q=0.2, text/plain;q=0.7", "text/plain", 200},
        {"text/plain;q=0.7, TEXT/plain;q=0", "text/plain", 700},
        {"text/*;q=0.2, text/*;q=0.7", "text/plain", 200},
        {"*/*;q=0.7, */*;q=0.2", "text/plain", 700},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (accept_weight(rows[i].accept, rows[i].type) != rows[i].weight)
            fail_msg("%s in %s: %d", rows[i].type, rows[i].accept,
                     accept_weight(rows[i].accept, rows[i].type));
}

// Every text of these letters, so that each state of the parser meets each end of the text.
static void test_any_text(void **state)
{
    (void)state;
    static const char letters[] = "a/*;,q=1. ";
    enum { LENGTH = 6 };
    for (int i = 0; i < 1000000; i++) {
        char *text = malloc(LENGTH + 1); // its end is guarded where that can be
        int digits = i;
        for (int k = 0; k < LENGTH; k++, digits /= 10)
            text[k] = letters[digits % 10];
        text[LENGTH] = 0;
        const int weight = accept_weight(text, "a/a");
        assert_true(weight >= 0 && weight <= 1000);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_any_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
