#pragma once
// Every option of every command. One table in config.c gives each its name, type, range, default
// and help; it can be set, weakest first, in the JSON file of --config, as an environment variable
// (VITSERVE_MAX_BATCH) and as a flag (--max-batch 64).

#include "device.h"
#include "log.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum command {
    COMMAND_SERVE = 1,
    COMMAND_CLASSIFY = 2,
    COMMAND_MODEL = 4,
    COMMAND_BENCH = 8,
    COMMAND_PULL = 16,
    COMMAND_HEALTHCHECK = 32,
};

// Strings belong to the struct. 0 stands for "choose" where the table's help says so.
struct config {
    char *config;
    char *model;
    char *weights;
    char *weights_dir;
    char *random_weights; // a number, or "" for none
    char *labels;
    int64_t device, precision;
    int64_t threads, decode_threads;
    int64_t max_batch, max_queue;
    int64_t exif_orientation; // 1: apply
    int64_t fast_decode;
    int64_t top_k;
    int64_t max_pixels;
    int64_t max_request_pixels;
    int64_t max_decode_bytes;

    char *listen, *admin_listen;
    int64_t port, admin_port;
    int64_t max_body_bytes, max_images;
    int64_t max_inflight_bytes, max_connections, max_connections_per_address;
    char *trusted_proxies, *allowed_hosts;
    int64_t idle_timeout_ms, request_timeout_ms;
    int64_t drain_delay_ms, drain_timeout_ms;
    char *api_key_file, *tls_cert, *tls_key, *cors_origin;
    int64_t log_level, log_format;
    int64_t print_config;

    int64_t json;   // vitserve classify and bench
    int64_t logits; // vitserve classify
    char *batch;    // vitserve bench
    int64_t seconds;
    int64_t format;     // vitserve model: an enum report_format
    char *dir;          // vitserve pull; "" for weights_dir
    char *url, *sha256; // "" for the catalogue's
    int64_t check;
};

// Reads file, environment and the flags of `command`; argv[0..argc) are the words after it. Words
// that are no flags are moved to the front of argv, and *words counts them.
// STATUS_USAGE names the option, the value and the range.
enum status config_read(struct config *config, enum command command, int argc, char **argv,
                        int *words) CHECKED;
void config_release(struct config *config);

void config_print_help(enum command command, FILE *out);
enum status config_print_json(const struct config *config, FILE *out) CHECKED;
