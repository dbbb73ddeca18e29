// server/pie.c: the SVG is well-formed, nothing in it overlaps whatever the slices are, each slice
// is as large as its share.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "pie.h"
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *draw(const char *title, const struct pie_slice *slices, int count)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    pie_write(out, title, slices, count);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(strlen(text), length);
    return text;
}

// ---- well-formed --------------------------------------------------------------------------------

// Past a reference, the only thing that '&' may begin.
static const char *skip_reference(const char *at)
{
    assert_true(!strncmp(at, "&amp;", 5) || !strncmp(at, "&lt;", 4) || !strncmp(at, "&gt;", 4));
    return strchr(at, ';') + 1;
}

static const char *skip_name(const char *at)
{
    const size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyzB-0123456789"); // B: viewBox
    assert_true(length > 0 && islower((unsigned char)*at));
    return at + length;
}

// From behind the tag's name to its '>': attributes, in quotes.
static const char *skip_attributes(const char *at)
{
    while (*at == ' ') {
        at = skip_name(at + 1);
        assert_true(strncmp(at, "=\"", 2) == 0);
        for (at += 2; *at != '"'; at++)
            if (!*at || *at == '<' || *at == '&')
                fail_msg("an attribute's value at %.20s", at);
        at++;
    }
    return at;
}

static void check_well_formed(const char *text)
{
    const char *open[16];
    int depth = 0, roots = 0;
    for (const char *at = text; *at;) {
        assert_true(*at == '\n' || (unsigned char)*at >= ' ');
        if (*at == '&') {
            at = skip_reference(at);
        } else if (strncmp(at, "</", 2) == 0) {
            const char *name = at + 2, *end = skip_name(name);
            assert_true(depth > 0);
            assert_int_equal(*end, '>');
            const size_t length = (size_t)(end - name);
            assert_memory_equal(open[--depth], name, length);
            assert_true(strchr(" >", open[depth][length]) != NULL);
            at = end + 1;
        } else if (*at == '<') {
            roots += depth == 0;
            assert_true(depth < 16);
            open[depth++] = at + 1;
            at = skip_attributes(skip_name(at + 1));
            if (*at == '/') {
                depth--;
                at++;
            }
            assert_int_equal(*at, '>');
            at++;
        } else {
            assert_true(depth > 0 || *at == '\n');
            at++;
        }
    }
    assert_int_equal(depth, 0);
    assert_int_equal(roots, 1);
}

// ---- the picture --------------------------------------------------------------------------------

struct box {
    double left, top, right, bottom;
};

// What is where, in the order in which it is drawn: the title, then two lines for each slice.
struct picture {
    struct box view, texts[1 + 2 * PIE_MAX_SLICES];
    struct {
        double start[2], middle[2], end[2]; // on the rim
    } wedges[PIE_MAX_SLICES];
    struct {
        double x[3], y[3];
    } leaders[PIE_MAX_SLICES];
    double percents[PIE_MAX_SLICES];
    int n_texts, n_wedges, n_leaders, n_percents;
};

static const double radius = 110, font = 16;

// A line of text by an upper bound of its width.
static struct box text_box(double x, double y, const char *anchor, size_t characters)
{
    const double width = 0.6 * font * (double)characters;
    const double left = strcmp(anchor, "end") == 0      ? x - width
                        : strcmp(anchor, "middle") == 0 ? x - width / 2
                                                        : x;
    return (struct box){left, y - font, left + width, y + 0.25 * font};
}

