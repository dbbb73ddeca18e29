#include "postprocess.h"
#include <math.h>

static float rank(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

// Keeps top[0..count) sorted, best first, and puts the class where it belongs if it beats the last.
static int insert(struct prediction *top, int count, int k, int class_index, const float *logits)
{
    int at = count;
    while (at > 0 && rank(logits[class_index]) > rank(logits[top[at - 1].class_index]))
        at--;
    if (at == k)
        return count;
    count = count < k ? count + 1 : k;
    for (int i = count - 1; i > at; i--)
        top[i] = top[i - 1];
    top[at].class_index = class_index;
    return count;
}

static float sum_of_powers(const float *logits, int classes, float max)
{
    float sum = 0.0f;
    for (int i = 0; i < classes; i++)
        sum += expf(logits[i] - max);
    return sum;
}

void postprocess_top_k(const float *logits, int classes, int k, struct prediction *top)
{
    int count = 0;
    for (int i = 0; i < classes; i++)
        count = insert(top, count, k, i, logits);
    float max = logits[top[0].class_index], sum = sum_of_powers(logits, classes, max);
    for (int i = 0; i < k; i++)
        top[i].probability = expf(logits[top[i].class_index] - max) / sum;
}

void postprocess_softmax(const float *logits, int classes, float *probabilities)
{
    float max = -INFINITY;
    for (int i = 0; i < classes; i++)
        max = rank(logits[i]) > max ? logits[i] : max;
    float sum = sum_of_powers(logits, classes, max);
    for (int i = 0; i < classes; i++)
        probabilities[i] = expf(logits[i] - max) / sum;
}
