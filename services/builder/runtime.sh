# What is in a runtime image, beside its base: run by services/builder/layered.py in a container for each layer, as
# `sh -euc <this> runtime 0|1|rest`. /build is a volume, which no layer has: what knows of package indexes stays there.
export PATH="${PATH#/opt/serving/bin:}" HOME=/root
. /build/index
rm /build/index # whatever becomes of this container: an index's address may carry a password
if [ -s /build/ca.pem ]; then export SSL_CERT_FILE=/build/ca.pem PIP_CERT=/build/ca.pem; fi
if [ "$1" = 0 ]; then
    python -m venv --without-pip /opt/serving
    python -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action=ignore \
        --require-hashes --target /build/uv -r /build/uv.txt
fi
# The cache is a temporary one: what is linked to it is written once.
UV_LINK_MODE=hardlink /build/uv/bin/uv pip install --quiet --python /opt/serving/bin/python --no-cache \
    --require-hashes --no-deps -r "/build/$1.txt"
rm -f /opt/serving/.lock # uv's
/opt/serving/bin/python -I /build/furnish.py
case $1 in
0)
    # What installs packages is not needed to serve, and bytecode cannot be written later: the root is read-only.
    find / -xdev -path /opt/serving -prune -o \( \
        -path '*-packages/pip' -o -path '*-packages/pip-*-info' -o -path '*-packages/setuptools*' \
        -o -path '*-packages/pkg_resources' -o -path '*-packages/_distutils_hack' -o -path '*-packages/wheel*' \
        -o -path '*-packages/distutils-precedence.pth' -o -name ensurepip -o -name python-wheels \
        -o -path '*/bin/pip*' -o -path '*/bin/wheel' \
    \) -prune -exec rm -rf {} +
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|lib2to3|turtledemo)/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')" || true
    echo 'serving:x:1034:1034::/tmp:/usr/sbin/nologin' >>/etc/passwd
    echo 'serving:x:1034:' >>/etc/group
    ;;
rest)
    /opt/serving/bin/python -I /build/bill.py >/opt/serving/sbom.cdx.json
    ;;
esac
