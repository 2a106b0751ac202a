# What is in a runtime image, beside its base: run by services/builder/layered.py in a container for each layer, as
# `sh -euc <this> runtime half|rest`. /build is a volume, which no layer has: what knows of package indexes stays there.
export PATH="${PATH#/opt/serving/bin:}" HOME=/root
case $1 in
half)
    . /build/index
    rm /build/index # whatever becomes of this container: an index's address may carry a password
    if [ -s /build/ca.pem ]; then export SSL_CERT_FILE=/build/ca.pem PIP_CERT=/build/ca.pem; fi
    python -m venv --without-pip /opt/serving
    python -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action=ignore \
        --require-hashes --target /build/uv -r /build/uv.txt
    UV_LINK_MODE=copy /build/uv/bin/uv pip install --quiet --python /opt/serving/bin/python --no-cache \
        --require-hashes --no-deps -r /build/lock.txt
    /opt/serving/bin/python -I /build/bill.py >/opt/serving/sbom.cdx.json
    /opt/serving/bin/python -I /build/furnish.py
    ;;
rest)
    cp -a /build/rest/. "$(/opt/serving/bin/python -Ic 'import sysconfig; print(sysconfig.get_path("purelib"))')"
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
esac
