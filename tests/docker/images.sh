#!/usr/bin/env bash
# Sees to it that the engine has the images of images.txt: leaves what is there, pulls what can be pulled, and builds a
# labelled stand-in of the rest from Debian's packages and the wheels in .venv (so run `make setup` before).
#   tests/docker/images.sh                all of them
#   tests/docker/images.sh python nats    only these
# Stand-ins are told apart by:  docker images --filter label=dev.bentobelt.standin=true
# They are not built again when they are there: remove one (docker image rm) after a change to its recipe.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROJECT=$HERE/../..
PULL_SECONDS=${PULL_SECONDS:-300} # for one image; where no registry is reached, a pull fails at once
PATH=$PATH:/usr/sbin:/sbin        # debootstrap
reached=unknown                   # whether a registry answers
export PROJECT

say() { echo "images: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# A tag that the registry does not know is our mistake, which a stand-in must not hide.
pull() {
    local image=$1 said
    [[ $reached != no ]] || return 1
    if said=$(timeout "$PULL_SECONDS" docker pull -q "$image" 2>&1); then
        reached=yes
    elif grep -qiE 'manifest unknown|manifest for .* not found|pull access denied' <<<"$said"; then
        fail "$image: $said"
    elif [[ $reached == yes ]]; then
        fail "$image could not be pulled, though others could: $said"
    else
        say "no registry is reached ($(tail -n 1 <<<"$said" | cut -c -120))"
        reached=no
    fi
    [[ $reached == yes ]]
}

build() {
    local image=$1 name=$2 work
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/standin-$name.XXXXXX")
    # One file system: whatever is still mounted in there is not ours to delete.
    # shellcheck disable=SC2064  # the folder of now
    trap "rm -rf --one-file-system '$work'" EXIT
    "$HERE/standins/$name/build" "$image" "$work" >"$work.log" 2>&1 || {
        tail -n 30 "$work.log" >&2
        fail "the stand-in of $image could not be built, see $work.log"
    }
    rm -rf --one-file-system "$work" "$work.log"
    trap - EXIT
}

provide() {
    local image=$1 name=$2 since=$SECONDS
    docker image inspect "$image" >/dev/null 2>&1 && return
    if pull "$image"; then
        say "$image pulled, $((SECONDS - since)) s"
    elif [[ -x $HERE/standins/$name/build ]]; then
        build "$image" "$name"
        say "$image built as a stand-in, $((SECONDS - since)) s"
    else
        say "$image is MISSING: it cannot be pulled here and there is no stand-in of it"
    fi
}

main() {
    local image name
    docker info >/dev/null || fail "no Docker engine answers: see .ci/engine"
    exec 9>"${TMPDIR:-/var/tmp}/bentobelt-images.lock"
    flock 9 # two at a time would build the same image twice
    while read -r image _; do
        [[ -n $image && $image != \#* ]] || continue
        name=${image%:*}
        name=${name##*/}
        [[ $# == 0 || " $* " == *" $name "* ]] || continue
        provide "$image" "$name" </dev/null
    done <"$HERE/images.txt"
}

main "$@"
