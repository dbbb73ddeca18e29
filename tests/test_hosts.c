#include "hosts.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void allows(bool local, const char *listen, const char *allowed, const char *host,
                   bool expected)
{
    const struct host_rules rules = {.listen = listen, .allowed = allowed, .local = local};
    if (hosts_allow(&rules, host) != expected)
        fail_msg("%s %s, allowed \"%s\": Host: %s", local ? "local" : "at", listen, allowed, host);
}

static void on_this_machine(void **state)
{
    (void)state;
    const char *const good[] = {"localhost",
                                "localhost:8080",
                                "LocalHost:1",
                                "127.0.0.1",
                                "10.0.0.1:80",
                                "[::1]",
                                "[2001:db8::1]:8080",
                                "x",
                                "vitserve:80",
                                "localhost.",
                                "",
                                "  localhost:80",
                                "localhost \t",
                                "here.lan:80",
                                "HERE.lan"};
    const char *const bad[] = {"attacker.example",
                               "attacker.example:8080",
                               "a.b",
                               "localhost.attacker.example",
                               "127.0.0.1.example",
                               "127.0.0.1x",
                               "127.0.0.256",
                               "attacker.example."};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        allows(true, "here.lan", "", good[i], true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        allows(true, "here.lan", "", bad[i], false);
}

static void names_that_are_given(void **state)
{
    (void)state;
    for (int local = 0; local < 2; local++) {
        allows(local, "127.0.0.1", "a.example, B.example:80,c.example", "a.example:8080", true);
        allows(local, "127.0.0.1", "a.example, B.example,c.example", "b.EXAMPLE", true);
        allows(local, "127.0.0.1", "a.example,c.example", "c.example", true);
        allows(local, "127.0.0.1", "a.example,c.example", "d.example", false);
        allows(local, "127.0.0.1", "a.example,c.example", "a.exampl", false);
        allows(local, "127.0.0.1", "a.example,c.example", "a.example,c.example", false);
        allows(local, "127.0.0.1", "*", "anything.example", true);
        allows(local, "127.0.0.1", "a.example,*", "anything.example", true);
        allows(local, "127.0.0.1", "a.example", "localhost", local);
    }
}

static void elsewhere_any(void **state)
{
    (void)state;
    allows(false, "0.0.0.0", "", "attacker.example", true);
    allows(false, "0.0.0.0", "", "", true);
}

static void a_name_that_is_too_long(void **state)
{
    (void)state;
    char name[600];
    for (size_t i = 0; i < sizeof name; i++)
        name[i] = 'a';
    name[sizeof name - 1] = '\0';
    allows(true, "127.0.0.1", "a.example", name, false);
    allows(true, "127.0.0.1", "*", name, true);
    allows(false, "0.0.0.0", "", name, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_this_machine),
        cmocka_unit_test(names_that_are_given),
        cmocka_unit_test(elsewhere_any),
        cmocka_unit_test(a_name_that_is_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
