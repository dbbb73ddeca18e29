// See include/report.h. Names, order and numbers are those of shared tables that people compare, so
// the Markdown keeps the exact bytes of its model, blank lines and trailing blanks included.

#include "report.h"
#include "accept.h"
#include "json.h"
#include "memory.h"
#include "pie.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The form of a tensor is the rank of its shape without the 1s.
enum { FORMS = TENSOR_MAX_RANK + 1 };
_Static_assert((int)FORMS <= (int)PIE_MAX_SLICES, "every form is a slice");

static const struct {
    const char *name, *content_type;
} formats[] = {
    [REPORT_TEXT] = {"text", "text/plain; charset=utf-8"},
    [REPORT_JSON] = {"json", "application/json"},
    [REPORT_MARKDOWN] = {"markdown", "text/markdown; charset=utf-8"},
    [REPORT_SVG] = {"svg", "image/svg+xml"},
};

enum { N_FORMATS = sizeof formats / sizeof *formats };

enum status report_format_from(const char *format, const char *accept, enum report_format *out)
{
    *out = REPORT_JSON;
    for (int i = 0; format && i < N_FORMATS; i++) {
        if (strcmp(formats[i].name, format) == 0) {
            *out = (enum report_format)i;
            return STATUS_OK;
        }
    }
    if (format)
        return status_fail(STATUS_BAD_REQUEST,
                           "format: \"%.32s\" is none of text|json|markdown|svg", format);
    int best = accept ? accept_weight(accept, formats[REPORT_JSON].content_type) : 0;
    for (int i = 0; accept && i < N_FORMATS; i++) {
        const int weight = accept_weight(accept, formats[i].content_type);
        if (weight > best) {
            best = weight;
            *out = (enum report_format)i;
        }
    }
    return STATUS_OK;
}

const char *report_content_type(enum report_format format)
{
    return formats[format].content_type;
}

struct totals {
    int64_t parameters;
    size_t layers;
    struct {
        int64_t parameters;
        size_t layers;
    } form[FORMS];
};

static struct tensor_info squeeze(const struct tensor_info *tensor)
{
    struct tensor_info out = *tensor;
    out.rank = 0;
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] != 1)
            out.shape[out.rank++] = tensor->shape[i];
    return out;
}

struct text {
    char text[96];
};

static struct text show_form(int rank)
{
    struct text out;
    if (rank == 1)
        snprintf(out.text, sizeof out.text, "Vector");
    else if (rank == 2)
        snprintf(out.text, sizeof out.text, "Matrix");
    else
        snprintf(out.text, sizeof out.text, "Tensor rank %d", rank);
    return out;
}

// "88.22M"
static struct text show_count(int64_t count)
{
    static const char suffixes[] = {'K', 'M', 'B'};
    struct text out;
    double value = (double)count;
    int suffix = -1;
    // 999.995 would be printed as 1000.00.
    while (suffix + 1 < (int)sizeof suffixes && value >= (suffix < 0 ? 1000 : 999.995)) {
        value /= 1000;
        suffix++;
    }
    if (suffix < 0)
        snprintf(out.text, sizeof out.text, "%" PRId64, count);
    else
        snprintf(out.text, sizeof out.text, "%.2f%c", value, suffixes[suffix]);
    return out;
}

// As Python prints a tuple: "(768, 3)", "(768,)", "()".
static struct text show_tuple(const struct tensor_info *tensor)
{
    struct text out = {"("};
    size_t used = 1;
    for (int i = 0; i < tensor->rank; i++)
        used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%s%" PRId64,
                                 i ? ", " : "", tensor->shape[i]);
    snprintf(out.text + used, sizeof out.text - used, "%s", tensor->rank == 1 ? ",)" : ")");
    return out;
}

static struct totals add_up(const struct tensor_info *rows, size_t count)
{
    struct totals totals = {.layers = count};
    for (size_t i = 0; i < count; i++) {
        const int rank = squeeze(&rows[i]).rank;
        totals.parameters += tensor_count(&rows[i]);
        totals.form[rank].parameters += tensor_count(&rows[i]);
        totals.form[rank].layers++;
    }
    return totals;
}

static double percent_layers(const struct totals *totals, int rank)
{
    return 100 * (double)totals->form[rank].layers / (double)totals->layers;
}

static double percent_parameters(const struct totals *totals, int rank)
{
    return 100 * (double)totals->form[rank].parameters / (double)totals->parameters;
}

