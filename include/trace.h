#pragma once
// What became of one request: its images and the time that each stage took. Whoever works for the
// request adds to it; api.c turns it into metrics, the Server-Timing header and the log.

#include "metrics.h"

struct trace {
    const char *route;     // "/classify"; a text that lives for ever
    int images[OUTCOMES];  // received, by what became of them
    int64_t complete_ns;   // clock_ns() when the body had arrived
    int64_t decode_ns;     // of all its images
    int64_t preprocess_ns; // of all its images
    int64_t queue_ns;      // the longest of its images
    int64_t infer_ns;      // the longest of its images
    int batch;             // images in the largest batch that one of them was in; 0: none was
};
