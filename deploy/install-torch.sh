#!/bin/sh
# Installs PyTorch: its CPU build where there is no NVIDIA driver, which is a tenth of the
# build with CUDA that PyPI has for Linux. Says which one it takes, why, and how large it is.
#
#   deploy/install-torch.sh PYTHON [REQUIREMENT]
#
#   TORCH_DEVICE  cpu or cuda; unset: cuda where a driver is found
#   TORCH_INDEX   package index of that build; unset: PyTorch's own for the CPU, else pip's
set -eu

python=$1
requirement=${2:-torch==2.13.0}
device=${TORCH_DEVICE:-}
why="TORCH_DEVICE is $device"
size="about 3 GB to download, 7.5 GB on disk"

if [ -z "$device" ]; then
    if [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ] \
        || nvidia-smi -L > /dev/null 2>&1; then
        device=cuda why="an NVIDIA driver was found"
    else
        device=cpu why="no NVIDIA driver was found"
    fi
fi
case $device in
    cpu) index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu} ;;
    cuda) index=${TORCH_INDEX:-} ;;
    *) echo "TORCH_DEVICE is $device; it can be cpu or cuda" >&2 && exit 2 ;;
esac
# Elsewhere than on Linux, PyPI has builds without CUDA only.
[ "$(uname -s)" = Linux ] || size="about 0.1 GB to download, 0.5 GB on disk"

# Prints why the index does not answer; nothing if it does. pip itself would try for minutes.
unreachable() {
    "$python" - "$1" <<'PYTHON'
import os
import ssl
import sys
import threading
import urllib.request

outcome = ["it does not answer within 8 s"]


def ask() -> None:
    try:
        context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
        request = urllib.request.Request(f"{sys.argv[1].rstrip('/')}/torch/")
        with urllib.request.urlopen(request, timeout=5, context=context) as response:
            response.read(1)
        outcome[0] = ""
    except Exception as error:
        outcome[0] = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__


# A name server that is silent is waited for beyond any timeout of the socket.
thread = threading.Thread(target=ask, daemon=True)
thread.start()
thread.join(8)
print(outcome[0], flush=True)
os._exit(0)
PYTHON
}

install() {
    "$python" -m pip install --disable-pip-version-check "$@" "$requirement"
}

if [ -n "$index" ]; then
    [ "$device" = cuda ] || size_here="about 0.2 GB to download, 0.8 GB on disk"
    reason=$(unreachable "$index")
    if [ -z "$reason" ]; then
        echo "==> PyTorch for $device from $index: $why (${size_here:-$size})"
        if install --index-url "$index" --timeout 30 --retries 2; then
            exit 0
        fi
        reason="$requirement could not be installed from it"
    fi
    echo "==> PyTorch from pip's default index ($size): $why, but $index cannot be used: $reason"
else
    echo "==> PyTorch from pip's default index ($size): $why"
fi
install
