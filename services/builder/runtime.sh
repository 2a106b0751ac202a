# What is in a runtime image, beside its base: run as root by services/builder/layered.py, in containers.
# `sh -euc <this> runtime make <part>…` installs in one of them, where /opt/serving is a volume, and says when a part is
# whole. For each part `sh -euc <this> runtime take <part>` puts into a layer what is new, with that volume as /build.
export PATH="${PATH#/opt/serving/bin:}" HOME=/root PYTHONDONTWRITEBYTECODE=1
case $1-$2 in
make-*)
    . /build/index
    rm /build/index # whatever becomes of this container: an index's address may carry a password
    if [ -s /build/ca.pem ]; then export SSL_CERT_FILE=/build/ca.pem PIP_CERT=/build/ca.pem; fi
    echo made base # which needs nothing from here
    chmod +x /build/uv
    # The builder's own does not run here when the engine's machine is of another kind. A shell would take it for a script.
    if ! python -c 'import os; os.execv("/build/uv", ["uv", "--version"])' >/dev/null 2>&1; then
        python -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action=ignore \
            --require-hashes --target /build/fetched -r /build/uv.txt
        mv -f /build/fetched/bin/uv /build/uv
    fi
    python -m venv --without-pip /opt/serving
    # The cache lies beside what is linked to it, which is so written once.
    export UV_CACHE_DIR=/opt/serving/.new/cache UV_LINK_MODE=hardlink
    mkdir /opt/serving/.new
    shift
    for part; do
        /build/uv pip install --quiet --python /opt/serving/bin/python --require-hashes --no-deps -r "/build/$part.txt"
        rm -f /opt/serving/.lock # uv's
        if [ "$part" = last ]; then /opt/serving/bin/python -I /build/bill.py >/opt/serving/sbom.cdx.json; fi
        /opt/serving/bin/python -I /build/furnish.py "$part"
        echo "made $part"
    done
    ;;
take-base)
    # What installs packages is not needed to serve, and bytecode cannot be written later: the root is read-only.
    find / -xdev -path /build -prune -o \( \
        -path '*-packages/pip' -o -path '*-packages/pip-*-info' -o -path '*-packages/setuptools*' \
        -o -path '*-packages/pkg_resources' -o -path '*-packages/_distutils_hack' -o -path '*-packages/wheel*' \
        -o -path '*-packages/distutils-precedence.pth' -o -name ensurepip -o -name python-wheels \
        -o -path '*/bin/pip*' -o -path '*/bin/wheel' \
    \) -prune -exec rm -rf {} +
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|lib2to3|turtledemo)/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')" || true
    echo 'serving:x:1034:1034::/tmp:/usr/sbin/nologin' >>/etc/passwd
    echo 'serving:x:1034:' >>/etc/group
    mkdir -p /bento
    ;;
take-*)
    mkdir -p /opt/serving
    cd /build
    xargs -0 -r cp -a --parents --target-directory=/opt/serving <".new/$2"
    ;;
esac
