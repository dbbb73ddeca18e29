#!/bin/sh
# ./dev container-test: builds the images, then runs the tests of docker/ in networks of their own.
#
#   run.sh               everything
#   run.sh TEST...       these tests alone (test_balancers.HaproxyCase), on the images that are there
set -eu
cd "$(dirname "$0")"
WORK=${WORK:-$(cd ../.. && pwd)/build/deploy}
export WORK
[ "$(id -u)" = 0 ] || { echo "container-test needs root: it builds images and networks" >&2; exit 2; }
if [ $# = 0 ]; then
    sh images.sh "$WORK" cpu
    [ ! -x /usr/local/cuda/bin/nvcc ] || sh images.sh "$WORK" cuda
    /usr/bin/python3 -B -m unittest -v test_manifests test_service
    set -- test_images test_readme test_prometheus test_balancers test_memory
fi
exec unshare --mount --net --pid --fork --kill-child --mount-proc \
    /usr/bin/python3 -B -m unittest -v "$@"
