#pragma once
// What torch.save writes since PyTorch 1.6, read only: a ZIP archive of a pickle, PREFIX/data.pkl,
// and of the tensors' storages, PREFIX/data/KEY. The pickle is read as data (pickle.h): nothing in
// it is ever executed, and whatever is no dict of tensors is refused.
// Format: https://pytorch.org/docs/stable/notes/serialization.html

#include "checkpoint.h"
#include <stdbool.h>

// Whether this is such a file, or one of before PyTorch 1.6, which pth_read() refuses with a hint.
bool pth_recognise(const uint8_t *bytes, size_t length);

// Adds the file's tensors to an empty checkpoint, in any order; checkpoint_parse() does the rest.
// They are those of the dict that was saved, or of the dict under its "state_dict" or "model"; what
// else these hold is left out. STATUS_BAD_WEIGHTS: not a well-formed archive or pickle, the pickle
// wants anything but tensors and plain values, a tensor is of integers or not contiguous, or lies
// outside its storage.
enum status pth_read(const char *name, const uint8_t *bytes, size_t length,
                     struct checkpoint *checkpoint) CHECKED;
