// Puts files of config/ and server/ into the binary's read-only data, for include/assets.h. The
// build passes both with -I, where .incbin looks them up.
#define ASSET(name, path)                                                                          \
    .global asset_##name, asset_##name##_end;                                                      \
    .balign 64;                                                                                    \
    asset_##name: .incbin path;                                                                    \
    asset_##name##_end: .byte 0

    .section .rodata
    ASSET(models_json, "models.json")
    ASSET(imagenet1k_txt, "imagenet1k.txt")
    ASSET(fashion_vit_safetensors, "demo/fashion_vit.safetensors")
    ASSET(fashion_vit_labels_txt, "demo/labels.txt")
    ASSET(index_html, "web/index.html")
    ASSET(style_css, "web/style.css")
    ASSET(app_js, "web/app.js")
    ASSET(favicon_svg, "web/favicon.svg")
    ASSET(openapi_json, "openapi.json")

    .section .note.GNU-stack,"",@progbits
