#!/usr/bin/env bash
# Gets what the tests in tests/deploy need into a directory:
#   DIR/bin    etcd, kube-apiserver     export KUBEBUILDER_ASSETS=DIR/bin
#   DIR/crds   KubeRay's definitions    export KUBERAY_CRDS=DIR/crds
#
# usage: deploy/testing/get-kube.sh DIR [download|debian|debian-node]
#
# `download` (the default) takes the binaries that controller-runtime's envtest uses.
# `debian` builds kube-apiserver from the source package of Debian 12 with apt alone, for
# sites whose only mirror is Debian's; it takes about ten minutes and 1.5 GB of memory.
# `debian-node` builds kubelet and the rest of a node too, for tests/e2e (make e2e).
# Either way the server must know tokens from a file and RBAC, which all versions do.
set -euo pipefail

target=$(mkdir -p "${1:?usage: get-kube.sh DIR [download|debian|debian-node]}" && cd "$1" && pwd)
way=${2:-download}
kuberay=v1.7.0
kubernetes=1.34.1
mkdir -p "$target/bin" "$target/crds"

# The files of the release by their hash, so that a moved tag is noticed: filled at the
# first run, compared at every other. Commit a copy to pin it for a team.
lock=$target/SHA256SUMS

fetch() { # url file
    curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"
}

check() { # file
    local name=${1#"$target/"} sum
    sum=$(sha256sum "$1" | cut -d' ' -f1)
    if [ -f "$lock" ] && grep -q "  $name\$" "$lock"; then
        grep -q "^$sum  $name\$" "$lock" || { echo "$name has changed: $sum" >&2; exit 1; }
    else
        echo "$sum  $name" >> "$lock"
    fi
}

get_crds() {
    local base=https://raw.githubusercontent.com/ray-project/kuberay/$kuberay
    for kind in rayclusters rayservices rayjobs raycronjobs; do
        local file=$target/crds/ray.io_$kind.yaml
        fetch "$base/helm-chart/kuberay-operator/crds/ray.io_$kind.yaml" "$file"
        check "$file"
    done
}

get_binaries() {
    local base=https://github.com/kubernetes-sigs/controller-tools/releases/download
    local name=envtest-v$kubernetes-linux-amd64.tar.gz
    fetch "$base/envtest-v$kubernetes/$name" "$target/$name"
    fetch "$base/envtest-v$kubernetes/$name.sha512" "$target/$name.sha512"
    (cd "$target" && echo "$(cut -d' ' -f1 "$name.sha512")  $name" | sha512sum --check --quiet)
    tar --extract --gzip --file "$target/$name" --directory "$target/bin" --strip-components=2
    rm "$target/$name" "$target/$name.sha512"
}

build_from_debian() { # programs
    local programs=("$@")
    local work=$target/build root=$target/build/root
    mkdir -p "$work/debs" "$root" "$work/source" "$work/apt/lists/partial" \
        "$work/apt/cache/archives/partial" "$work/apt/sources"
    # Unpacked, not installed: nothing is started and nothing on this machine changes.
    (cd "$work/debs" && apt-get download golang-1.19-go golang-1.19-src etcd-server rsync \
        libpopt0 libxxhash0 golang-github-modern-go-reflect2-dev)
    for package in "$work"/debs/*.deb; do dpkg --extract "$package" "$root"; done
    get_debian_source "$work"
    # The vendored reflect2 1.0.1 reads maps wrongly when built with Go 1.18 or newer, and
    # the server crashes at its first custom object; Debian has 1.0.2.
    local vendored=$work/source/kubernetes/vendor/github.com/modern-go/reflect2
    rm -rf "${vendored:?}"/*
    cp "$root"/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$vendored/"
    (
        cd "$work/source/kubernetes"
        mkdir -p .gopath/src/k8s.io
        ln -sfn ../../.. .gopath/src/k8s.io/kubernetes
        export GOROOT=$root/usr/lib/go-1.19 GOPATH=$PWD/.gopath HOME=$work
        export GO111MODULE=off GOPROXY=off CGO_ENABLED=0
        export PATH=$GOROOT/bin:$root/usr/bin:$PATH LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu
        export KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=clean
        export KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20
        make WHAT="${programs[*]/#/cmd/}" GOFLAGS=-tags=providerless,dockerless
        for program in "${programs[@]}"; do
            cp "_output/local/bin/linux/amd64/$program" "$target/bin/"
        done
    )
    cp "$root/usr/bin/etcd" "$target/bin/"
    rm -rf "$work"
}

get_debian_source() { # work
    local mirror
    mirror=$(awk '/^URIs:/ && $2 ~ /\/debian\/?$/ {print $2; exit}' \
        /etc/apt/sources.list.d/debian.sources)
    cat > "$1/apt/sources/source.sources" <<SOURCES
Types: deb-src
URIs: $mirror
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    cat > "$1/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$1/apt/sources";
Dir::State::lists "$1/apt/lists";
Dir::Cache "$1/apt/cache";
CONF
    (
        export APT_CONFIG=$1/apt/apt.conf
        apt-get update -qq
        cd "$1/source"
        apt-get source -qq --download-only kubernetes
        dpkg-source --no-check --extract ./*.dsc kubernetes
    )
}

get_crds
case $way in
    download) get_binaries ;;
    debian) build_from_debian kube-apiserver ;;
    debian-node)
        build_from_debian kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet
        ;;
    *) echo "none of download, debian, debian-node: $way" >&2; exit 2 ;;
esac
echo "export KUBEBUILDER_ASSETS=$target/bin KUBERAY_CRDS=$target/crds"
