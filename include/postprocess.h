#pragma once
// Logits -> the classes a person wants to see.

#include "status.h"

struct prediction {
    int class_index;
    float probability; // softmax over all classes, in fp32
};

// top: the k most probable of `classes`, best first; equal logits in order of their class.
// 1 <= k <= classes. A NaN logit ranks below all others.
void postprocess_top_k(const float *logits, int classes, int k, struct prediction *top);

// All of them: probabilities[i] is that of class i, to the bit what postprocess_top_k() gives it.
void postprocess_softmax(const float *logits, int classes, float *probabilities);
