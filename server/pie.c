// See include/pie.h. The centre of the pie is the origin; y points down, as SVG has it, and angles
// are radians clockwise from the top.
//
// Each slice has its label beside the pie, on its own side, and a leader to it. The pie is turned
// so that the middles of the slices lie as near the horizontal as they can: there the leaders of
// thin ones fan out, while above and below the pie they would run across it.

#include "pie.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

// In units of the view box. No enumeration, which must not meet a double (-Wenum-float-conversion).
#define RADIUS       110
#define ELBOW        (RADIUS + 14) // from the centre: where a leader turns to its label
#define COLUMN       (ELBOW + 22)  // left and right of the centre: where leaders end
#define LABEL        (COLUMN + 6)  // the same: where labels begin
#define LABEL_HEIGHT 44            // two lines and the space between labels
#define TOP          (-176)        // of the picture
#define HEIGHT       320
#define MARGIN       14
#define FONT         16

_Static_assert((PIE_MAX_SLICES - 1) * LABEL_HEIGHT <= 2 * RADIUS, "one side can hold all labels");

// Of the colours of Okabe and Ito, which colour-blind people tell apart, those that are the least
// faint on white.
static const char *const colours[PIE_MAX_SLICES] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                    "#e69f00"};

// A thinner slice is drawn with this share of the pie: 2.8 units of its rim.
static const double min_share = 0.004;

struct wedge {
    double start, middle, end; // angles
    double percent;
    bool right;     // the side of its label
    double label_y; // the middle of its label
};

static double clamp(double value, double min, double max)
{
    return fmin(fmax(value, min), max);
}

static void cut(const struct pie_slice *slices, int count, struct wedge *wedges)
{
    double total = 0, drawn = 0, angle = 0;
    for (int i = 0; i < count; i++)
        total += (double)slices[i].value;
    for (int i = 0; i < count; i++)
        drawn += fmax((double)slices[i].value / total, min_share);
    for (int i = 0; i < count; i++) {
        const double share = (double)slices[i].value / total;
        const double turn = 2 * M_PI * fmax(share, min_share) / drawn;
        wedges[i].percent = 100 * share;
        wedges[i].start = angle;
        wedges[i].middle = angle + turn / 2;
        wedges[i].end = angle + turn;
        angle += turn;
    }
}

// The axis that is nearest to all middles is half the angle of the sum of their doubles; it becomes
// the horizontal one.
static void rotate(struct wedge *wedges, int count)
{
    double x = 0, y = 1e-6; // equal slices have no such axis, only errors of rounding
    for (int i = 0; i < count; i++) {
        x += sin(2 * wedges[i].middle);
        y += cos(2 * wedges[i].middle);
    }
    const double rotation = M_PI / 2 - atan2(x, y) / 2;
    for (int i = 0; i < count; i++) {
        wedges[i].start += rotation;
        wedges[i].middle += rotation;
        wedges[i].end += rotation;
        wedges[i].right = sin(wedges[i].middle) > 0;
        wedges[i].label_y = -ELBOW * cos(wedges[i].middle);
    }
}

// Moves labels that touch apart. Going down a side and pushing each label below the one before
// keeps them apart, and so does going up; then so does the mean of both, which favours no end.
static void spread_labels(struct wedge *wedges, int count, bool right)
{
    struct wedge *side[PIE_MAX_SLICES]; // from the top down
    double down[PIE_MAX_SLICES], up[PIE_MAX_SLICES];
    int n = 0;
    for (int i = 0; i < count; i++) {
        if (wedges[i].right != right)
            continue;
        int at = n++;
        for (; at > 0 && side[at - 1]->label_y > wedges[i].label_y; at--)
            side[at] = side[at - 1];
        side[at] = &wedges[i];
    }
    for (int i = 0; i < n; i++)
        down[i] = clamp(side[i]->label_y, i ? down[i - 1] + LABEL_HEIGHT : -RADIUS,
                        RADIUS - (n - 1 - i) * LABEL_HEIGHT);
    for (int i = n - 1; i >= 0; i--)
        up[i] = clamp(side[i]->label_y, -RADIUS + i * LABEL_HEIGHT,
                      i < n - 1 ? up[i + 1] - LABEL_HEIGHT : RADIUS);
    for (int i = 0; i < n; i++)
        side[i]->label_y = (down[i] + up[i]) / 2;
}

