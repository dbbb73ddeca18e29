#pragma once
// Pixels as numbers in JSON, read straight from the text: an image is 150,528 of them, and as
// values of a JSON library each would take up to a hundred bytes. Reentrant.

#include "status.h"
#include <stddef.h>
#include <stdint.h>

// A list of numbers within a text, from its first bracket to its last; text is NULL for none.
struct oip_numbers {
    const char *text;
    size_t length;
};

// The one list that is the "data" of an input and does not begin with a string. What is in it is
// not looked at yet, and the JSON around it may be malformed.
// STATUS_BAD_REQUEST: there is a second one, or it does not end; says where.
enum status oip_numbers_find(const char *json, size_t length, struct oip_numbers *numbers) CHECKED;

// Reads exactly `count` of them, which lie either flat or nested as the shape says: rank >= 2, no
// size is 0, and the product of them is count.
// STATUS_BAD_REQUEST: says which one, counted from 0, is not a whole number from 0 to 255, or not
// where the shape wants it.
enum status oip_numbers_read(const struct oip_numbers *numbers, const int64_t *shape, int rank,
                             uint8_t *bytes, size_t count) CHECKED;
