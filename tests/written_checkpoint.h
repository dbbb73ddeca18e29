#pragma once
// A safetensors file that a test writes, over and over, in a folder of its own.

#include "weights.h"

extern char checkpoint_path[64]; // of model.safetensors

// Of a group of tests: the folder comes and goes.
int checkpoint_set_up(void **state);
int checkpoint_tear_down(void **state);

struct source {
    const char *name, *dtype;
    const struct tensor_info *info; // for the shape
    const void *data;
};

// pad: blanks behind the header, to shift the alignment of the data.
void write_checkpoint(const struct source *sources, size_t count, int pad);

// The test fails where these do.
struct weights *open_ok(const char *file);
void check_ok(struct weights *weights, const struct tensor_info *rows, size_t count);