// XML has no way to write most control characters.
static void write_escaped(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else
            fputc((unsigned char)*text < ' ' ? '?' : *text, out);
    }
}

// Two arcs, each of half a turn at most: a single one cannot say a full turn.
static void write_wedge(FILE *out, const struct wedge *wedge, const char *colour)
{
    fprintf(
        out,
        "<path fill=\"%s\" d=\"M0 0L%.3f %.3fA%d %d 0 0 1 %.3f %.3fA%d %d 0 0 1 %.3f %.3fZ\"/>\n",
        colour, RADIUS * sin(wedge->start), -RADIUS * cos(wedge->start), RADIUS, RADIUS,
        RADIUS * sin(wedge->middle), -RADIUS * cos(wedge->middle), RADIUS, RADIUS,
        RADIUS * sin(wedge->end), -RADIUS * cos(wedge->end));
}

static void write_label(FILE *out, const struct wedge *wedge, const char *colour,
                        const struct pie_slice *slice)
{
    const int side = wedge->right ? 1 : -1;
    const double x = sin(wedge->middle), y = -cos(wedge->middle);
    fprintf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" ", colour);
    fprintf(out, "points=\"%.3f,%.3f %.3f,%.3f %d,%.3f\"/>\n", RADIUS * x, RADIUS * y, ELBOW * x,
            ELBOW * y, side * COLUMN, wedge->label_y);
    const char *anchor = wedge->right ? "start" : "end";
    fprintf(out, "<text x=\"%d\" y=\"%.3f\" text-anchor=\"%s\" font-weight=\"bold\">", side * LABEL,
            wedge->label_y - 5, anchor);
    write_escaped(out, slice->label);
    fprintf(out, "</text>\n<text x=\"%d\" y=\"%.3f\" text-anchor=\"%s\">%.2f %%, ", side * LABEL,
            wedge->label_y + 15, anchor, wedge->percent);
    write_escaped(out, slice->amount);
    fputs("</text>\n", out);
}

// Half the width of a picture that holds every text. A byte counts as 0.6 em: as much as the
// letters of wide fonts take on average.
static int half_width(const char *title, const struct pie_slice *slices, int count)
{
    size_t longest = 0;
    for (int i = 0; i < count; i++) {
        const size_t label = strlen(slices[i].label);
        const size_t amount = strlen("100.00 %, ") + strlen(slices[i].amount);
        const size_t longer = label > amount ? label : amount;
        longest = longer > longest ? longer : longest;
    }
    const double labels = LABEL + 0.6 * FONT * (double)longest;
    return (int)fmax(labels, 0.6 * FONT * (double)strlen(title) / 2) + MARGIN;
}

void pie_write(FILE *out, const char *title, const struct pie_slice *slices, int count)
{
    struct wedge wedges[PIE_MAX_SLICES];
    cut(slices, count, wedges);
    rotate(wedges, count);
    spread_labels(wedges, count, false);
    spread_labels(wedges, count, true);

    const int half = half_width(title, slices, count);
    fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"pie\" role=\"img\" ");
    fprintf(out, "width=\"%d\" height=\"%d\" viewBox=\"%d %d %d %d\" ", 2 * half, HEIGHT, -half,
            TOP, 2 * half, HEIGHT);
    fprintf(out, "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"%d\">\n<title>", FONT);
    write_escaped(out, title);
    fputs("</title>\n<desc>", out);
    for (int i = 0; i < count; i++) {
        fputs(i ? "; " : "", out);
        write_escaped(out, slices[i].label);
        fprintf(out, ": %.2f %%, ", wedges[i].percent);
        write_escaped(out, slices[i].amount);
    }
    fputs("</desc>\n<style>@media (prefers-color-scheme: dark) "
          "{.pie rect {fill: #1b1f24} .pie text {fill: #e6edf3}}</style>\n",
          out);
    fprintf(out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#fff\"/>\n",
            -half, TOP, 2 * half, HEIGHT);
    fprintf(out, "<g fill=\"#1f2328\">\n<text x=\"0\" y=\"%d\" text-anchor=\"middle\">", TOP + 28);
    write_escaped(out, title);
    fputs("</text>\n", out);
    for (int i = 0; i < count; i++)
        write_wedge(out, &wedges[i], colours[i]);
    for (int i = 0; i < count; i++)
        write_label(out, &wedges[i], colours[i], &slices[i]);
    fputs("</g>\n</svg>\n", out);
}
