#!/bin/sh
# Removes from a virtual environment what serving never imports: headers and static libraries to
# build extensions with, programs and data of tests, Ray's Java and its reinforcement learning.
#
#   deploy/slim.sh VENV
set -eu

packages=$(echo "$1"/lib/python3*/site-packages)
before=$(du -sm "$packages" | cut -f1)
cd "$packages"
# PyTorch starts this one.
[ ! -d torch/bin ] || find torch/bin -type f ! -name torch_shm_manager -delete
rm -rf torch/include torch/share torch/test
rm -rf ray/jars ray/rllib ray/cpp ray/include
rm -rf pyarrow/include pyarrow/tests pyarrow/src
rm -rf onnx/backend/test onnx/test pandas/tests matplotlib/tests sympy/*/tests sympy/*/*/tests
find . -name '*.a' -type f -delete
echo "slim.sh: $before MB before, $(du -sm "$packages" | cut -f1) MB after"
