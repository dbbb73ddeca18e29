#pragma once
// Files of config/ and server/ that are part of the binary (server/assets.S puts them there).

extern const char asset_models_json[], asset_models_json_end[];
extern const char asset_imagenet1k_txt[], asset_imagenet1k_txt_end[];
extern const char asset_fashion_vit_safetensors[], asset_fashion_vit_safetensors_end[];
extern const char asset_fashion_vit_labels_txt[], asset_fashion_vit_labels_txt_end[];
extern const char asset_index_html[], asset_index_html_end[];
extern const char asset_style_css[], asset_style_css_end[];
extern const char asset_app_js[], asset_app_js_end[];
extern const char asset_favicon_svg[], asset_favicon_svg_end[];
extern const char asset_openapi_json[], asset_openapi_json_end[];
