// report_format_from(): who gets which format of the breakdown, by the query and by Accept.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "report.h"
#include <stdio.h>
#include <string.h>

static void test_who_gets_which_format(void **state)
{
    (void)state;
    static const char browser[] = "text/html,application/xhtml+xml,application/xml;q=0.9,"
                                  "image/avif,image/webp,*/*;q=0.8";
    static const struct {
        const char *format, *accept;
        enum report_format expected;
    } rows[] = {
        {NULL, NULL, REPORT_JSON},
        {NULL, "", REPORT_JSON},
        {NULL, "*/*", REPORT_JSON}, // curl
        {NULL, browser, REPORT_JSON},
        {"svg", browser, REPORT_SVG},
        // What a browser sends for an <img>.
        {NULL, "image/avif,image/webp,image/svg+xml,image/*,*/*;q=0.8", REPORT_SVG},
        {"json", "text/markdown", REPORT_JSON},
        {"markdown", "application/json", REPORT_MARKDOWN},
        {"text", NULL, REPORT_TEXT},
        {NULL, "text/markdown", REPORT_MARKDOWN},
        {NULL, "text/plain", REPORT_TEXT},
        {NULL, "application/*", REPORT_JSON},
        {NULL, "text/*", REPORT_TEXT},
        {NULL, "image/*", REPORT_SVG},
        {NULL, "application/json;q=0.5, text/markdown;q=0.6", REPORT_MARKDOWN},
        {NULL, "text/markdown;q=0.6, application/json;q=0.7", REPORT_JSON},
        {NULL, "text/markdown, application/json", REPORT_JSON},
        {NULL, "text/markdown, */*", REPORT_JSON},
        {NULL, "text/markdown, */*;q=0.1", REPORT_MARKDOWN},
        {NULL, "*/*, application/json;q=0", REPORT_TEXT},
        {NULL, "*/*, application/json;q=0.1, text/*;q=0.2", REPORT_SVG},
        {NULL, "text/html, video/*", REPORT_JSON},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum report_format got;
        assert_int_equal(report_format_from(rows[i].format, rows[i].accept, &got), STATUS_OK);
        if (got != rows[i].expected)
            fail_msg("%s, %s: got %d", rows[i].format, rows[i].accept, got);
    }
    static const char *const bad[] = {"", "yaml", "JSON", "json ", "text|json"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        enum report_format got;
        char detail[64];
        snprintf(detail, sizeof detail, "format: \"%s\" is none of text|json|markdown|svg", bad[i]);
        assert_int_equal(report_format_from(bad[i], "text/plain", &got), STATUS_BAD_REQUEST);
        assert_string_equal(status_detail(STATUS_BAD_REQUEST), detail);
    }
    assert_string_equal(report_content_type(REPORT_TEXT), "text/plain; charset=utf-8");
    assert_string_equal(report_content_type(REPORT_JSON), "application/json");
    assert_string_equal(report_content_type(REPORT_MARKDOWN), "text/markdown; charset=utf-8");
    assert_string_equal(report_content_type(REPORT_SVG), "image/svg+xml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_gets_which_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
