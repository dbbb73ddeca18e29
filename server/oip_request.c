#include "oip_request.h"
#include "json.h"
#include "oip_data.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

const char *oip_tensor_name(enum oip_tensor tensor)
{
    static const char *const names[OIP_TENSORS] = {
        [OIP_LOGITS] = "logits", [OIP_PROBABILITIES] = "probabilities"};
    return names[tensor];
}

enum { MAX_ID_BYTES = 256 };

// NULL where there is none. An optional member that is null is one that is not there: clients that
// dump a whole object write all of them.
static json_t *member(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

// ---- parameters ---------------------------------------------------------------------------------

// Those of a request, an input or an output; unknown ones are taken and passed over.
static enum status check_parameters(json_t *parameters, const char *where)
{
    static const char *const whole[] = {"timeout", "priority"};
    const char *name;
    json_t *value;
    if (parameters && !json_is_object(parameters))
        return status_fail(STATUS_BAD_REQUEST, "%s: parameters is not an object", where);
    json_object_foreach(parameters, name, value)
    {
        if (!json_is_string(value) && !json_is_number(value) && !json_is_boolean(value) &&
            !json_is_null(value))
            return status_fail(STATUS_BAD_REQUEST,
                               "%s: parameter \"%.64s\" is neither a string nor a number, true or "
                               "false",
                               where, name);
    }
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        value = member(parameters, whole[i]);
        if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
            return status_fail(STATUS_BAD_REQUEST, "%s: parameter \"%s\" is not a whole number",
                               where, whole[i]);
    }
    return STATUS_OK;
}

// *value stays as it is where there is no such parameter.
static enum status read_flag(json_t *parameters, const char *where, const char *name, bool *value)
{
    const json_t *flag = member(parameters, name);
    if (flag && !json_is_boolean(flag))
        return status_fail(STATUS_BAD_REQUEST, "%s: parameter \"%s\" is neither true nor false",
                           where, name);
    if (flag)
        *value = json_is_true(flag);
    return STATUS_OK;
}

// ---- outputs ------------------------------------------------------------------------------------

