// The heuristic of cublasLt and its algorithms.
//
// It offers algorithms with and without workspace, for the alignments that it is told. An algorithm
// is only good for the types, transposes and epilogue for which it was found, and for the build of
// the library that found it. As in the real library a result is no promise: the rough heuristic
// also returns algorithms that fail when they run, results whose state says that there is none, in
// any place, and fewer results than there are.
#include "cublaslt.h"
#include "gemm.h"

namespace emulator
{

uint64_t hash(const problem &p)
{
    uint64_t h = 14695981039346656037u; // FNV-1a
    for (uint64_t value : {uint64_t(p.how->compute), uint64_t(p.how->transa),
                           uint64_t(p.how->transb), uint64_t(p.how->epilogue), uint64_t(p.a->type),
                           uint64_t(p.d->type), uint64_t(p.d->batches > 1)})
        h = (h ^ value) * 1099511628211u;
    return h;
}

// The largest power of two up to 16 that divides every row start of the matrix.
static uint32_t alignment_of(const layout &x, uint32_t of_pointer)
{
    uint64_t bytes = bytes_of(cudaDataType(x.type)), all = of_pointer | 16 | x.ld * bytes;
    if (x.batches > 1)
        all |= x.stride * bytes;
    return uint32_t(all & -all);
}

uint64_t workspace_of(const problem &p, int splits)
{
    return splits == 1 ? 0 : uint64_t(splits) * p.d->rows * p.d->columns * p.d->batches * 4;
}

static cublasLtMatmulHeuristicResult_t result_of(const problem &p, const algorithm &chosen)
{
    cublasLtMatmulHeuristicResult_t result = {};
    as<algorithm>(&result.algo) = chosen;
    result.workspaceSize = chosen.workspace_bytes;
    result.state = CUBLAS_STATUS_SUCCESS;
    result.wavesCount = float(p.d->rows * p.d->columns) / (128 * 128 * 132);
    return result;
}

using results = std::vector<cublasLtMatmulHeuristicResult_t>;

static results good_results(const problem &p, const preference &wanted)
{
    static const struct {
        int id, splits;
    } known[] = {{66, 2}, {66, 1}, {21, 1}, {67, 4}, {71, 8}};
    const layout *layouts[4] = {p.a, p.b, p.c, p.d};
    results found;
    for (const auto &k : known) {
        algorithm candidate = {magic,
                               hash(p),
                               workspace_of(p, k.splits),
                               k.id,
                               k.splits,
                               current_settings().library,
                               CUBLAS_STATUS_SUCCESS,
                               {}};
        if (candidate.workspace_bytes > wanted.workspace_bytes)
            continue;
        for (int i = 0; i < 4; i++)
            candidate.alignment[i] = alignment_of(*layouts[i], wanted.alignment[i]);
        found.push_back(result_of(p, candidate));
    }
    return found;
}

// Only the state of such a result is defined.
static cublasLtMatmulHeuristicResult_t no_result(const problem &p)
{
    cublasLtMatmulHeuristicResult_t result = result_of(p, {no_algorithm});
    result.workspaceSize = 0x7fc0dead;
    result.state = CUBLAS_STATUS_NOT_SUPPORTED;
    return result;
}

// Drops some of the good results, but never the first, and puts bad ones among them.
static void roughen(const problem &p, size_t requested, results &found)
{
    if (found.empty())
        return;
    found.resize(std::min<size_t>(1 + random_below(found.size()), requested));
    cublasLtMatmulHeuristicResult_t bad[3] = {no_result(p), found[0], found[0]};
    as<algorithm>(&bad[1].algo).fails_with = CUBLAS_STATUS_NOT_SUPPORTED;
    as<algorithm>(&bad[2].algo).fails_with = CUBLAS_STATUS_EXECUTION_FAILED;
    for (const auto &result : bad)
        if (found.size() < requested && one_in(2))
            found.insert(found.begin() + random_below(found.size() + 1), result);
}

static int find_algorithms(const problem &p, const preference &wanted, size_t requested,
                           cublasLtMatmulHeuristicResult_t *to)
{
    results found;
    if (current_settings().heuristic != heuristic::none)
        found = good_results(p, wanted);
    if (current_settings().heuristic == heuristic::rough)
        roughen(p, requested, found);
    found.resize(std::min(found.size(), requested));
    std::copy(found.begin(), found.end(), to);
    return int(found.size());
}

cublasStatus_t check_algorithm(const problem &p, const algorithm &a)
{
    const layout *layouts[4] = {p.a, p.b, p.c, p.d};
    if (a.magic != magic || a.problem != hash(p) || a.library != current_settings().library)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++)
        if (alignment_of(*layouts[i], 16) < a.alignment[i])
            return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace emulator

using namespace emulator;

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wanted, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    return lt_call(__func__, [&] {
        *found = 0;
        if (!handle || !how || !a || !b || !c || !d || !wanted || requested < 1)
            return CUBLAS_STATUS_INVALID_VALUE;
        problem p = {&as<description>(how), &as<layout>(a), &as<layout>(b), &as<layout>(c),
                     &as<layout>(d)};
        cublasStatus_t status = check_problem(p);
        if (status == CUBLAS_STATUS_SUCCESS)
            *found = find_algorithms(p, as<preference>(wanted), size_t(requested), results);
        return status;
    });
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    return lt_call(__func__, [&] {
        if (!handle || !how || !a || !b || !c || !d || !algo || !result)
            return CUBLAS_STATUS_INVALID_VALUE;
        problem p = {&as<description>(how), &as<layout>(a), &as<layout>(b), &as<layout>(c),
                     &as<layout>(d)};
        algorithm checked = as<const algorithm>(algo);
        cublasStatus_t status = check_problem(p);
        if (status == CUBLAS_STATUS_SUCCESS)
            status = check_algorithm(p, checked);
        if (status != CUBLAS_STATUS_SUCCESS)
            return status;
        checked.workspace_bytes = workspace_of(p, checked.splits); // for these sizes
        *result = result_of(p, checked);
        return status;
    });
}

// What tells algorithms apart, for people and caches.
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written)
{
    return lt_call(__func__, [&] {
        const algorithm &a = as<const algorithm>(algo);
        int32_t found = attribute == CUBLASLT_ALGO_CONFIG_ID ? a.id : a.splits;
        if (attribute != CUBLASLT_ALGO_CONFIG_ID && attribute != CUBLASLT_ALGO_CONFIG_SPLITK_NUM)
            return CUBLAS_STATUS_NOT_SUPPORTED;
        if (written)
            *written = sizeof found;
        if (bytes != sizeof found)
            return CUBLAS_STATUS_INVALID_VALUE;
        memcpy(value, &found, sizeof found);
        return CUBLAS_STATUS_SUCCESS;
    });
}
