#pragma once
// Class names for tests.

#include "catalog.h"

// labels_open() of a file with these lines; the caller's to close. Fails the test.
struct labels *given_labels(const struct catalog_entry *entry, const char *lines);
