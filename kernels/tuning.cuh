#pragma once
// The algorithms that were found fastest, kept in a file across starts:
// $XDG_CACHE_HOME (or ~/.cache)/vitserve/tuning-<GPU>-<cuBLASLt version>. A file that cannot be
// read or written only means that the next start measures again. Any thread.
#include "cuda_backend.cuh"

// What a matrix product is compiled for; compared and stored as bytes, so set to zero first.
struct tuning_key {
    int64_t out_stride;
    int32_t kind, type, compute, M, N, K;
};

struct tuning;

enum status tuning_open(const struct cuda_backend *backend, size_t version, struct tuning **tuning);
bool tuning_find(struct tuning *tuning, const struct tuning_key *key, cublasLtMatmulAlgo_t *algo);
// Takes the place of what is kept for the key.
void tuning_keep(struct tuning *tuning, const struct tuning_key *key,
                 const cublasLtMatmulAlgo_t *algo);
void tuning_save(struct tuning *tuning); // writes the file, if anything was added
void tuning_free(struct tuning *tuning);
