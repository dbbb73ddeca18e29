// What the formats share: which one it is, the limit on the pixels, the guard, and the turn that
// EXIF asks for. Upright pictures pass through row by row; of those to be turned the window is
// kept, and turned when it is full.

#include "image.h"
#include "image_format.h"
#include <stdlib.h>
#include <string.h>

// Of work between two looks at the guard: less than a millisecond.
enum { CHECKED_PIXELS = 1 << 16 };

// Of work that cannot be looked at: some ten milliseconds, which is not worth a word.
enum { UNWATCHED_PIXELS = 1 << 19 };

struct image_receiver {
    struct image_sink *sink;
    struct image_guard *guard; // NULL: none
    int64_t unchecked;         // pixels of work since it was asked
    bool apply_orientation;
    int orientation;   // 1: rows go straight to the sink
    struct image kept; // else: the window as the file stores it, of which `filled` rows have come
    int filled;
};

enum status image_check_size(const char *format, int64_t width, int64_t height,
                             const struct image_limits *limits)
{
    if (width < 1 || height < 1)
        return status_fail(STATUS_BAD_IMAGE, "%s: an empty picture", format);
    if (width > limits->max_pixels / height)
        return status_fail(STATUS_IMAGE_TOO_LARGE,
                           "%s: %lld x %lld pixels, the limit is %lld pixels", format,
                           (long long)width, (long long)height, (long long)limits->max_pixels);
    return STATUS_OK;
}

enum status image_admit(struct image_receiver *receiver, int64_t pixels, int64_t bytes)
{
    struct image_guard *guard = receiver->guard;
    return guard ? guard->admit(guard, pixels, bytes) : STATUS_OK;
}

enum status image_check(struct image_receiver *receiver, int64_t pixels)
{
    struct image_guard *guard = receiver->guard;
    receiver->unchecked += pixels;
    if (!guard || receiver->unchecked < CHECKED_PIXELS)
        return STATUS_OK;
    receiver->unchecked = 0;
    return guard->check(guard);
}

enum status image_unwatched(struct image_receiver *receiver, int64_t pixels)
{
    struct image_guard *guard = receiver->guard;
    return guard && pixels > UNWATCHED_PIXELS ? guard->unwatched(guard) : STATUS_OK;
}

// Within the limit, as image_check_size() has it.
static enum status image_allocate(struct image *image, int width, int height)
{
    *image = (struct image){.width = width, .height = height};
    image->rgb = reallocarray(NULL, (size_t)width * (size_t)height, 3);
    if (!image->rgb)
        return status_fail(STATUS_OUT_OF_MEMORY, "no memory for %d x %d pixels", width, height);
    return STATUS_OK;
}

static uint8_t *image_row(const struct image *image, int y)
{
    return image->rgb + (size_t)y * (size_t)image->width * 3;
}

static void image_append(const struct image *image, int *filled, const uint8_t *const *rows,
                         int count)
{
    for (int i = 0; i < count; i++)
        memcpy(image_row(image, (*filled)++), rows[i], (size_t)image->width * 3);
}

static bool exchanges(int orientation) // rows and columns
{
    return orientation >= 5;
}

static bool mirrors_x(int orientation) // of the picture as it is stored
{
    return orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
}

static bool mirrors_y(int orientation)
{
    return orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
}

static int divide_up(int a, int b)
{
    return a / b + (a % b != 0);
}

// A window of the upright picture, where it lies in the picture as it is stored.
static struct image_window stored_window(struct image_window window, const struct image_size *size,
                                         int orientation)
{
    if (exchanges(orientation))
        window = (struct image_window){window.top, window.left, window.height, window.width};
    if (mirrors_x(orientation))
        window.left = divide_up(size->width, size->reduction) - window.left - window.width;
    if (mirrors_y(orientation))
        window.top = divide_up(size->height, size->reduction) - window.top - window.height;
    return window;
}

bool image_turns(const struct image_receiver *receiver, int orientation)
{
    return receiver->apply_orientation && orientation != 1;
}

enum status image_begin(struct image_receiver *receiver, const struct image_size *size,
                        int orientation, struct image_window *window)
{
    struct image_size upright = *size;
    receiver->orientation = image_turns(receiver, orientation) ? orientation : 1;
    if (exchanges(receiver->orientation))
        upright = (struct image_size){size->height, size->width, size->reduction};
    TRY(receiver->sink->begin(receiver->sink, &upright, window));
    *window = stored_window(*window, size, receiver->orientation);
    if (receiver->orientation != 1)
        TRY(image_allocate(&receiver->kept, window->width, window->height));
    return STATUS_OK;
}

void image_rows(struct image_receiver *receiver, const uint8_t *const *rows, int count)
{
    if (receiver->orientation == 1)
        receiver->sink->rows(receiver->sink, rows, count);
    else
        image_append(&receiver->kept, &receiver->filled, rows, count);
}

