#pragma once
// A checkpoint file: tensors under the names that the file gives them. The format is told by the
// first bytes, not by the file's name: PyTorch's (pth.h), else safetensors (safetensors.h). The
// tensors point into the file's mapping.

#include "mapping.h"

enum tensor_type { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_F64, TENSOR_TYPE_COUNT };

size_t tensor_type_bytes(enum tensor_type type);

enum { CHECKPOINT_MAX_RANK = 8 };

struct checkpoint_tensor {
    const char *name; // owned by the checkpoint
    enum tensor_type type;
    int rank;
    int64_t shape[CHECKPOINT_MAX_RANK];
    const uint8_t *data; // row-major, with no alignment promised
    size_t bytes;        // product of the shape x size of the type
};

struct checkpoint {
    struct checkpoint_tensor *tensors; // sorted by name, each name once
    size_t count;
    char *names; // all of them, a zero behind each
    size_t names_used;
    struct mapping mapping; // none where the caller keeps the bytes
};

// STATUS_IO (cannot be opened) or STATUS_BAD_WEIGHTS (not a well-formed file: says where, and which
// tensor).
enum status checkpoint_open(const char *path, struct checkpoint **checkpoint) CHECKED;

// The same over bytes that the caller keeps alive. `name` says in errors what they are.
enum status checkpoint_parse(const char *name, const uint8_t *bytes, size_t length,
                             struct checkpoint **checkpoint) CHECKED;

const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *checkpoint,
                                                const char *name); // NULL: there is none
void checkpoint_close(struct checkpoint *checkpoint);

// For the readers of the formats, which leave what they took to checkpoint_close(). Room for
// `count` tensors, whose names take names_bytes with a zero behind each.
enum status checkpoint_reserve(struct checkpoint *checkpoint, size_t count,
                               size_t names_bytes) CHECKED;

// The next tensor: its name is copied, the rest is for the reader to fill in.
struct checkpoint_tensor *checkpoint_add(struct checkpoint *checkpoint, const char *name,
                                         size_t name_bytes);
