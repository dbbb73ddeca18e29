#pragma once
// Requests that note what becomes of each of their images, for the tests of decoders.c.

#include "decoders.h"
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

enum { MOST = 64 };

// What became of each image of a request.
struct request {
    atomic_int calls[MOST];
    enum status turns[MOST];
    pthread_t threads[MOST];
    char details[MOST][64];
    atomic_int *at_once, *most; // images in work now, over all requests, and ever
    sem_t *go;                  // each image takes one, if there is any
};

struct decoders *open_decoders(int turns);
void pause_us(int us);
struct decode_request until(int64_t deadline_ns);

// A decode_fn; the context is the struct request.
void note(void *context, int i, struct image_guard *guard, enum status turn);

void expect_each_once(const struct request *request, int count, enum status turn);

// Each image waits until all of them are in work.
struct meeting {
    atomic_int there;
    int expected;
    bool met;
};

// A decode_fn; the context is the struct meeting.
void meet(void *context, int i, struct image_guard *guard, enum status turn);

// A request on a thread of its own.
struct crowd {
    struct decoders *decoders;
    struct request request;
    struct decode_request decoding;
    int count;
    decode_fn decode; // NULL: note
    atomic_bool done;
};

void *run_crowd(void *crowd); // the thread