static void write_forms(FILE *out, const struct totals *totals,
                        double (*percent)(const struct totals *, int))
{
    fputs("|", out);
    for (int rank = 0; rank < FORMS; rank++)
        if (totals->form[rank].layers)
            fprintf(out, " %s |", show_form(rank).text);
    fputs(" \n| ", out);
    for (int rank = 0; rank < FORMS; rank++)
        if (totals->form[rank].layers)
            fputs(" --- |", out);
    fputs("\n|", out);
    for (int rank = 0; rank < FORMS; rank++)
        if (totals->form[rank].layers)
            fprintf(out, " %.2f |", percent(totals, rank));
    fputs(" \n\n", out);
}

static void write_markdown(FILE *out, const char *name, const struct tensor_info *rows,
                           const struct totals *totals)
{
    fprintf(out, "# %s parameter information\n\n", name);
    fprintf(out, "**Number of layers: [ %zu ]**\n\n", totals->layers);
    fprintf(out, "**Number of parameters: [ %s ]**\n\n", show_count(totals->parameters).text);
    fputs("**Proportional of each form** (%)\n\n", out);
    write_forms(out, totals, percent_layers);
    fputs("**Proportional of parameters by form** (%)\n\n\n", out);
    write_forms(out, totals, percent_parameters);
    fputs("<img src=\"/model?format=svg\" alt=\"pie_chart\" width=\"500\"/>\n\n", out);
    fputs("**Layer information**\n\n\n", out);
    fputs("| Name | Shape | Squeezed shape | Number of parameters | Form |\n", out);
    fputs("| --- | --- | --- | --- | --- |\n", out);
    for (size_t i = 0; i < totals->layers; i++) {
        const struct tensor_info squeezed = squeeze(&rows[i]);
        fprintf(out, "| %s | %s | %s | %" PRId64 " | %s |\n", rows[i].name,
                show_tuple(&rows[i]).text, show_tuple(&squeezed).text, tensor_count(&rows[i]),
                show_form(squeezed.rank).text);
    }
    fputs("\n", out);
}

static int longer(int width, const char *text)
{
    return (int)strlen(text) > width ? (int)strlen(text) : width;
}

static void write_text(FILE *out, const char *name, const struct tensor_info *rows,
                       const struct totals *totals)
{
    fprintf(out, "%s: %zu layers, %" PRId64 " parameters (%s)\n\n", name, totals->layers,
            totals->parameters, show_count(totals->parameters).text);
    fprintf(out, "%-13s  %6s %9s  %12s\n", "Form", "Layers", "", "Parameters");
    for (int rank = 0; rank < FORMS; rank++)
        if (totals->form[rank].layers)
            fprintf(out, "%-13s  %6zu %7.2f %%  %12" PRId64 " %7.2f %%\n", show_form(rank).text,
                    totals->form[rank].layers, percent_layers(totals, rank),
                    totals->form[rank].parameters, percent_parameters(totals, rank));
    int names = (int)strlen("Name"), shapes = (int)strlen("Shape");
    for (size_t i = 0; i < totals->layers; i++) {
        names = longer(names, rows[i].name);
        shapes = longer(shapes, show_tuple(&rows[i]).text);
    }
    fprintf(out, "\n%-*s  %-*s  %12s  Form\n", names, "Name", shapes, "Shape", "Parameters");
    for (size_t i = 0; i < totals->layers; i++)
        fprintf(out, "%-*s  %-*s  %12" PRId64 "  %s\n", names, rows[i].name, shapes,
                show_tuple(&rows[i]).text, tensor_count(&rows[i]),
                show_form(squeeze(&rows[i]).rank).text);
}

static void write_svg(FILE *out, const char *name, const struct totals *totals)
{
    struct pie_slice slices[FORMS];
    struct text labels[FORMS], amounts[FORMS];
    char title[192];
    int count = 0;
    for (int rank = 0; rank < FORMS; rank++) {
        if (!totals->form[rank].layers)
            continue;
        labels[rank] = show_form(rank);
        amounts[rank] = show_count(totals->form[rank].parameters);
        slices[count++] = (struct pie_slice){labels[rank].text, amounts[rank].text,
                                             totals->form[rank].parameters};
    }
    snprintf(title, sizeof title, "%s: %s parameters by form", name,
             show_count(totals->parameters).text);
    pie_write(out, title, slices, count);
}

static json_t *json_percent(double percent)
{
    return json_real((double)(int64_t)(percent * 100 + 0.5) / 100);
}

