// cublasLt's heuristic: the bad results among its good ones, and algorithms of another build.
#include "products.h"

// What a seed's list holds.
struct rough_list {
    bool first_fails, first_is_none, works;
    int found;
};

static rough_list list_of(const char *how, uint64_t seed)
{
    two_streams t;
    cublasStatus_t status;
    rough_list list = {};
    set_environment("EMULATOR_HEURISTIC", how);
    emulator_seed(seed);
    list.found = heuristic(t.handle, t.how, t.l, 1 << 15, t.results, &status);
    set_environment("EMULATOR_HEURISTIC", "smooth");
    for (int i = 0; i < list.found; i++) {
        bool none = t.results[i].state != CUBLAS_STATUS_SUCCESS;
        two_streams other;
        other.results[0] = t.results[i];
        if (none && i == 0)
            CHECK(dies([&] { other.multiply(0, nullptr, 0, 1 << 15); }, "state is not SUCCESS"));
        bool works = !none && other.multiply(0, nullptr, 0, 1 << 15) == CUBLAS_STATUS_SUCCESS;
        list.works |= works;
        list.first_is_none |= none && i == 0;
        list.first_fails |= !none && !works && i == 0;
    }
    return list;
}

static void test_rough_heuristic()
{
    int failing = 0, none = 0, single = 0, many = 0;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        rough_list list = list_of("rough", seed);
        CHECK(list.works);
        failing += list.first_fails;
        none += list.first_is_none;
        single += list.found == 1;
        many += list.found >= 5;
    }
    CHECK(failing && none && single && many);
    CHECK(list_of("none", 1).found == 0);
}

// An algorithm of another build of the library, as a file may hold it.
static void test_other_library()
{
    two_streams t;
    cublasLtMatmulHeuristicResult_t checked;
    set_environment("EMULATOR_LIBRARY", "2");
    CHECK(cublasLtMatmulAlgoCheck(t.handle, t.how, t.l[0], t.l[1], t.l[2], t.l[3],
                                  &t.results[0].algo, &checked) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(t.multiply(0, nullptr, 0, 1 << 15) == CUBLAS_STATUS_NOT_SUPPORTED);
    unsetenv("EMULATOR_LIBRARY");
    emulator_reset();
}

void test_heuristic()
{
    set_environment("EMULATOR_HEURISTIC", "smooth");
    test_rough_heuristic();
    test_other_library();
    unsetenv("EMULATOR_HEURISTIC");
}
