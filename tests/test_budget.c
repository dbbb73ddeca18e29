#include "budget.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_up_to_the_last_byte(void **state)
{
    (void)state;
    struct budget budget = {.limit = 100};
    assert_int_equal(budget_check(&budget, 100), STATUS_OK);
    assert_int_equal(budget_check(&budget, 101), STATUS_QUEUE_FULL);
    assert_int_equal(budget_take(&budget, 101), STATUS_QUEUE_FULL);
    assert_int_equal(budget_take(&budget, 60), STATUS_OK);
    assert_int_equal(budget_check(&budget, 41), STATUS_QUEUE_FULL);
    assert_int_equal(budget_take(&budget, 41), STATUS_QUEUE_FULL);
    assert_string_equal(status_detail(STATUS_QUEUE_FULL),
                        "requests in work fill the budget of 100 bytes");
    // A look takes nothing, nor does a refusal.
    assert_int_equal(budget_check(&budget, 40), STATUS_OK);
    assert_int_equal(budget_take(&budget, 40), STATUS_OK);
    assert_int_equal(budget_take(&budget, 1), STATUS_QUEUE_FULL);
    assert_int_equal(budget_take(&budget, 0), STATUS_OK);
    budget_give(&budget, 60);
    assert_int_equal(budget_check(&budget, 60), STATUS_OK);
    assert_int_equal(budget_check(&budget, 61), STATUS_QUEUE_FULL);
}

static void test_an_answer_finds_room(void **state)
{
    (void)state;
    struct budget budget = {.limit = 100};
    assert_int_equal(budget_take(&budget, 90), STATUS_OK);
    budget_charge(&budget, 30);
    assert_int_equal(budget_check(&budget, 0), STATUS_QUEUE_FULL);
    budget_give(&budget, 90);
    assert_int_equal(budget_check(&budget, 70), STATUS_OK);
    assert_int_equal(budget_check(&budget, 71), STATUS_QUEUE_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up_to_the_last_byte),
        cmocka_unit_test(test_an_answer_finds_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
