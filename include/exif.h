#pragma once
// The one EXIF field that changes what a picture shows.
// Reentrant.

#include <stddef.h>
#include <stdint.h>

// tiff: the TIFF structure that EXIF is ("II*\0" or "MM\0*" first), as JPEG's APP1 holds it after
// "Exif\0\0", PNG's eXIf and WebP's EXIF as it is. Returns the orientation of its first directory,
// 1 to 8; 1, which is upright, where there is none or where anything is malformed.
int exif_orientation(const uint8_t *tiff, size_t length);
