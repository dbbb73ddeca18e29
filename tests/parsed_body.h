#pragma once
// What the tests of body_parse() share: a body in a heap block of its exact size, so that
// AddressSanitizer sees any read behind it, and a budget that must get back what it gave.

#include "body.h"

#define FORM      "multipart/form-data; boundary=b"
#define JSON      "application/json"
#define FILE_HEAD "Content-Disposition: form-data; name=\"f\"; filename=\"a.jpg\"\r\n\r\n"

struct parsed {
    char *bytes;
    struct body body;
    struct budget *budget;
    enum status status;
};

// source: without its bytes and its budget.
struct parsed parse_source(struct body_source source, const char *bytes, size_t length);
struct parsed parse_bytes(const char *type, const char *bytes, size_t length, int max_images);
// At most 8 images.
struct parsed parse(const char *type, const char *text);
void release(struct parsed *parsed);

// The detail of the failure holds `words`.
void expect_refused(const char *type, const char *text, enum status status, const char *words);
void expect_image(const struct parsed *parsed, int index, const char *name, const char *bytes);
