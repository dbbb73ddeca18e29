#pragma once
// The body of an inference request of the Open Inference Protocol, JSON alone or with binary
// tensors behind it, -> images and the outputs that are asked for. Reentrant.
//
// The model has two inputs, of which a request brings one: `image` BYTES [n] or [n, 1], encoded
// images; `pixels` UINT8 [n, S, S, 3], crops as the model sees them. In JSON images are base64 and
// pixels numbers. What is binary is not copied: images may point into the source's bytes, which
// must outlive the struct. What is copied is taken from the budget first.

#include "body.h"
#include "budget.h"

enum oip_tensor { OIP_LOGITS, OIP_PROBABILITIES, OIP_TENSORS };

// An output as it is asked for.
struct oip_output {
    enum oip_tensor tensor;
    bool binary;        // behind the JSON, not in it
    int classification; // the best so many classes, at most K; 0: the numbers themselves
};

struct oip_source {
    const char *json_length; // Inference-Header-Content-Length; NULL: the body is all JSON
    const uint8_t *bytes;
    size_t length;
    int S, K, max_images;
    struct budget *budget;
};

struct oip_request {
    char *id; // NULL: none. UTF-8, at most 256 bytes
    struct oip_output outputs[OIP_TENSORS];
    int n_outputs;
    struct upload *images; // (count)
    int count;
    // Private.
    uint8_t *memory; // of images that came as JSON
    struct budget *budget;
    int64_t charged;
};

// STATUS_BAD_REQUEST (says what and where), STATUS_NO_IMAGE, STATUS_TOO_MANY_IMAGES,
// STATUS_QUEUE_FULL (no budget left), STATUS_OUT_OF_MEMORY. A failure leaves nothing to release.
enum status oip_request_parse(const struct oip_source *source, struct oip_request *request) CHECKED;
void oip_request_release(struct oip_request *request);

const char *oip_tensor_name(enum oip_tensor tensor); // "logits"
