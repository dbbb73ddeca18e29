#include "oip_response.h"
#include "json.h"
#include "memory.h"
#include "postprocess.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What an output is made of, and room for that.
struct writer {
    const struct oip_answer *answer;
    int K;
    float *probabilities;   // (K)
    struct prediction *top; // (K)
    FILE *json, *binary;
    char *binary_bytes; // what went to the stream
    size_t binary_length;
    bool failed; // out of memory
};

static void write_text(struct writer *writer, const char *text)
{
    char *string;
    if (json_print(json_string(text), JSON_ENCODE_ANY, &string) == STATUS_OK) {
        fputs(string, writer->json);
        free(string);
    } else {
        writer->failed = true;
    }
}

// ---- the elements of a tensor, for one image ----------------------------------------------------

// Nine digits name every float exactly. Without a point, -0 would be an integer, which has no sign.
static void write_number(struct writer *writer, float value)
{
    char text[32];
    snprintf(text, sizeof text, isfinite(value) ? "%.9g" : "null", (double)value);
    bool integer = text[strspn(text, "-0123456789")] == '\0';
    fprintf(writer->json, integer ? "%s.0" : "%s", text);
}

static void write_numbers(struct writer *writer, const float *values, bool binary, bool first)
{
    if (binary) { // the machine's order, which is the lowest byte first, as the protocol wants it
        fwrite(values, sizeof *values, (size_t)writer->K, writer->binary);
        return;
    }
    for (int i = 0; i < writer->K; i++) {
        if (!first || i > 0)
            fputc(',', writer->json);
        write_number(writer, values[i]);
    }
}

static void write_binary_text(struct writer *writer, const char *text, size_t length)
{
    for (int shift = 0; shift < 32; shift += 8)
        fputc((int)(length >> shift & 0xff), writer->binary);
    fwrite(text, 1, length, writer->binary);
}

// "value:index:label" of the best classes.
static void write_best(struct writer *writer, const float *values, const struct oip_output *output,
                       bool first)
{
    postprocess_top_k(values, writer->K, output->classification, writer->top);
    for (int i = 0; i < output->classification; i++) {
        int index = writer->top[i].class_index;
        char *text;
        int length = asprintf(&text, "%.9g:%d:%s", (double)values[index], index,
                              labels_name(writer->answer->labels, index));
        if (length < 0) {
            writer->failed = true;
            return;
        }
        if (!output->binary && (!first || i > 0))
            fputc(',', writer->json);
        if (output->binary)
            write_binary_text(writer, text, (size_t)length);
        else
            write_text(writer, text);
        free(text);
    }
}

static void write_elements(struct writer *writer, const struct oip_output *output)
{
    for (int i = 0; i < writer->answer->request->count; i++) {
        const float *values = writer->answer->results[i].logits;
        if (output->tensor == OIP_PROBABILITIES) {
            postprocess_softmax(values, writer->K, writer->probabilities);
            values = writer->probabilities;
        }
        if (output->classification > 0)
            write_best(writer, values, output, i == 0);
        else
            write_numbers(writer, values, output->binary, i == 0);
    }
}

static void close_stream(FILE *stream)
{
    if (stream)
        fclose(stream);
}

// ---- the answer ---------------------------------------------------------------------------------

static void write_output(struct writer *writer, const struct oip_output *output)
{
    bool best = output->classification > 0;
    fprintf(writer->json, "{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[%d,%d],",
            oip_tensor_name(output->tensor), best ? "BYTES" : "FP32",
            writer->answer->request->count, best ? output->classification : writer->K);
    if (output->binary) {
        size_t start = writer->binary_length;
        write_elements(writer, output);
        fflush(writer->binary);
        fprintf(writer->json, "\"parameters\":{\"binary_data_size\":%zu}}",
                writer->binary_length - start);
    } else {
        fputs("\"data\":[", writer->json);
        write_elements(writer, output);
        fputs("]}", writer->json);
    }
}

static void write_json(struct writer *writer)
{
    const struct oip_request *request = writer->answer->request;
    fputs("{\"model_name\":", writer->json);
    write_text(writer, writer->answer->entry->name);
    fputs(",\"model_version\":\"1\",", writer->json);
    if (request->id) {
        fputs("\"id\":", writer->json);
        write_text(writer, request->id);
        fputc(',', writer->json);
    }
    fputs("\"outputs\":[", writer->json);
    for (int i = 0; i < request->n_outputs; i++) {
        if (i > 0)
            fputc(',', writer->json);
        write_output(writer, &request->outputs[i]);
    }
    fputs("]}", writer->json);
}

enum status oip_response_write(const struct oip_answer *answer, struct oip_body *body)
{
    size_t classes = (size_t)answer->entry->dims.K;
    *body = (struct oip_body){0};
    struct writer writer = {.answer = answer, .K = answer->entry->dims.K};
    writer.probabilities = memory_allocate(sizeof *writer.probabilities * classes);
    writer.top = memory_allocate(sizeof *writer.top * classes);
    writer.json = memory_open(&body->bytes, &body->length);
    writer.binary = memory_open(&writer.binary_bytes, &writer.binary_length);
    if (writer.probabilities && writer.top && writer.json && writer.binary) {
        write_json(&writer);
        fflush(writer.json);
        body->json_length = body->length;
        fflush(writer.binary);
        if (writer.binary_length > 0)
            fwrite(writer.binary_bytes, 1, writer.binary_length, writer.json);
    }
    close_stream(writer.json);
    close_stream(writer.binary);
    free(writer.binary_bytes);
    free(writer.top);
    free(writer.probabilities);
    enum status status = memory_check("answer", writer.failed ? STATUS_OUT_OF_MEMORY : STATUS_OK);
    if (status != STATUS_OK) {
        free(body->bytes);
        *body = (struct oip_body){0};
    }
    return status;
}
