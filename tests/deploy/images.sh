#!/bin/sh
# Builds the images of docker/ with buildah, as root, without a registry: what they begin FROM is made
# here, Debian by debootstrap and the CUDA toolkit from /usr/local/cuda.
#
#   images.sh WORK [cpu|cuda]...
#
# All of it lies under WORK. For each image there is afterwards WORK/NAME.root, a link to its files,
# WORK/NAME.json, what it says of itself, and WORK/NAME.mb, its size over the base in MB.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p "$1"
work=$(cd "$1" && pwd)
shift

in_storage() { # COMMAND...: buildah's
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

have_image() {
    in_storage images -q "$1" >/dev/null 2>&1
}

# commit_directory NAME DIR: an image of one layer.
commit_directory() {
    container=$(in_storage from scratch)
    in_storage add -q "$container" "$2" /
    in_storage commit -q --format docker --rm "$container" "$1" >/dev/null
}

# Debian's own slim image leaves the same things out.
make_debian() {
    base=$work/debian
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
        'Codename: bookworm' | head -n 1)
    # shellcheck disable=SC2086
    debootstrap --variant=minbase bookworm "$base" $mirror >"$work/debootstrap.log" 2>&1 ||
        { tail "$work/debootstrap.log"; return 1; }
    (cd "$base" && rm -rf etc/apt/sources.list var/cache/apt/* var/lib/apt/lists/* var/log/* \
        usr/share/doc usr/share/man usr/share/locale)
    commit_directory debian:bookworm-slim "$base"
    rm -rf "$base"
}

# As much of the toolkit as a build needs.
make_cuda() { # IMAGE
    toolkit=$work/toolkit/usr/local/cuda
    mkdir -p "$toolkit/lib64"
    for part in bin include nvvm; do
        cp -a "/usr/local/cuda/$part" "$toolkit/"
    done
    cp -a /usr/local/cuda/lib64/libcublasLt.so* /usr/local/cuda/lib64/libcudart_static.a \
        /usr/local/cuda/lib64/libcudadevrt.a "$toolkit/lib64/"
    commit_directory "$1" "$work/toolkit"
    rm -rf "$work/toolkit"
}

# This machine's apt knows where its packages come from; the build borrows that, and nothing of it
# stays in the image.
build_image() { # NAME DOCKERFILE [OPTIONS]
    name=$1 file=$2
    shift 2
    echo "building $file" >&2
    in_storage rm "$name" >/dev/null 2>&1 || true # of the last time
    in_storage build --isolation chroot --network host --pull-never --format docker --layers=false \
        --volume /etc/apt:/etc/apt:ro "$@" -f "$file" -t "vitserve:$name" . >"$work/$name.log" 2>&1 ||
        { tail -n 40 "$work/$name.log"; return 1; }
    base=$(in_storage from --pull-never debian:bookworm-slim)
    container=$(in_storage from --pull-never --name "$name" "vitserve:$name")
    root=$(in_storage mount "$container")
    ln -sfn "$root" "$work/$name.root"
    in_storage inspect --type image "vitserve:$name" >"$work/$name.json"
    echo $(($(du -sm "$root" | cut -f1) - $(du -sm "$(in_storage mount "$base")" | cut -f1))) \
        >"$work/$name.mb"
    in_storage rm "$base" >/dev/null
    in_storage rmi --prune >/dev/null 2>&1 || true
    echo "vitserve:$name: $(cat "$work/$name.mb") MB over its base" >&2
}

have_image debian:bookworm-slim || make_debian
for name in "${@:-cpu}"; do
    case $name in
    cpu) build_image cpu docker/Dockerfile.cpu ;;
    cuda)
        toolkit_image=$(sed -n 's/^FROM \(.*\) AS cuda$/\1/p' docker/Dockerfile)
        have_image "$toolkit_image" || make_cuda "$toolkit_image"
        # For one kind of GPU: all of them take a quarter of an hour.
        build_image cuda docker/Dockerfile --build-arg CMAKE_OPTIONS=-DCUDA_ARCHITECTURES=90a
        ;;
    esac
done