static enum status find_tensor(const json_t *object, const char *where, enum oip_tensor *tensor)
{
    const json_t *name = json_object_get(object, "name");
    if (!json_is_string(name))
        return status_fail(STATUS_BAD_REQUEST, "%s: there is no \"name\" that is a string", where);
    for (int i = 0; i < OIP_TENSORS; i++) {
        if (strcmp(json_string_value(name), oip_tensor_name((enum oip_tensor)i)) == 0) {
            *tensor = (enum oip_tensor)i;
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_BAD_REQUEST, "%s: \"%.64s\" is neither logits nor probabilities",
                       where, json_string_value(name));
}

static enum status read_output(const json_t *object, const char *where, int K,
                               struct oip_output *output)
{
    TRY(find_tensor(object, where, &output->tensor));
    json_t *parameters = member(object, "parameters");
    TRY(check_parameters(parameters, where));
    TRY(read_flag(parameters, where, "binary_data", &output->binary));
    const json_t *best = member(parameters, "classification");
    if (!best)
        return STATUS_OK;
    json_int_t count = json_integer_value(best); // 0 for what is none
    if (count < 1)
        return status_fail(STATUS_BAD_REQUEST,
                           "%s: parameter \"classification\" is not a whole number from 1", where);
    output->classification = count < K ? (int)count : K;
    return STATUS_OK;
}

static enum status read_outputs(const json_t *list, int K, bool binary, struct oip_request *request)
{
    if (list && !json_is_array(list))
        return status_fail(STATUS_BAD_REQUEST, "outputs is not a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        char where[32];
        snprintf(where, sizeof where, "outputs[%zu]", i);
        struct oip_output output = {.binary = binary};
        TRY(read_output(json_array_get(list, i), where, K, &output));
        for (int other = 0; other < request->n_outputs; other++)
            if (request->outputs[other].tensor == output.tensor)
                return status_fail(STATUS_BAD_REQUEST, "%s: %s is there already", where,
                                   oip_tensor_name(output.tensor));
        request->outputs[request->n_outputs++] = output;
    }
    for (int i = 0; i < OIP_TENSORS && json_array_size(list) == 0; i++)
        request->outputs[request->n_outputs++] =
            (struct oip_output){.tensor = (enum oip_tensor)i, .binary = binary};
    return STATUS_OK;
}

// ---- the input ----------------------------------------------------------------------------------

static enum status read_name_and_type(const json_t *object, struct oip_input *input)
{
    const char *name = json_string_value(json_object_get(object, "name"));
    const char *datatype = json_string_value(json_object_get(object, "datatype"));
    if (!name || !datatype)
        return status_fail(STATUS_BAD_REQUEST, "inputs[0]: there is no \"%s\" that is a string",
                           name ? "datatype" : "name");
    input->pixels = strcmp(name, "pixels") == 0;
    if (!input->pixels && strcmp(name, "image") != 0)
        return status_fail(STATUS_BAD_REQUEST, "inputs[0]: \"%.64s\" is neither image nor pixels",
                           name);
    const char *wanted = input->pixels ? "UINT8" : "BYTES";
    if (strcmp(datatype, wanted) != 0)
        return status_fail(STATUS_BAD_REQUEST, "%s: the datatype is %s, not \"%.64s\"", name,
                           wanted, datatype);
    return STATUS_OK;
}

static enum status read_shape(const json_t *list, const struct oip_source *source,
                              struct oip_input *input)
{
    const char *name = input->pixels ? "pixels" : "image";
    const int S = input->S, crop[] = {0, S, S, 3};
    size_t rank = json_array_size(list);
    bool right = input->pixels ? rank == 4 : rank == 1 || rank == 2;
    for (size_t i = 0; right && i < rank; i++) {
        const json_t *size = json_array_get(list, i);
        input->shape[i] = json_integer_value(size);
        right = json_is_integer(size) && input->shape[i] > 0 &&
                (i == 0 || input->shape[i] == (input->pixels ? crop[i] : 1));
    }
    if (!right && input->pixels)
        return status_fail(STATUS_BAD_REQUEST, "pixels: shape is not [n, %d, %d, 3]", S, S);
    if (!right)
        return status_fail(STATUS_BAD_REQUEST, "image: shape is neither [n] nor [n, 1]");
    input->rank = (int)rank;
    if ((uint64_t)input->shape[0] > source->length)
        return status_fail(STATUS_BAD_REQUEST,
                           "%s: shape[0] is %" PRId64 ", but the body has %zu bytes", name,
                           input->shape[0], source->length);
    if (input->shape[0] > source->max_images)
        return status_fail(STATUS_TOO_MANY_IMAGES,
                           "%s: %" PRId64 " images, but the limit is %d in one request", name,
                           input->shape[0], source->max_images);
    return STATUS_OK;
}

// binary_data_size says how much of the body behind the JSON is this tensor: all of it.
static enum status find_data(const json_t *object, struct oip_input *input)
{
    json_t *parameters = member(object, "parameters");
    TRY(check_parameters(parameters, "inputs[0]"));
    const json_t *size = member(parameters, "binary_data_size");
    // The null that stands for numbers is data.
    input->data = input->numbers.text ? json_object_get(object, "data") : member(object, "data");
    if (!size && !input->data)
        return status_fail(STATUS_BAD_REQUEST,
                           "inputs[0]: there is neither data nor binary_data_size");
    if (size && input->data)
        return status_fail(STATUS_BAD_REQUEST,
                           "inputs[0]: there are both data and binary_data_size");
    json_int_t bytes = size ? json_integer_value(size) : 0;
    if (bytes < 0 || (size && !json_is_integer(size)))
        return status_fail(STATUS_BAD_REQUEST,
                           "inputs[0]: parameter \"binary_data_size\" is not a whole number");
    if ((uint64_t)bytes != input->binary_length)
        return status_fail(STATUS_BAD_REQUEST,
                           "inputs[0]: its binary data are %" JSON_INTEGER_FORMAT
                           " bytes, but %zu follow the JSON",
                           bytes, input->binary_length);
    return STATUS_OK;
}

static enum status read_inputs(const json_t *list, const struct oip_source *source,
                               struct oip_input *input)
{
    if (!json_is_array(list))
        return status_fail(STATUS_BAD_REQUEST, "there is no \"inputs\" that is a list");
    if (json_array_size(list) != 1)
        return status_fail(STATUS_BAD_REQUEST,
                           "inputs: %zu of them, but exactly one is taken: image or pixels",
                           json_array_size(list));
    const json_t *object = json_array_get(list, 0);
    TRY(read_name_and_type(object, input));
    TRY(read_shape(json_object_get(object, "shape"), source, input));
    return find_data(object, input);
}

// ---- the request --------------------------------------------------------------------------------

static enum status read_id(const json_t *id, struct oip_request *request)
{
    if (!id)
        return STATUS_OK;
    if (!json_is_string(id))
        return status_fail(STATUS_BAD_REQUEST, "id is not a string");
    if (json_string_length(id) > MAX_ID_BYTES)
        return status_fail(STATUS_BAD_REQUEST, "id: %zu bytes, but at most %d are sent back",
                           json_string_length(id), MAX_ID_BYTES);
    request->id = strdup(json_string_value(id));
    return request->id ? STATUS_OK : status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
}

static enum status read_root(const json_t *root, const struct oip_source *source,
                             struct oip_input *input, struct oip_request *request)
{
    if (!json_is_object(root))
        return status_fail(STATUS_BAD_REQUEST, "json: the request is not an object");
    TRY(read_id(member(root, "id"), request));
    json_t *parameters = member(root, "parameters");
    bool binary = false;
    TRY(check_parameters(parameters, "request"));
    TRY(read_flag(parameters, "request", "binary_data_output", &binary));
    TRY(read_outputs(member(root, "outputs"), source->K, binary, request));
    TRY(read_inputs(json_object_get(root, "inputs"), source, input));
    return oip_data_read(input, request);
}

static enum status parse_text(const char *text, size_t length, const struct oip_source *source,
                              struct oip_input *input, struct oip_request *request)
{
    size_t memory_bytes;
    json_t *root = NULL;
    TRY(json_measure(text, length, &memory_bytes));
    TRY(budget_take(source->budget, (int64_t)memory_bytes));
    enum status status = json_parse(text, length, &root);
    if (status == STATUS_OK)
        status = read_root(root, source, input, request);
    json_decref(root);
    budget_give(source->budget, (int64_t)memory_bytes);
    return status;
}

// A list of numbers is left out of what the JSON library sees: null stands for it.
static enum status parse_json(size_t length, const struct oip_source *source,
                              struct oip_input *input, struct oip_request *request)
{
    static const char null[] = "null";
    const char *json = (const char *)source->bytes;
    struct oip_numbers *numbers = &input->numbers;
    TRY(oip_numbers_find(json, length, numbers));
    if (!numbers->text)
        return parse_text(json, length, source, input, request);
    size_t before = (size_t)(numbers->text - json), behind = length - before - numbers->length;
    size_t cut_length = before + strlen(null) + behind;
    TRY(budget_take(source->budget, (int64_t)cut_length));
    char *cut = malloc(cut_length);
    enum status status;
    if (!cut) {
        status = status_fail(STATUS_OUT_OF_MEMORY, "no memory for %zu bytes", cut_length);
    } else {
        memcpy(cut, json, before);
        memcpy(cut + before, null, strlen(null));
        memcpy(cut + before + strlen(null), numbers->text + numbers->length, behind);
        status = parse_text(cut, cut_length, source, input, request);
    }
    free(cut);
    budget_give(source->budget, (int64_t)cut_length);
    return status;
}

// The body is an encoded image and nothing else.
static enum status take_raw_image(const struct oip_source *source, struct oip_request *request)
{
    request->images = calloc(1, sizeof *request->images);
    if (!request->images)
        return status_fail(STATUS_OUT_OF_MEMORY, "request: out of memory");
    request->images[0].bytes = source->bytes;
    request->images[0].length = source->length;
    request->count = 1;
    return read_outputs(NULL, source->K, true, request);
}

static enum status read_json_length(const struct oip_source *source, size_t *length)
{
    const char *text = source->json_length;
    char *end;
    *length = source->length;
    if (!text)
        return STATUS_OK;
    unsigned long long value = strtoull(text, &end, 10); // the largest where there are too many
    if (*text < '0' || *text > '9' || *end)
        return status_fail(STATUS_BAD_REQUEST,
                           "Inference-Header-Content-Length: \"%.32s\" is not a whole number",
                           text);
    if (value > source->length)
        return status_fail(STATUS_BAD_REQUEST,
                           "Inference-Header-Content-Length: %.32s is more than the body's %zu "
                           "bytes",
                           text, source->length);
    *length = (size_t)value;
    return STATUS_OK;
}

enum status oip_request_parse(const struct oip_source *source, struct oip_request *request)
{
    size_t length;
    *request = (struct oip_request){.budget = source->budget};
    if (source->length == 0)
        return status_fail(STATUS_NO_IMAGE, "the body is empty");
    TRY(read_json_length(source, &length));
    struct oip_input input = {
        .S = source->S, .binary = source->bytes + length, .binary_length = source->length - length};
    enum status status = source->json_length && length == 0
                             ? take_raw_image(source, request)
                             : parse_json(length, source, &input, request);
    if (status != STATUS_OK)
        oip_request_release(request);
    return status;
}

void oip_request_release(struct oip_request *request)
{
    if (request->budget)
        budget_give(request->budget, request->charged);
    free(request->memory);
    free(request->images);
    free(request->id);
    *request = (struct oip_request){0};
}
