// Which connections there are, how many of one client, and whom the sweep ends. A connection is one
// end of a socket pair: who is ended reads the end of its stream.

#include "peers.h"
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { FRESH, IDLE, BUSY, N_PAIRS };

static int request; // stands for one in work

struct pairs {
    struct peers *peers;
    int ours[N_PAIRS], theirs[N_PAIRS];
};

static struct address client(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, text, &address.sin_addr), 1);
    return address_of((struct sockaddr *)&address);
}

static bool add(struct pairs *pairs, int i, const char *address, int64_t most, int64_t of_client)
{
    return peers_add(pairs->peers, pairs->ours[i], client(address), most, of_client);
}

static void open_pairs(struct pairs *pairs)
{
    assert_int_equal(peers_create(&pairs->peers), STATUS_OK);
    for (int i = 0; i < N_PAIRS; i++) {
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        pairs->ours[i] = fds[0];
        pairs->theirs[i] = fds[1];
    }
}

// One of each kind, in this order.
static void add_each(struct pairs *pairs)
{
    for (int i = 0; i < N_PAIRS; i++) {
        assert_true(add(pairs, i, "192.0.2.1", N_PAIRS, N_PAIRS));
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    peers_keep(pairs->peers, pairs->ours[IDLE], &request);
    assert_ptr_equal(peers_take(pairs->peers, pairs->ours[IDLE]), &request);
    peers_keep(pairs->peers, pairs->ours[BUSY], &request);
}

static void close_pairs(struct pairs *pairs)
{
    for (int i = 0; i < N_PAIRS; i++) {
        peers_remove(pairs->peers, pairs->ours[i]);
        close(pairs->ours[i]);
        close(pairs->theirs[i]);
    }
    assert_int_equal(peers_count(pairs->peers), 0);
    assert_int_equal(peers_fresh(pairs->peers), 0);
    peers_free(pairs->peers);
}

static void expect_open(const struct pairs *pairs, bool fresh, bool idle, bool busy)
{
    const bool expected[] = {fresh, idle, busy};
    for (int i = 0; i < N_PAIRS; i++) {
        char byte;
        assert_int_equal(recv(pairs->theirs[i], &byte, 1, MSG_DONTWAIT), expected[i] ? -1 : 0);
    }
    assert_int_equal(peers_count(pairs->peers), fresh + idle + busy);
    assert_int_equal(peers_fresh(pairs->peers), fresh);
}

static void test_limits(void **state)
{
    (void)state;
    struct pairs pairs;
    open_pairs(&pairs);
    assert_true(add(&pairs, 0, "192.0.2.1", 2, 1));
    assert_false(add(&pairs, 1, "192.0.2.1", 2, 1)); // of this client
    assert_true(add(&pairs, 1, "192.0.2.2", 2, 1));
    assert_false(add(&pairs, 2, "192.0.2.3", 2, 1)); // in all
    peers_remove(pairs.peers, pairs.ours[0]);
    assert_false(add(&pairs, 2, "192.0.2.2", 2, 1));
    assert_true(add(&pairs, 2, "192.0.2.1", 2, 1));
    assert_int_equal(peers_count(pairs.peers), 2);
    close_pairs(&pairs);
}

// A descriptor that comes back is another connection, and has no request of the one before.
static void test_again(void **state)
{
    (void)state;
    struct pairs pairs;
    open_pairs(&pairs);
    add_each(&pairs);
    assert_ptr_equal(peers_take(pairs.peers, pairs.ours[BUSY]), &request);
    assert_null(peers_take(pairs.peers, pairs.ours[BUSY]));
    peers_remove(pairs.peers, pairs.ours[IDLE]);
    assert_true(add(&pairs, IDLE, "192.0.2.1", N_PAIRS, N_PAIRS));
    assert_int_equal(peers_fresh(pairs.peers), 2);
    assert_null(peers_take(pairs.peers, pairs.ours[IDLE]));
    close_pairs(&pairs);
}

// Those without a request yet have a time of their own; one in work is never ended.
static void test_late(void **state)
{
    (void)state;
    const struct {
        int64_t fresh_since_ns, idle_since_ns;
        bool fresh, idle;
    } rows[] = {{0, 0, true, true},
                {INT64_MAX, 0, false, true},
                {0, INT64_MAX, true, false},
                {INT64_MAX, INT64_MAX, false, false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct pairs pairs;
        open_pairs(&pairs);
        add_each(&pairs);
        peers_end_late(pairs.peers, rows[i].fresh_since_ns, rows[i].idle_since_ns);
        expect_open(&pairs, rows[i].fresh, rows[i].idle, true);
        close_pairs(&pairs);
    }
}

// The one that has waited longest first, whether it has had a request or not; none that has one.
static void test_oldest(void **state)
{
    (void)state;
    struct pairs pairs;
    open_pairs(&pairs);
    add_each(&pairs);
    assert_true(peers_end_oldest(pairs.peers));
    expect_open(&pairs, false, true, true);
    assert_true(peers_end_oldest(pairs.peers));
    expect_open(&pairs, false, false, true);
    assert_false(peers_end_oldest(pairs.peers));
    expect_open(&pairs, false, false, true);
    close_pairs(&pairs);
}

// What counts is its last request, however old the connection is.
static void test_one_that_asks_is_young(void **state)
{
    (void)state;
    struct pairs pairs;
    open_pairs(&pairs);
    add_each(&pairs);
    assert_ptr_equal(peers_take(pairs.peers, pairs.ours[BUSY]), &request);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    peers_keep(pairs.peers, pairs.ours[FRESH], &request);
    assert_ptr_equal(peers_take(pairs.peers, pairs.ours[FRESH]), &request);
    for (int i = IDLE; i <= BUSY; i++)
        assert_true(peers_end_oldest(pairs.peers));
    char byte;
    assert_int_equal(recv(pairs.theirs[FRESH], &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(peers_count(pairs.peers), 1);
    close_pairs(&pairs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_oldest),
        cmocka_unit_test(test_one_that_asks_is_young),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
