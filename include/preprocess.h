#pragma once
// RGB8 of any size -> the (S, S, 3) uint8 crop that the model sees, bit for bit what torchvision
// does to a Pillow image: Resize(resize, interpolation, antialias) of the shorter side,
// CenterCrop(crop). Only the rows and columns that the crop needs are computed. Normalisation is
// not done here: it is folded into the patch embedding (vit.c). Reentrant.

#include "image.h"

enum interpolation { INTERPOLATION_BILINEAR, INTERPOLATION_BICUBIC };

struct preprocess {
    int resize; // length of the shorter side after the resize
    int crop;   // S: side of the square that is cut from the middle; crop <= resize
    enum interpolation interpolation;
    float mean[3]; // of RGB in 0..1
    float std[3];
};

// out: (crop, crop, 3). Fails only with STATUS_OUT_OF_MEMORY.
enum status preprocess_image(const struct preprocess *recipe, const struct image *image,
                             uint8_t *out) CHECKED;
