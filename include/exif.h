#pragma once
// The one EXIF field that changes what a picture shows.
// Reentrant.

#include <stddef.h>
#include <stdint.h>

// tiff: the TIFF structure that EXIF is ("II*\0" or "MM\0*" first), as PNG's eXIf holds it. Returns
// the orientation of its first directory, 1 to 8: the last one there, if there are several. 0 where
// there is none that can be read; 1, which is upright, where it is no orientation.
int exif_orientation(const uint8_t *tiff, size_t length);

// The same of a block that may begin with "Exif\0\0", as in JPEG and in many WebP files.
int exif_block_orientation(const uint8_t *block, size_t length);
