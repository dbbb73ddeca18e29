#pragma once
// Pictures and their turns, for the tests of turn.c.

#include "turn.h"
#include <pthread.h>
#include <stdatomic.h>

// What is to come at all comes within this time.
static const int64_t PATIENCE_NS = INT64_C(60) * 1000000000;

void pause_us(int us);

struct turns *open_turns(int count, int64_t max_bytes);
struct decode_request until(int64_t deadline_ns);
void take(struct turns *turns, struct decode_request *request, struct turn *turn);
enum status admit(struct turn *turn, int64_t bytes);

// A picture of another request, on a thread of its own.
struct other {
    struct turns *turns;
    struct decode_request request;
    int64_t bytes;            // that it asks for; 0: none
    bool unwatched;           // asks for a long turn
    bool lasting;             // goes on checking until it is told to end
    atomic_bool told, there;  // to end; has all it asked for
    atomic_int checks, asked; // made; whether somebody waits for it, if other_queue() started it
    enum status status;
    pthread_t thread;
};

void other_start(struct other *other);
void other_queue(struct other *other);      // the same, until it stands in a line
enum status other_end(struct other *other); // its status
bool other_comes(struct other *other);      // waits until it has all it asked for
