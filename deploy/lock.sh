#!/bin/sh
# Writes deploy/locks/: the versions and hashes of all that the image installs. Run it after a
# change of pyproject.toml's dependencies, and to take newer releases (then with --upgrade).
#
#   deploy/lock.sh [UV] [--upgrade]
#
# requirements.txt       all but PyTorch
# requirements-cuda.txt  PyTorch's build with CUDA from PyPI, and NVIDIA's libraries
#
# PyTorch's CPU build is in neither: its index is another, and deploy/install-torch.sh installs
# the pinned release from there.
set -eu
cd "$(dirname "$0")"

uv=${1:-uv}
[ $# -eq 0 ] || shift
extras=$(sed -n 's/^ARG EXTRAS=//p' Dockerfile)
torch=$(sed -n 's/^ARG TORCH=//p' Dockerfile)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$torch" > "$work/torch.txt"
# What is there stays, unless --upgrade is given or pyproject.toml refuses it.
cat locks/requirements.txt locks/requirements-cuda.txt > "$work/all.txt" 2> /dev/null || true
set -- "$@" $(echo "$extras" | tr , '\n' | sed 's/^/--extra=/')
# Wheels only, for both platforms: nothing is compiled in the image.
for platform in aarch64 x86_64; do
    "$uv" pip compile ../pyproject.toml "$@" --constraint "$work/torch.txt" --quiet \
        --python-version 3.11 --python-platform "$platform-unknown-linux-gnu" \
        --only-binary :all: --generate-hashes --no-header --no-annotate --no-emit-index-url \
        --output-file "$work/all.txt" > /dev/null
    cp "$work/all.txt" "$work/$platform.txt"
done
cmp -s "$work/aarch64.txt" "$work/x86_64.txt" \
    || { echo "the platforms need different packages: lock them apart" >&2 && exit 1; }

mkdir -p locks
note="# Written by deploy/lock.sh from pyproject.toml."
awk -v note="$note" -v common=locks/requirements.txt -v cuda=locks/requirements-cuda.txt '
    BEGIN { print note > common; print note > cuda }
    /^[a-z]/ { out = /^(torch|triton|nvidia-|cuda-)/ ? cuda : common }
    { print > out }
' "$work/all.txt"
