#include "written_checkpoint.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/test_weights_XXXXXX";
char checkpoint_path[64];

int checkpoint_set_up(void **state)
{
    (void)state;
    const char *made = mkdtemp(folder);
    snprintf(checkpoint_path, sizeof checkpoint_path, "%s/model.safetensors", folder);
    return made ? 0 : -1;
}

int checkpoint_tear_down(void **state)
{
    (void)state;
    unlink(checkpoint_path);
    return rmdir(folder);
}

void write_checkpoint(const struct source *sources, size_t count, int pad)
{
    json_t *header = json_object();
    int64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        const int64_t begin = end;
        json_t *shape = json_array();
        for (int j = 0; j < sources[i].info->rank; j++)
            json_array_append_new(shape, json_integer(sources[i].info->shape[j]));
        end += tensor_count(sources[i].info) * (strcmp(sources[i].dtype, "F32") == 0 ? 4 : 2);
        json_object_set_new(header, sources[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", sources[i].dtype, "shape",
                                      shape, "data_offsets", (json_int_t)begin, (json_int_t)end));
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    const uint64_t length = strlen(text) + (uint64_t)pad;
    FILE *file = fopen(checkpoint_path, "wb");
    assert_non_null(file);
    fwrite(&length, 8, 1, file);
    fprintf(file, "%s%*s", text, pad, "");
    for (size_t i = 0; i < count; i++)
        fwrite(sources[i].data, (size_t)tensor_count(sources[i].info),
               strcmp(sources[i].dtype, "F32") == 0 ? 4 : 2, file);
    assert_int_equal(fclose(file), 0);
    free(text);
}

struct weights *open_ok(const char *file)
{
    struct weights *weights;
    const enum status status = weights_open(file, &weights);
    if (status != STATUS_OK)
        fail_msg("%s: %s", file, status_detail(status));
    return weights;
}

void check_ok(struct weights *weights, const struct tensor_info *rows, size_t count)
{
    const enum status status = weights_check(weights, rows, count);
    if (status != STATUS_OK)
        fail_msg("%s", status_detail(status));
}
