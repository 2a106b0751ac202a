# The runtime image: what a Bento needs beside itself, for one set of locked packages. Made once per lock by
# services/builder/layered.py, with the classic builder, because the Docker SDK has no other.
ARG BASE
FROM ${BASE} AS packages
# An index's address may carry a password: it comes as an argument, and whatever knows it stays in this stage.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG UV_DEFAULT_INDEX
ARG UV_INDEX
ARG UV_INSECURE_HOST
ARG STAGE
LABEL dev.bentobelt.stage=${STAGE}
COPY . /build/
RUN if [ -s /build/ca.pem ]; then export SSL_CERT_FILE=/build/ca.pem PIP_CERT=/build/ca.pem; fi \
 && python -m venv --without-pip /opt/serving \
 && python -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action=ignore \
        --require-hashes --target /build/uv -r /build/uv.txt \
 && UV_LINK_MODE=copy /build/uv/bin/uv pip install --quiet --python /opt/serving/bin/python --no-cache \
        --require-hashes --no-deps -r /build/lock.txt \
 && /opt/serving/bin/python -I /build/furnish.py \
 && /opt/serving/bin/python -I /build/bill.py >/opt/serving/sbom.cdx.json

FROM ${BASE}
COPY --from=packages /opt/serving /opt/serving
# What installs packages is not needed to serve, and bytecode cannot be written later: the root is read-only.
RUN find / -xdev -path /opt/serving -prune -o \( \
        -path '*-packages/pip' -o -path '*-packages/pip-*-info' -o -path '*-packages/setuptools*' \
        -o -path '*-packages/pkg_resources' -o -path '*-packages/_distutils_hack' -o -path '*-packages/wheel*' \
        -o -name ensurepip -o -name python-wheels -o -path '*/bin/pip*' -o -path '*/bin/wheel' \
    \) -prune -exec rm -rf {} + \
 && { python -m compileall -q --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|lib2to3|turtledemo)/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')" || true; } \
 && echo 'serving:x:1034:1034::/tmp:/usr/sbin/nologin' >>/etc/passwd \
 && echo 'serving:x:1034:' >>/etc/group
ENV PATH=/opt/serving/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp HOST=0.0.0.0 PORT=3000 \
    BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True PROMETHEUS_MULTIPROC_DIR=/tmp/metrics
WORKDIR /bento
USER 1034:1034
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/serving/bin/python", "-I", "-S", "/bento/src/serving/healthy.py"]
ENTRYPOINT ["/opt/serving/bin/python", "-P", "/bento/src/serving/container.py"]
