// See include/pages.h. The build defines PAGES_HASH, a hash of all files of server/web/.

#include "pages.h"
#include "assets.h"
#include <stddef.h>
#include <string.h>

#define PAGE(path, content_type, asset)                                                            \
    {                                                                                              \
        path, content_type, asset_##asset, asset_##asset##_end, "\"" PAGES_HASH "\""               \
    }

static const struct page pages[] = {
    PAGE("/", "text/html; charset=utf-8", index_html),
    PAGE("/style.css", "text/css; charset=utf-8", style_css),
    PAGE("/app.js", "text/javascript; charset=utf-8", app_js),
    PAGE("/favicon.svg", "image/svg+xml", favicon_svg),
    PAGE("/openapi.json", "application/json", openapi_json),
};

const struct page *page_find(const char *path)
{
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (strcmp(pages[i].path, path) == 0)
            return &pages[i];
    return NULL;
}
