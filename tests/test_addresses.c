#include "addresses.h"
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct address address(const char *text)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &ipv4.sin_addr) == 1)
        return address_of((const struct sockaddr *)&ipv4);
    assert_int_equal(inet_pton(AF_INET6, text, &ipv6.sin6_addr), 1);
    return address_of((const struct sockaddr *)&ipv6);
}

static bool same_client(const char *a, const char *b)
{
    struct address first = address_of_client(address(a)), second = address_of_client(address(b));
    return memcmp(&first, &second, sizeof first) == 0;
}

static void test_clients(void **state)
{
    (void)state;
    assert_true(same_client("192.0.2.7", "192.0.2.7"));
    assert_true(same_client("192.0.2.7", "::ffff:192.0.2.7"));
    assert_false(same_client("192.0.2.7", "192.0.2.8"));
    assert_true(same_client("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_false(same_client("2001:db8:1:2::1", "2001:db8:1:3::1"));
    assert_false(same_client("::1", "192.0.2.7"));
}

static void test_local(void **state)
{
    (void)state;
    const char *const local[] = {"127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"};
    const char *const other[] = {"126.255.255.255", "128.0.0.0", "0.0.0.0", "::", "::2",
                                 "10.0.0.1"};
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        assert_true(address_is_local(address(local[i])));
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_false(address_is_local(address(other[i])));
}

static void test_sets(void **state)
{
    (void)state;
    static const struct {
        const char *list, *address;
        bool held;
    } cases[] = {{"", "192.0.2.7", false},
                 {"192.0.2.7", "192.0.2.7", true},
                 {"192.0.2.7", "192.0.2.6", false},
                 {"192.0.2.7", "::ffff:192.0.2.7", true},
                 {"10.0.0.0/8", "10.255.255.255", true},
                 {"10.0.0.0/8", "11.0.0.0", false},
                 {"10.1.2.3/8", "10.9.9.9", true},
                 {"192.0.2.128/25", "192.0.2.128", true},
                 {"192.0.2.128/25", "192.0.2.127", false},
                 {"192.0.2.4/31", "192.0.2.5", true},
                 {"192.0.2.4/31", "192.0.2.6", false},
                 {"192.0.2.4/32", "192.0.2.5", false},
                 {"0.0.0.0/0", "203.0.113.9", true},
                 {"0.0.0.0/0", "2001:db8::1", false},
                 {"::/0", "203.0.113.9", true},
                 {"fd00::/8", "fdff::1", true},
                 {"fd00::/8", "fc00::1", false},
                 {"2001:db8::/33", "2001:db8:7fff::", true},
                 {"2001:db8::/33", "2001:db8:8000::", false},
                 {" 10.0.0.0/8, 192.0.2.7 ,fd00::/8", "192.0.2.7", true},
                 {"10.0.0.0/8 fd00::/8", "fd00::1", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct address_set set;
        assert_int_equal(addresses_parse(cases[i].list, &set), STATUS_OK);
        if (addresses_hold(&set, address(cases[i].address)) != cases[i].held)
            fail_msg("\"%s\" and %s", cases[i].list, cases[i].address);
    }
}

static void test_what_is_no_address(void **state)
{
    (void)state;
    const char *const lists[] = {"x",        "10.0.0.0/33", "10.0.0.0/",         "10.0.0.0/-1",
                                 "10.0.0/8", "::1/129",     "10.0.0.1/8x",       "10.0.0.1/+8",
                                 "/8",       "10.0.0.256",  "10.0.0.1,localhost"};
    struct address_set set;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (addresses_parse(lists[i], &set) != STATUS_USAGE)
            fail_msg("\"%s\" was taken", lists[i]);
    assert_non_null(strstr(status_detail(STATUS_USAGE), "\"localhost\" is neither"));
    char text[100];
    snprintf(text, sizeof text, "%099d", 0);
    assert_int_equal(addresses_parse(text, &set), STATUS_USAGE);
}

static void test_how_many(void **state)
{
    (void)state;
    char list[ADDRESS_RANGES * 10 + 20] = "";
    struct address_set set;
    for (int i = 0; i < ADDRESS_RANGES; i++)
        sprintf(list + strlen(list), "10.0.0.%d,", i);
    assert_int_equal(addresses_parse(list, &set), STATUS_OK);
    assert_true(addresses_hold(&set, address("10.0.0.63")));
    strcat(list, "10.0.0.64");
    assert_int_equal(addresses_parse(list, &set), STATUS_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clients),  cmocka_unit_test(test_local),
        cmocka_unit_test(test_sets),     cmocka_unit_test(test_what_is_no_address),
        cmocka_unit_test(test_how_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
