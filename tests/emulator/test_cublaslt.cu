// cublasLt's products against plain loops in double, and the combinations that it must refuse.
#include "products.h"
#include <cmath>

static double expected(const shape &s, const stored &a, const stored &b, const stored &d,
                       const std::vector<double> &bias, int batch, int i, int j)
{
    double sum = 0.0;
    for (int l = 0; l < s.k; l++)
        sum += a.at(batch, i, l, s.ta) * b.at(batch, l, j, s.tb);
    sum = s.alpha * sum + s.beta * d.at(batch, i, j, false);
    if (s.epilogue & CUBLASLT_EPILOGUE_BIAS)
        sum += bias[size_t(i)];
    if (s.epilogue & CUBLASLT_EPILOGUE_GELU)
        sum = 0.5 * sum * (1.0 + tanh(0.7978845608028654 * (sum + 0.044715 * sum * sum * sum)));
    return sum;
}

using fill = void (*)(stored &a, stored &b);

// Every algorithm offered, in place (C == D); the largest error against the plain loops.
template <class In, class Out>
static double error_of(const shape &s, cublasComputeType_t compute, fill set = nullptr)
{
    stored a(s.ta ? s.k : s.m, s.ta ? s.m : s.k, s.slack, s.batches);
    stored b(s.tb ? s.n : s.k, s.tb ? s.k : s.n, s.slack, s.batches);
    if (set)
        set(a, b);
    stored d(s.m, s.n, s.slack, s.batches);
    std::vector<double> bias = random_values(size_t(s.m));
    device_array<In> on_a(rounded<In>(a.values)), on_b(rounded<In>(b.values));
    device_array<Out> on_bias(rounded<Out>(bias));
    std::vector<Out> start = rounded<Out>(d.values);
    device_array<char> workspace(1 << 20);
    cublasLtHandle_t handle;
    LT_OK(cublasLtCreate(&handle));
    cublasLtMatmulDesc_t how = describe(s, compute, on_bias.data);
    cublasLtMatrixLayout_t l[4] = {
        layout_of(a, type_of<In>, s.batches), layout_of(b, type_of<In>, s.batches),
        layout_of(d, type_of<Out>, s.batches), layout_of(d, type_of<Out>, s.batches)};
    cublasLtMatmulHeuristicResult_t results[8];
    cublasStatus_t status;
    int found = heuristic(handle, how, l, workspace.count, results, &status);
    CHECK(found >= 3 && status == CUBLAS_STATUS_SUCCESS);
    double worst = 0.0;
    for (int r = 0; r < found; r++) {
        device_array<Out> on_d(start);
        LT_OK(cublasLtMatmul(handle, how, &s.alpha, on_a.data, l[0], on_b.data, l[1], &s.beta,
                             on_d.data, l[2], on_d.data, l[3], &results[r].algo, workspace.data,
                             workspace.count, nullptr));
        std::vector<Out> out = on_d.get();
        for (int batch = 0; batch < s.batches; batch++)
            for (int j = 0; j < s.n; j++)
                for (int i = 0; i < d.ld; i++) {
                    size_t at = (size_t(batch) * s.n + j) * d.ld + i;
                    double right = i < s.m ? expected(s, a, b, d, bias, batch, i, j)
                                           : d.values[at]; // between the columns: untouched
                    double error = fabs(double(float(out[at])) - right);
                    worst = error <= worst ? worst : error; // and NaN
                }
    }
    for (cublasLtMatrixLayout_t layout : l)
        LT_OK(cublasLtMatrixLayoutDestroy(layout));
    LT_OK(cublasLtMatmulDescDestroy(how));
    LT_OK(cublasLtDestroy(handle));
    return worst;
}

