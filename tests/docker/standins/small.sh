# Sourced by the recipes of small images: a root folder with busybox's shell and wget, which is what a health check can
# count on in the official images, and one server. Nothing else, so that nothing else can be relied on.
# shellcheck shell=bash
set -euo pipefail
umask 022

# fetch PACKAGE FOLDER: unpacks Debian's package, from Debian 13 where .ci/engine made that known
# (not grep -q: it would end apt-cache by a broken pipe, which counts as a failure here)
fetch() {
    local package=$1 folder=$2 wanted=$1
    apt-cache madison "$package" | grep trixie >/dev/null && wanted=$package/trixie
    mkdir -p "$folder"
    (cd "$folder" && apt-get download -q "$wanted" && dpkg-deb -x ./*.deb . && rm ./*.deb)
}

# small_root FOLDER
small_root() {
    local root=$1 applet
    mkdir -p "$root"/{bin,etc,tmp,usr/local/bin}
    chmod 1777 "$root/tmp"
    fetch busybox-static "$root.busybox"
    install -m 755 "$root.busybox/bin/busybox" "$root/bin/busybox" 2>/dev/null ||
        install -m 755 "$root.busybox/usr/bin/busybox" "$root/bin/busybox"
    for applet in sh wget cat ls mkdir chmod chown id sleep; do ln -s busybox "$root/bin/$applet"; done
    printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
}

# put_program PROGRAM DESTINATION ROOT: the program with the libraries that it is linked to
put_program() {
    local program=$1 destination=$2 root=$3 library
    install -D -m 755 "$program" "$root$destination"
    ldd "$program" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
        install -D -m 755 "$(readlink -f "$library")" "$root$library"
    done || true # a static program has none
}

# build_small IMAGE WORK: the Dockerfile beside the recipe, on WORK/root
build_small() {
    cp -r "$(dirname "$0")/." "$2/"
    docker build --quiet --label dev.bentobelt.standin=true --tag "$1" "$2"
}
