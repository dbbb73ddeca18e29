#include "budget.h"

static enum status full(const struct budget *budget)
{
    return status_fail(STATUS_QUEUE_FULL, "requests in work fill the budget of %lld bytes",
                       (long long)budget->limit);
}

enum status budget_check(struct budget *budget, int64_t bytes)
{
    return atomic_load(&budget->used) <= budget->limit - bytes ? STATUS_OK : full(budget);
}

enum status budget_take(struct budget *budget, int64_t bytes)
{
    int64_t before = atomic_fetch_add(&budget->used, bytes);
    if (before <= budget->limit - bytes)
        return STATUS_OK;
    atomic_fetch_sub(&budget->used, bytes);
    return full(budget);
}

void budget_charge(struct budget *budget, int64_t bytes)
{
    atomic_fetch_add(&budget->used, bytes);
}

void budget_give(struct budget *budget, int64_t bytes)
{
    atomic_fetch_sub(&budget->used, bytes);
}
