#pragma once
// The data of a request's one input, in each of its forms, -> images. Private to oip_request.c.

#include "oip_numbers.h"
#include "oip_request.h"

struct json_t; // jansson's json_t, for those who include jansson.h

enum { OIP_MAX_RANK = 4 };

struct oip_input {
    bool pixels; // else image
    int S, rank;
    int64_t shape[OIP_MAX_RANK]; // [n], [n, 1] or [n, S, S, 3]; n fits an int
    const struct json_t *data;   // NULL: the tensor is binary
    struct oip_numbers numbers;  // where data was a list of numbers: it is null in the JSON
    const uint8_t *binary;       // what follows the JSON
    size_t binary_length;
};

// Fills the request's images. STATUS_BAD_REQUEST (says which image and what of it),
// STATUS_QUEUE_FULL, STATUS_OUT_OF_MEMORY. oip_request_release() frees, be it a failure.
enum status oip_data_read(const struct oip_input *input, struct oip_request *request) CHECKED;
