#pragma once
// Pictures on disk: the files that the words of a command line name, and their bytes.

#include "mapping.h"

struct pictures {
    char **paths;
    size_t count;
};

// A word is a file; a directory: every .jpg, .jpeg, .png and .webp below it, sorted by path (links
// to files count, links to directories are not followed); or, where no file has that name, a
// pattern of glob(3). A word that names nothing stays in the list: picture_map() says what is wrong
// with it at its turn. Release the list whatever the status is.
enum status pictures_init(struct pictures *pictures, int count, char **words) CHECKED;
void pictures_release(struct pictures *pictures);

// mapping_open() with the reasons that a word of the command line may have.
enum status picture_map(const char *path, struct mapping *mapping) CHECKED;