static struct picture look(const char *svg)
{
    struct picture p = {0};
    const char *view = strstr(svg, "viewBox=\"");
    double width, height;
    assert_int_equal(
        sscanf(view, "viewBox=\"%lf %lf %lf %lf\"", &p.view.left, &p.view.top, &width, &height), 4);
    p.view.right = p.view.left + width;
    p.view.bottom = p.view.top + height;
    for (const char *line = svg; *line; line = strchr(line, '\n') + 1) {
        double v[8];
        char anchor[8], text[128];
        if (sscanf(line, "<text x=\"%lf\" y=\"%lf\" text-anchor=\"%7[a-z]%*[^>]>%127[^<]", &v[0],
                   &v[1], anchor, text) == 4) {
            assert_true(p.n_texts < 1 + 2 * PIE_MAX_SLICES);
            p.texts[p.n_texts++] = text_box(v[0], v[1], anchor, strlen(text));
            if (strstr(text, " %, "))
                p.percents[p.n_percents++] = atof(text);
        } else if (sscanf(line,
                          "<path fill=\"#%*6[0-9a-f]\" d=\"M0 0L%lf %lfA110 110 0 0 1 %lf %lfA110 "
                          "110 0 0 1 %lf %lfZ\"/>",
                          &v[0], &v[1], &v[2], &v[3], &v[4], &v[5]) == 6) {
            assert_true(p.n_wedges < PIE_MAX_SLICES);
            memcpy(&p.wedges[p.n_wedges++], v, 6 * sizeof *v);
        } else if (strncmp(line, "<polyline ", 10) == 0) {
            assert_true(p.n_leaders < PIE_MAX_SLICES);
            double *const x = p.leaders[p.n_leaders].x, *const y = p.leaders[p.n_leaders].y;
            assert_int_equal(sscanf(strstr(line, "points="), "points=\"%lf,%lf %lf,%lf %lf,%lf\"/>",
                                    &x[0], &y[0], &x[1], &y[1], &x[2], &y[2]),
                             6);
            p.n_leaders++;
        }
    }
    return p;
}

// By more than the coordinates are rounded.
static bool overlap(const struct box *a, const struct box *b)
{
    return fmin(a->right, b->right) - fmax(a->left, b->left) > 0.01 &&
           fmin(a->bottom, b->bottom) - fmax(a->top, b->top) > 0.01;
}

// On which side of the line from a to b the point lies.
static double side(double ax, double ay, double bx, double by, double x, double y)
{
    return (bx - ax) * (y - ay) - (by - ay) * (x - ax);
}

static bool cross(const double *x, const double *y, const double *u, const double *v)
{
    return side(x[0], y[0], x[1], y[1], u[0], v[0]) * side(x[0], y[0], x[1], y[1], u[1], v[1]) <
               0 &&
           side(u[0], v[0], u[1], v[1], x[0], y[0]) * side(u[0], v[0], u[1], v[1], x[1], y[1]) < 0;
}

static void check_texts(const struct picture *p)
{
    for (int i = 0; i < p->n_texts; i++) {
        const struct box *const text = &p->texts[i];
        assert_true(text->left >= p->view.left && text->right <= p->view.right &&
                    text->top >= p->view.top && text->bottom <= p->view.bottom);
        for (int j = 0; j < i; j++)
            if (overlap(text, &p->texts[j]))
                fail_msg("text %d lies on text %d", i, j);
        // All but the title are beside the pie.
        assert_true(i == 0 || text->left > radius || text->right < -radius);
        assert_true(i > 0 || text->bottom < -radius);
    }
}

static void check_leaders(const struct picture *p)
{
    for (int i = 0; i < p->n_leaders; i++) {
        const double *const x = p->leaders[i].x, *const y = p->leaders[i].y;
        // From the middle of its slice's rim, outwards, to the middle of its label.
        const double *middle = p->wedges[i].middle;
        assert_true(hypot(x[0] - middle[0], y[0] - middle[1]) < 0.01);
        assert_true(fabs(hypot(x[0], y[0]) - radius) < 0.01);
        const struct box *const name = &p->texts[1 + 2 * i], *const amount = &p->texts[2 + 2 * i];
        assert_true(fabs(y[2] - (name->top + amount->bottom) / 2) < 2);
        assert_true(x[2] < 0 ? x[2] > name->right && x[2] - name->right < 10
                             : x[2] < name->left && name->left - x[2] < 10);
        for (int step = 0; step <= 100; step++) {
            const double t = step / 100.0;
            const double u = x[1] + t * (x[2] - x[1]), v = y[1] + t * (y[2] - y[1]);
            if (hypot(u, v) < radius + 2)
                fail_msg("leader %d crosses the pie", i);
            assert_true(fabs(u) <= fabs(x[2]) && v > p->texts[0].bottom);
        }
        for (int j = 0; j < i; j++)
            for (int a = 0; a < 2; a++)
                for (int b = 0; b < 2; b++)
                    if (cross(x + a, y + a, p->leaders[j].x + b, p->leaders[j].y + b))
                        fail_msg("leader %d crosses leader %d", i, j);
    }
}

