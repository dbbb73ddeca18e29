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

// What there is to know of a picture beside its crop.
struct preprocessed {
    int width, height;   // as it is looked at
    int64_t resample_ns; // of the whole time; the rest is decoding
};

// Encoded bytes to the crop in one pass: each strip of rows is resized as it is decoded, and only
// the part of the picture that the crop needs is decoded. out: (crop, crop, 3), left unfinished
// where this fails; *done is then not set. Errors: as image_read(), for a picture with a damage
// anywhere, be it outside the crop.
enum status preprocess_bytes(const struct preprocess *recipe, const uint8_t *bytes, size_t length,
                             const struct image_limits *limits, uint8_t *out,
                             struct preprocessed *done) CHECKED;

// The same of a decoded picture. Fails only with STATUS_OUT_OF_MEMORY.
enum status preprocess_image(const struct preprocess *recipe, const struct image *image,
                             uint8_t *out) CHECKED;
