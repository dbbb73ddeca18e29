#pragma once
// A pie chart as SVG that stands alone: no script, no font, no picture from elsewhere. It brings
// its own background, which follows the viewer's light or dark scheme. Reentrant.

#include <stdint.h>
#include <stdio.h>

// As many slices as there are colours that everybody can tell apart.
enum { PIE_MAX_SLICES = 5 };

// Texts are UTF-8.
struct pie_slice {
    const char *label;
    const char *amount; // the value as people read it: "85.74M"
    int64_t value;      // at least 1
};

// count: 1 to PIE_MAX_SLICES. Errors are those of the stream.
void pie_write(FILE *out, const char *title, const struct pie_slice *slices, int count);
