#pragma once
// Who may ask: requests bring "Authorization: Bearer KEY", and the keys are those of a file, one a
// line of 1 to 512 printable ASCII characters without blanks; blank lines and those that begin with
// # say nothing. The keys are part of no message.
//
// Threads: any number may check while one reloads.

#include "status.h"

struct auth;

// STATUS_IO, STATUS_USAGE (no key at all, or a line that can be none): the detail names the file.
enum status auth_open(const char *path, struct auth **auth) CHECKED;
void auth_close(struct auth *auth);

// Reads the file again; a failure, as above, leaves the keys as they are.
enum status auth_reload(struct auth *auth) CHECKED;

// The value of the request's Authorization header, NULL where it has none. Takes equally long
// whichever keys there are and however much of one was guessed. STATUS_UNAUTHORIZED.
enum status auth_check(struct auth *auth, const char *authorization) CHECKED;