// Clockwise from a to b, in turns.
static double turn(const double a[2], const double b[2])
{
    const double angle = atan2(b[1], b[0]) - atan2(a[1], a[0]);
    return (angle < 0 ? angle + 2 * M_PI : angle) / (2 * M_PI);
}

static void check_wedges(const struct picture *p, const struct pie_slice *slices, int count)
{
    double total = 0, drawn = 0, percents = 0;
    for (int i = 0; i < count; i++)
        total += (double)slices[i].value;
    for (int i = 0; i < count; i++) {
        const double half = turn(p->wedges[i].start, p->wedges[i].middle);
        const double size = half + turn(p->wedges[i].middle, p->wedges[i].end);
        const double share = (double)slices[i].value / total;
        assert_true(half <= 0.50001 && fabs(size - 2 * half) < 1e-4);
        assert_true(size > 0.0039 && fabs(size - share) < 0.02); // it can be seen, and is no lie
        // It begins where the one before ends.
        const double *const before = p->wedges[(i + count - 1) % count].end;
        assert_true(hypot(before[0] - p->wedges[i].start[0], before[1] - p->wedges[i].start[1]) <
                    0.01);
        assert_true(fabs(p->percents[i] - 100 * share) < 0.0051);
        drawn += size;
        percents += p->percents[i];
    }
    assert_true(fabs(drawn - 1) < 1e-4);
    assert_true(fabs(percents - 100) < 0.0051 * count);
}

static void check_picture(const char *title, const struct pie_slice *slices, int count)
{
    char *svg = draw(title, slices, count);
    check_well_formed(svg);
    const struct picture picture = look(svg);
    assert_int_equal(picture.n_texts, 1 + 2 * count);
    assert_true(picture.n_wedges == count && picture.n_leaders == count);
    assert_int_equal(picture.n_percents, count);
    check_texts(&picture);
    check_leaders(&picture);
    check_wedges(&picture, slices, count);
    free(svg);
}

// ---- tests --------------------------------------------------------------------------------------

static void test_tables(void **state)
{
    (void)state;
    static const struct {
        const char *title;
        int count;
        int64_t values[PIE_MAX_SLICES];
    } tables[] = {
        {"one", 1, {1}},
        {"halves", 2, {5, 5}},
        {"nearly all", 2, {1, INT64_C(999999999999)}},
        {"vit_b_32", 3, {123880, 85741056, 2359296}},
        {"equal", 5, {7, 7, 7, 7, 7}},
        {"tiny", 5, {1, 1, 1, 1, 1000000}},
        {"tiny around", 5, {1, 1, 1000000, 1, 1}},
        {"tiny on both sides", 5, {1000000, 1, 1, 1000000, 1}},
        {"tiny between", 5, {300, 1, 300, 1, 300}},
        {"falling", 5, {81, 27, 9, 3, 1}},
        {"a title that is by far wider than the pie and the labels beside it are together, both",
         1,
         {1}},
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        struct pie_slice slices[PIE_MAX_SLICES];
        for (int k = 0; k < tables[i].count; k++)
            slices[k] = (struct pie_slice){"Tensor rank 4", "999.99M", tables[i].values[k]};
        check_picture(tables[i].title, slices, tables[i].count);
    }
}

