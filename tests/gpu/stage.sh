#!/bin/sh
# stage.sh [DIR]: builds, on a machine with nvcc, all that run.sh needs on a bare machine with a GPU,
# into DIR (default build-gpu/stage): the programs, the module for sm_90a alone, the libraries that
# a machine without our packages lacks, goldens. Copy DIR there as it is; at most 50 MiB.
# EMULATED=1 puts the emulated module in the GPU's place, to try run.sh where there is none.
set -eu
cd "$(dirname "$0")/../.."
build=build-gpu
stage=${1:-$build/stage}

# DT_RPATH, unlike RUNPATH, holds for the libraries' own libraries too.
cmake -S . -B $build -G Ninja -DCUDA_ARCHITECTURES=90a "-DCMAKE_BUILD_RPATH=\$ORIGIN/lib" \
    -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags >$build.log || { cat $build.log; exit 1; }
programs="vitserve tests/test_kernels tests/test_vit tests/bench_kernels tests/load
    tests/gpu_batches"
# shellcheck disable=SC2046
cmake --build $build --target vitserve_cuda gpu_probe ${EMULATED:+vitserve_cuda_emulated} \
    $(for program in $programs; do basename "$program"; done)

rm -rf "$stage"
mkdir -p "$stage/lib" "$stage/golden" "$stage/e2e"
for program in $programs vitserve_cuda.so tests/gpu_probe; do
    strip -g -o "$stage/$(basename "$program")" "$build/$program"
done
if [ -n "${EMULATED:-}" ]; then
    strip -g -o "$stage/vitserve_cuda.so" $build/tests/emulator/vitserve_cuda.so
    touch "$stage/emulated"
fi
for program in $programs; do
    ldd "$build/$program"
done | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -Ev '/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.so' |
    xargs -I{} cp -L {} "$stage/lib/"
cp -r tests/golden/networks "$stage/golden/"
cp tests/e2e/vitserve.py "$stage/e2e/"
for file in run.sh server.py table.py torch_bench.py; do
    cp "tests/gpu/$file" "$stage/"
done
cp config/demo/samples/red-sneaker.jpg "$stage/photo.jpg"
shared=${VITSERVE_SHARED:-../shared}/data
if [ -d "$shared" ]; then
    mkdir "$stage/data"
    cp -r "$shared/photos" "$shared/golden_deit_tiny.json" "$shared"/*.safetensors "$stage/data/"
    cp "$shared/photos/084_peacock__peacock-90051_640.jpg" "$stage/photo.jpg"
else
    echo "no $shared: run.sh will skip the photos"
fi
git describe --always --dirty >"$stage/commit"
size=$(du -sm "$stage" | cut -f1)
echo "$stage: $size MiB"
[ "$size" -le 50 ]
