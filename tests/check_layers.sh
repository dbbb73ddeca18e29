#!/bin/sh
# Who may include what, and one door per library. Prints every include that breaks a rule.
set -u
cd "$(dirname "$0")/.." || exit 2
broken=0

# rule TEXT FILES-REGEX FORBIDDEN-REGEX: no file of the first kind may include the second.
rule() {
    files=$(find server kernels include tests -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) | grep -E "$2")
    [ -n "$files" ] || { echo "no file matches $2"; broken=1; return; }
    # shellcheck disable=SC2086
    if grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]+[<\"]($3)" $files /dev/null; then
        echo "  ^ $1"
        broken=1
    fi
}
# only TEXT FILES-REGEX ALLOWED-REGEX: of the project's headers, such files include these alone.
only() {
    # shellcheck disable=SC2046
    if grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' $(find server kernels include -type f | grep -E "$2") |
        grep -vE "\"($3)\""; then
        echo "  ^ $1"
        broken=1
    fi
}
door() { # LIBRARY HEADER-REGEX FILES-REGEX: only these files may include the library
    found=$(grep -rlE "^[[:space:]]*#[[:space:]]*include[[:space:]]+[<\"]($2)" server kernels include | grep -vE "^($3)\$")
    if [ -n "$found" ]; then
        echo "$found"
        echo "  ^ $1 has another door: $3"
        broken=1
    fi
}

rule 'a public header includes no third-party header' '^include/' \
    'microhttpd|jansson|jpeglib|spng|zlib|webp|curl|cuda|cublas'
rule 'server/ knows neither kernels/ nor CUDA' '^server/' 'kernels|cuda|cublas'
only 'kernels/ knows backend.h and status.h beside its own' '^kernels/' \
    'backend\.h|status\.h|kernels\.h|numeric\.h|team\.h|vector\.h|[a-z_]+\.cuh'
rule 'http.c does not know the API' '^server/(http|http_request|http_values|listener|reception|peers)\.c' 'api|queue|model|vit|image'
rule 'the worker does not know HTTP' '^server/(worker|queue|vit|vit_weights)\.c' 'http|api|body'

door microhttpd microhttpd 'server/http(_request|_values)?\.c'
door libjpeg 'jpeglib|jerror' 'server/image_jpeg\.c'
door libspng spng 'server/image_png\.c'
door libwebp webp 'server/image_webp\.c'
door zlib zlib 'server/inflate\.c'
door jansson jansson \
    'server/(bench|body|catalog|config|healthcheck|json|oip(_[a-z]+)?|report|result|safetensors)\.c'
door libcurl curl 'server/download\.c'
door CUDA 'cuda|cublas' 'kernels/[a-z_]+\.(cu|cuh)'

exit $broken