// Turns and mirrors the picture upright.
static enum status image_turn(struct image_receiver *receiver, struct image *image, int orientation)
{
    enum { TILE = 64 }; // columns of the source read as rows: a tile of them stays in the cache
    bool exchange = exchanges(orientation);
    int width = exchange ? image->height : image->width;
    int height = exchange ? image->width : image->height;
    ptrdiff_t along_x = mirrors_x(orientation) ? -3 : 3; // to the right, as the file stores it
    ptrdiff_t along_y = (mirrors_y(orientation) ? -3 : 3) * (ptrdiff_t)image->width;
    ptrdiff_t step_x = exchange ? along_y : along_x; // the same, as it is looked at
    ptrdiff_t step_y = exchange ? along_x : along_y;

    struct image turned;
    TRY(image_allocate(&turned, width, height));
    const uint8_t *origin = image->rgb;
    origin += along_x < 0 ? 3 * ((ptrdiff_t)image->width - 1) : 0;
    origin += along_y < 0 ? 3 * (ptrdiff_t)image->width * ((ptrdiff_t)image->height - 1) : 0;
    enum status status = STATUS_OK;
    for (int left = 0; left < width && status == STATUS_OK; left += TILE) {
        int right = left + TILE < width ? left + TILE : width;
        for (int y = 0; y < height; y++) {
            uint8_t *to = image_row(&turned, y) + (size_t)left * 3;
            for (int x = left; x < right; x++, to += 3)
                memcpy(to, origin + x * step_x + y * step_y, 3);
        }
        status = image_check(receiver, (int64_t)(right - left) * height);
    }
    image_release(image);
    *image = turned;
    return status;
}

enum status image_rows_of(struct image_receiver *receiver, const struct image *image,
                          const struct image_window *window)
{
    for (int y = 0, count; y < window->height; y += count) {
        const uint8_t *rows[IMAGE_ROWS];
        for (count = 0; count < IMAGE_ROWS && y + count < window->height; count++)
            rows[count] = image_row(image, window->top + y + count) + (size_t)window->left * 3;
        image_rows(receiver, rows, count);
        TRY(image_check(receiver, (int64_t)count * window->width));
    }
    return STATUS_OK;
}

static enum status send_turned(struct image_receiver *receiver)
{
    TRY(image_turn(receiver, &receiver->kept, receiver->orientation));
    receiver->orientation = 1;
    struct image_window all = {.width = receiver->kept.width, .height = receiver->kept.height};
    return image_rows_of(receiver, &receiver->kept, &all);
}

enum status image_read(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                       struct image_sink *sink)
{
    static const uint8_t jpeg_start[] = {0xff, 0xd8, 0xff};
    static const uint8_t png_start[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    if (length == 0)
        return status_fail(STATUS_UNSUPPORTED_IMAGE, "empty; JPEG, PNG and WebP are supported");

    enum status status;
    struct image_receiver receiver = {
        .sink = sink, .guard = limits->guard, .apply_orientation = limits->apply_orientation};
    if (length >= sizeof jpeg_start && memcmp(bytes, jpeg_start, sizeof jpeg_start) == 0)
        status = image_read_jpeg(bytes, length, limits, &receiver, sink->shortest);
    else if (length >= sizeof png_start && memcmp(bytes, png_start, sizeof png_start) == 0)
        status = image_read_png(bytes, length, limits, &receiver);
    else if (length >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0)
        status = image_read_webp(bytes, length, limits, &receiver);
    else
        return status_fail(STATUS_UNSUPPORTED_IMAGE,
                           "not a format we know; JPEG, PNG and WebP are supported");
    if (status == STATUS_OK && receiver.orientation != 1)
        status = send_turned(&receiver);
    image_release(&receiver.kept);
    return status;
}

enum status image_send(const struct image *image, struct image_sink *sink)
{
    struct image_receiver receiver = {.sink = sink};
    struct image_size size = {image->width, image->height, 1};
    struct image_window window;
    TRY(image_begin(&receiver, &size, 1, &window));
    return image_rows_of(&receiver, image, &window);
}

// ---- image_decode: a sink that keeps everything

struct keeper {
    struct image_sink sink; // first: what the functions get is the keeper
    struct image *image;
    int filled;
};

static enum status keeper_begin(struct image_sink *sink, const struct image_size *size,
                                struct image_window *window)
{
    struct keeper *keeper = (struct keeper *)sink;
    *window = (struct image_window){.width = size->width, .height = size->height};
    return image_allocate(keeper->image, size->width, size->height);
}

static void keeper_rows(struct image_sink *sink, const uint8_t *const *rows, int count)
{
    struct keeper *keeper = (struct keeper *)sink;
    image_append(keeper->image, &keeper->filled, rows, count);
}

enum status image_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                         struct image *image)
{
    struct keeper keeper = {.sink = {.begin = keeper_begin, .rows = keeper_rows}, .image = image};
    *image = (struct image){0};
    enum status status = image_read(bytes, length, limits, &keeper.sink);
    if (status != STATUS_OK)
        image_release(image);
    return status;
}

void image_release(struct image *image)
{
    free(image->rgb);
    *image = (struct image){0};
}