static void test_products()
{
    const shape shapes[] = {
        {24, 16, 40, 1, true, false, 0, CUBLASLT_EPILOGUE_DEFAULT, 1.0f, 0.0f},
        {24, 50, 72, 1, true, false, 8, CUBLASLT_EPILOGUE_BIAS, 1.0f, 1.0f},
        {17, 3, 300, 1, true, false, 1, CUBLASLT_EPILOGUE_GELU_BIAS, 1.0f, 0.0f},
        {8, 9, 33, 3, false, true, 5, CUBLASLT_EPILOGUE_GELU, 0.5f, -2.0f},
        {40, 1, 8, 2, false, false, 0, CUBLASLT_EPILOGUE_BIAS, 1.0f, 0.0f},
    };
    for (const shape &s : shapes) {
        CHECK((error_of<float, float>(s, CUBLAS_COMPUTE_32F) < 4e-6));
        CHECK((error_of<__nv_bfloat16, float>(s, CUBLAS_COMPUTE_32F) < 4e-6));
        CHECK((error_of<__half, float>(s, CUBLAS_COMPUTE_32F) < 4e-6));
        CHECK((error_of<__nv_bfloat16, __nv_bfloat16>(s, CUBLAS_COMPUTE_32F) < 2e-2));
        CHECK((error_of<__half, __half>(s, CUBLAS_COMPUTE_32F) < 3e-3));
        double tf32 = error_of<float, float>(s, CUBLAS_COMPUTE_32F_FAST_TF32);
        CHECK(tf32 > 1e-5 && tf32 < 3e-3);
    }
}

// 1, then 3/4 ulp in every eighth place: a sum that rounds takes each of the seven for one ulp,
// tensor cores lose them all, whatever the sign.
template <int sign> static void one_and_small(stored &a, stored &b)
{
    for (size_t i = 0; i < a.values.size(); i++) {
        a.values[i] = i == 0 ? sign : i % 8 ? 0.0 : sign * 0x1.8p-12;
        b.values[i] = i == 0 ? 1.0 : 0x1p-12;
    }
}

static void test_sums()
{
    const shape s = {1, 1, 64, 1, true, false, 0, CUBLASLT_EPILOGUE_DEFAULT, 1.0f, 0.0f};
    const double ulp = 0x1p-23;
    for (fill set : {one_and_small<1>, one_and_small<-1>}) {
        CHECK((error_of<float, float>(s, CUBLAS_COMPUTE_32F, set) < 1.8 * ulp));
        CHECK((error_of<float, float>(s, CUBLAS_COMPUTE_32F_FAST_TF32, set) == 5.25 * ulp));
        CHECK((error_of<__nv_bfloat16, float>(s, CUBLAS_COMPUTE_32F, set) == 5.25 * ulp));
        CHECK((error_of<__half, float>(s, CUBLAS_COMPUTE_32F, set) == 5.25 * ulp));
    }
}

// The products that only differ from a good one in what the argument says.
static cublasStatus_t refusal(cudaDataType in, cudaDataType out, cublasComputeType_t compute,
                              int bias_type, uint64_t columns = 8)
{
    cublasLtHandle_t handle;
    cublasLtMatmulHeuristicResult_t results[8];
    cublasStatus_t status;
    shape s = {8, 8, 8, 1, true, false, 0, CUBLASLT_EPILOGUE_BIAS, 1.0f, 0.0f};
    stored x(8, 8, 0, 1);
    LT_OK(cublasLtCreate(&handle));
    cublasLtMatmulDesc_t how = describe(s, compute, &s);
    LT_OK(cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                                         sizeof bias_type));
    cublasLtMatrixLayout_t l[4] = {layout_of(x, in, 1), layout_of(x, in, 1), layout_of(x, out, 1),
                                   layout_of(x, out, 1)};
    LT_OK(cublasLtMatrixLayoutSetAttribute(l[3], CUBLASLT_MATRIX_LAYOUT_COLS, &columns,
                                           sizeof columns));
    CHECK((heuristic(handle, how, l, 0, results, &status) > 0) ==
          (status == CUBLAS_STATUS_SUCCESS));
    for (cublasLtMatrixLayout_t layout : l)
        LT_OK(cublasLtMatrixLayoutDestroy(layout));
    LT_OK(cublasLtMatmulDescDestroy(how));
    LT_OK(cublasLtDestroy(handle));
    return status;
}

