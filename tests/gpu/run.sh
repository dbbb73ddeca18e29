#!/bin/sh
# Everything that only a GPU can tell, in one call: correctness of every op and network, the
# sanitizer's tools, speed beside PyTorch, and the server end to end. Usage:
#   tests/gpu/run.sh [OUT]     default OUT: tests/gpu/results/DATE-COMMIT
# Uses the programs in $BUILD (default: build), building them first where cmake is found. On a bare
# machine carry the build folder and the libraries it needs ($LIBS, put on the library path).
set -u
cd "$(dirname "$0")/../.." || exit 2
build=${BUILD:-build}
out=${1:-tests/gpu/results/$(date +%Y-%m-%d)-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
model=vit_b_32
batches=1,2,4,8,16,28,32,56,64,112,128,224,256
failed=0
[ -z "${LIBS:-}" ] || export LD_LIBRARY_PATH="$LIBS${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

if [ -z "${NO_BUILD:-}" ] && command -v cmake >/dev/null; then
    cmake -S . -B "$build" -G Ninja -DWITH_CUDA=ON >/dev/null && cmake --build "$build" || exit 1
fi
for program in vitserve vitserve_cuda.so tests/test_kernels tests/test_vit tests/bench_kernels; do
    [ -e "$build/$program" ] || { echo "no $build/$program: build first"; exit 1; }
done
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
    echo "no GPU here: everything up to this point is in place"
    exit 77
fi
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv | tee "$out/gpu.csv"

# The programs look for the module beside themselves.
for program in test_kernels test_vit bench_kernels; do
    cp "$build/tests/$program" "$build/$program"
done

# step NAME COMMAND...: runs it, keeps what it prints, counts a failure.
step() {
    name=$1
    shift
    echo "== $name"
    if timeout 400 "$@" >"$out/$name.txt" 2>&1; then
        tail -n 3 "$out/$name.txt"
    else
        echo "FAILED ($?)"
        tail -n 20 "$out/$name.txt"
        failed=$((failed + 1))
    fi
}

step kernels "$build/test_kernels" cuda
step networks "$build/test_vit" cuda
for precision in bf16 fp16 tf32 fp32; do
    echo "== bench $precision"
    "$build/vitserve" bench --device cuda --model $model --random-weights 1 --batch $batches \
        --seconds 1 --precision $precision --json >"$out/bench_$precision.json" ||
        failed=$((failed + 1))
done
for batch in 1 64 256; do
    step "breakdown_$batch" "$build/bench_kernels" cuda bf16 $model $batch
done
step end_to_end python3 tests/gpu/end_to_end.py "$build/vitserve"
if python3 -c 'import torch, torchvision' 2>/dev/null; then
    echo "== torch"
    timeout 500 python3 tests/gpu/torch_bench.py $model $batches >"$out/torch.json" 2>"$out/torch.txt" ||
        echo "torch did not finish: see torch.txt"
fi
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
if [ -x "$sanitizer" ]; then
    step memcheck "$sanitizer" --tool memcheck --error-exitcode 9 "$build/test_vit" cuda
    step racecheck "$sanitizer" --tool racecheck --error-exitcode 9 "$build/test_vit" cuda
else
    echo "no compute-sanitizer on this machine" | tee "$out/memcheck.txt"
fi
python3 tests/gpu/table.py "$out" | tee "$out/table.md"
echo "$failed steps failed; results in $out"
[ "$failed" = 0 ]