static void test_any_table(void **state)
{
    (void)state;
    static const char names[] = "a label as long as nobody would ever make it";
    uint32_t seed = 1;
    for (int i = 0; i < 5000; i++) {
        struct pie_slice slices[PIE_MAX_SLICES];
        const int count = 1 + i % PIE_MAX_SLICES;
        for (int k = 0; k < count; k++) {
            seed = seed * 1664525 + 1013904223;
            slices[k] = (struct pie_slice){names + seed % (sizeof names - 1), "12.34M",
                                           1 + (seed >> 8 >> (seed >> 4) % 24)};
        }
        check_picture("a table by chance", slices, count);
    }
}

static void test_texts_are_escaped(void **state)
{
    (void)state;
    const struct pie_slice slices[] = {{"<b>&amp;\"'", "]]>", 1}, {"\x01\t\x1f", "caf\xc3\xa9", 1}};
    char *svg = draw("</title><script>", slices, 2);
    check_well_formed(svg);
    assert_non_null(strstr(svg, ">&lt;b&gt;&amp;amp;\"'</text>"));
    assert_non_null(strstr(svg, ">50.00 %, ]]&gt;</text>"));
    assert_non_null(strstr(svg, ">??"
                                "?</text>"));
    assert_non_null(strstr(svg, ">50.00 %, caf\xc3\xa9</text>"));
    assert_non_null(strstr(svg, "\n<title>&lt;/title&gt;&lt;script&gt;</title>\n"));
    assert_null(strstr(svg, "<script"));
    free(svg);
}

// What a screen reader says, the background, and that nothing is loaded.
static void test_it_stands_alone(void **state)
{
    (void)state;
    const struct pie_slice slices[] = {{"Vector", "25", 25}, {"Matrix", "75", 75}};
    char *svg = draw("a model", slices, 2);
    assert_true(strncmp(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 40) == 0);
    assert_non_null(strstr(svg, " role=\"img\" "));
    assert_non_null(strstr(svg, "<title>a model</title>"));
    assert_non_null(strstr(svg, "<desc>Vector: 25.00 %, 25; Matrix: 75.00 %, 75</desc>"));
    assert_true(!strstr(svg, "href") && !strstr(svg, "url("));
    const struct box view = look(svg).view;
    char background[128];
    snprintf(background, sizeof background, "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" ",
             view.left, view.top, view.right - view.left, view.bottom - view.top);
    assert_non_null(strstr(svg, background));
    free(svg);
}

// The luminance of "rrggbb" (WCAG 2).
static double luminance(const char *hex)
{
    static const double weights[] = {0.2126, 0.7152, 0.0722};
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        const char digits[] = {hex[2 * i], hex[2 * i + 1], 0};
        const double c = (double)strtol(digits, NULL, 16) / 255;
        sum += weights[i] * (c <= 0.03928 ? c / 12.92 : pow((c + 0.055) / 1.055, 2.4));
    }
    return sum;
}

static void test_colours(void **state)
{
    (void)state;
    struct pie_slice slices[PIE_MAX_SLICES];
    for (int i = 0; i < PIE_MAX_SLICES; i++)
        slices[i] = (struct pie_slice){"x", "1", 1};
    char *svg = draw("colours", slices, PIE_MAX_SLICES);
    char colours[PIE_MAX_SLICES][7];
    const char *path = svg, *leader = svg;
    for (int i = 0; i < PIE_MAX_SLICES; i++) {
        path = strstr(path + 1, "<path fill=\"#");
        leader = strstr(leader + 1, "stroke=\"#");
        assert_int_equal(sscanf(path, "<path fill=\"#%6[0-9a-f]\"", colours[i]), 1);
        assert_memory_equal(leader + strlen("stroke=\"#"), colours[i], 6);
        const double colour = luminance(colours[i]);
        assert_true(1.05 / (colour + 0.05) > 2.2);                         // on white
        assert_true((colour + 0.05) / (luminance("1b1f24") + 0.05) > 3.0); // on the dark ground
        for (int k = 0; k < i; k++)
            assert_string_not_equal(colours[i], colours[k]);
    }
    free(svg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_any_table),
        cmocka_unit_test(test_texts_are_escaped),
        cmocka_unit_test(test_it_stands_alone),
        cmocka_unit_test(test_colours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