static void test_refusals()
{
    const cudaDataType f32 = CUDA_R_32F, b16 = CUDA_R_16BF, h16 = CUDA_R_16F;
    CHECK(refusal(b16, f32, CUBLAS_COMPUTE_32F, f32) == CUBLAS_STATUS_SUCCESS);
    CHECK(refusal(b16, b16, CUBLAS_COMPUTE_32F, b16) == CUBLAS_STATUS_SUCCESS);
    CHECK(refusal(b16, b16, CUBLAS_COMPUTE_32F, f32) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(refusal(b16, h16, CUBLAS_COMPUTE_32F, h16) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(refusal(f32, b16, CUBLAS_COMPUTE_32F, b16) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(refusal(b16, f32, CUBLAS_COMPUTE_32F_FAST_TF32, f32) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(refusal(h16, h16, CUBLAS_COMPUTE_16F, h16) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(refusal(f32, f32, CUBLAS_COMPUTE_32F, f32, 7) == CUBLAS_STATUS_INVALID_VALUE);
}

static bool workspace_kept(bool shared)
{
    two_streams t;
    cudaStream_t streams[2];
    for (cudaStream_t &stream : streams)
        CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int repeat = 0; repeat < 4; repeat++)
        for (int i = 0; i < 2; i++)
            LT_OK(t.multiply(i, streams[i], shared ? 0 : size_t(i) << 15, 1 << 15));
    CUDA_OK(cudaDeviceSynchronize());
    for (cudaStream_t stream : streams)
        CUDA_OK(cudaStreamDestroy(stream));
    return t.d[0].get() == t.d[1].get();
}

static void test_calls()
{
    two_streams t;
    CHECK(t.multiply(0, nullptr, 0, 16) == CUBLAS_STATUS_INVALID_VALUE); // workspace too small
    cublasLtMatmulAlgo_t zero = {};
    cublasLtMatmulHeuristicResult_t checked;
    CHECK(cublasLtMatmulAlgoCheck(t.handle, t.how, t.l[0], t.l[1], t.l[2], t.l[3], &zero,
                                  &checked) == CUBLAS_STATUS_NOT_SUPPORTED);
    LT_OK(cublasLtMatmulAlgoCheck(t.handle, t.how, t.l[0], t.l[1], t.l[2], t.l[3],
                                  &t.results[0].algo, &checked));
    CHECK(checked.workspaceSize == t.results[0].workspaceSize);
    t.a.data++; // 4 bytes from where the algorithm wants it
    CHECK(t.multiply(0, nullptr, 0, 1 << 15) == CUBLAS_STATUS_INVALID_VALUE);
    t.a.data--;
    emulator_fail("cublasLtMatmul", 1, CUBLAS_STATUS_INTERNAL_ERROR);
    CHECK(t.multiply(0, nullptr, 0, 1 << 15) == CUBLAS_STATUS_INTERNAL_ERROR);
    // Captured and replayed like any work.
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    LT_OK(t.multiply(0, stream, 0, 1 << 15));
    CUDA_OK(cudaStreamEndCapture(stream, &graph));
    CHECK(std::isnan(t.d[0].get()[0]));
    CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
    CUDA_OK(cudaGraphLaunch(executable, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
    CHECK(!std::isnan(t.d[0].get()[0]));
    CUDA_OK(cudaGraphExecDestroy(executable));
    CUDA_OK(cudaGraphDestroy(graph));
    CUDA_OK(cudaStreamDestroy(stream));
}

void test_cublaslt()
{
    srand(1);
    set_environment("EMULATOR_HEURISTIC", "smooth");
    test_products();
    test_sums();
    test_refusals();
    CHECK(wrong_seeds(20, [] { return workspace_kept(false); }) == 0);
    CHECK(dies([] { wrong_seeds(20, [] { return workspace_kept(true); }); }, "its workspace"));
    emulator_seed(1);
    test_calls();
    unsetenv("EMULATOR_HEURISTIC");
}