static json_t *json_forms(const struct totals *totals)
{
    json_t *forms = json_array();
    for (int rank = 0; rank < FORMS; rank++) {
        if (!totals->form[rank].layers)
            continue;
        json_t *form = json_pack("{s:s, s:I, s:o, s:I, s:o}", "form", show_form(rank).text,
                                 "layers", (json_int_t)totals->form[rank].layers, "layers_percent",
                                 json_percent(percent_layers(totals, rank)), "parameters",
                                 (json_int_t)totals->form[rank].parameters, "parameters_percent",
                                 json_percent(percent_parameters(totals, rank)));
        json_array_append_new(forms, form);
    }
    return forms;
}

static json_t *json_shape(const struct tensor_info *tensor)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    return shape;
}

static json_t *json_layers(const struct tensor_info *rows, size_t count)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct tensor_info squeezed = squeeze(&rows[i]);
        json_t *layer = json_pack("{s:s, s:o, s:o, s:I, s:s}", "name", rows[i].name, "shape",
                                  json_shape(&rows[i]), "squeezed_shape", json_shape(&squeezed),
                                  "num_parameters", (json_int_t)tensor_count(&rows[i]), "form",
                                  show_form(squeezed.rank).text);
        json_array_append_new(layers, layer);
    }
    return layers;
}

static json_t *json_architecture(const struct vit_dims *dims)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "image_size", dims->S, "patch_size",
                     dims->P, "hidden_size", dims->C, "num_layers", dims->L, "num_heads", dims->NH,
                     "mlp_size", dims->M, "num_classes", dims->K);
}

static json_t *json_rgb(const float rgb[3])
{
    return json_pack("[f, f, f]", (double)rgb[0], (double)rgb[1], (double)rgb[2]);
}

static json_t *json_preprocess(const struct preprocess *recipe)
{
    const char *interpolation =
        recipe->interpolation == INTERPOLATION_BILINEAR ? "bilinear" : "bicubic";
    return json_pack("{s:i, s:i, s:s, s:o, s:o}", "resize", recipe->resize, "crop", recipe->crop,
                     "interpolation", interpolation, "mean", json_rgb(recipe->mean), "std",
                     json_rgb(recipe->std));
}

static json_t *json_runtime(const struct report_runtime *runtime, const struct vit_dims *dims)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:i, s:I, s:s, s:s}", "device", runtime->device,
                     "device_name", runtime->device_name, "precision", runtime->precision,
                     "weights_bytes", (json_int_t)runtime->weights_bytes, "max_batch",
                     runtime->max_batch, "flops_per_image", (json_int_t)vit_flops(dims),
                     "weights_source", runtime->weights_source, "version", runtime->version);
}

static enum status write_json(FILE *out, const struct catalog_entry *entry,
                              const struct report_runtime *runtime, const struct tensor_info *rows,
                              const struct totals *totals)
{
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:s, s:o, s:o, s:o, s:o}", "name", entry->name, "num_layers",
        (json_int_t)totals->layers, "num_parameters", (json_int_t)totals->parameters,
        "num_parameters_human", show_count(totals->parameters).text, "forms", json_forms(totals),
        "layers", json_layers(rows, totals->layers), "architecture",
        json_architecture(&entry->dims), "preprocess", json_preprocess(&entry->preprocess));
    if (runtime && json_object_set_new(root, "runtime", json_runtime(runtime, &entry->dims)) != 0) {
        json_decref(root); // a name of the device that is no UTF-8
        root = NULL;
    }
    char *text;
    TRY(json_print(root, JSON_COMPACT | JSON_REAL_PRECISION(7), &text)); // as many as a float has
    fprintf(out, "%s\n", text);
    free(text);
    return STATUS_OK;
}

enum status report_write(const struct catalog_entry *entry, const struct report_runtime *runtime,
                         enum report_format format, char **text)
{
    struct tensor_info *rows;
    size_t count, length;
    *text = NULL;
    TRY(vit_list_weights(&entry->dims, &rows, &count));
    const struct totals totals = add_up(rows, count);
    enum status status = STATUS_OK;
    FILE *stream = memory_open(text, &length);
    if (!stream) {
        status = memory_check("report", STATUS_OUT_OF_MEMORY);
        goto out;
    }
    switch (format) {
    case REPORT_TEXT:
        write_text(stream, entry->name, rows, &totals);
        break;
    case REPORT_JSON:
        status = write_json(stream, entry, runtime, rows, &totals);
        break;
    case REPORT_MARKDOWN:
        write_markdown(stream, entry->name, rows, &totals);
        break;
    case REPORT_SVG:
        write_svg(stream, entry->name, &totals);
        break;
    }
    fclose(stream);
    status = memory_check("report", status);
out:
    if (status != STATUS_OK) {
        free(*text);
        *text = NULL;
    }
    free(rows);
    return status;
}
