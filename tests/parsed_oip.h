#pragma once
// What the tests of oip_request_parse() share: requests, a body in a heap block of its exact size,
// so that AddressSanitizer sees any read behind it, and a budget that must get back what it gave.

#include "oip_request.h"

// Of the model that is asked.
enum { S = 2, K = 5, CROP = S * S * 3, MAX_IMAGES = 4 };

#define OUTSIDE(inputs) "{\"inputs\":[" inputs "]}"
#define PIXELS(shape, rest)                                                                        \
    OUTSIDE("{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":" shape "," rest "}")
#define IMAGE(shape, rest)                                                                         \
    OUTSIDE("{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":" shape "," rest "}")
#define BINARY(size)  "\"parameters\":{\"binary_data_size\":" size "}"
#define TWELVE        "0,1,2,3,4,5,6,7,8,9,10,11"
#define GOOD          IMAGE("[1]", "\"data\":[\"QUJD\"]")
#define WITH(members) "{" members "," GOOD_INPUTS "}"
#define GOOD_INPUTS                                                                                \
    "\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"QUJD\"]}]"

// A BYTES tensor of three images: "ABC", nothing and "d".
#define THREE_IMAGES "\3\0\0\0ABC\0\0\0\0\1\0\0\0d"
enum { THREE = sizeof THREE_IMAGES - 1 };

struct parsed {
    uint8_t *bytes;
    struct budget budget;
    struct oip_request request;
    enum status status;
};

// A failure leaves nothing behind.
void parse_bytes(struct parsed *parsed, const char *json_length, const void *bytes, size_t length);
void parse_good(struct parsed *parsed, const char *json);
// JSON with a tensor behind it.
void parse_binary(struct parsed *parsed, const char *json, const void *tensor, size_t length);
void release(struct parsed *parsed);

// The failure is this one, and its detail holds `words`. Releases.
void expect_refusal(struct parsed *parsed, const char *what, enum status status, const char *words);
void refuse_as(const char *json, enum status status, const char *words);
void refuse(const char *json, const char *words); // STATUS_BAD_REQUEST
void refuse_binary(const char *json, const void *tensor, size_t length, const char *words);

void expect_image(const struct parsed *parsed, int index, const char *text);
// Pixel i of all the crops is i.
void expect_crops(const struct parsed *parsed, int count);
