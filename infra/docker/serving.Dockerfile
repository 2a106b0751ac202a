# The image of a model version. The builder runs it in two steps: `--target runtime` once per set of locked packages, then
# `--target version` with RUNTIME naming that image, so that a new version adds its own small layers alone. By hand, with
# a Bento's folder as the context:
#   docker buildx build -f infra/docker/serving.Dockerfile --build-context bentobelt=. -t my-model BENTO_FOLDER
ARG PYTHON=3.11
ARG BASE=python:${PYTHON}-slim
# The stage below, or the name of an image that was made from it.
ARG RUNTIME=runtime

FROM ${BASE} AS base
USER root
ARG PYTHON
RUN python -c "import sys; found = '%d.%d' % sys.version_info[:2]; found == '${PYTHON}' or sys.exit(\
        f'the base image has Python {found}, the model was trained with Python ${PYTHON}')"
ARG SYSTEM_PACKAGES=""
RUN if [ -n "$SYSTEM_PACKAGES" ]; then \
        apt-get update && apt-get install --yes --no-install-recommends $SYSTEM_PACKAGES && rm -rf /var/lib/apt/lists/*; \
    fi

# The locked packages in /opt/serving. pip and uv stay in this stage, and so do address and password of a package index:
# the secret `index` is a script that sets pip's and uv's variables, `certificates` a file of trusted certificates.
FROM base AS packages
ENV UV_LINK_MODE=copy UV_HTTP_TIMEOUT=180
RUN --mount=type=bind,from=bentobelt,source=requirements/uv.txt,target=/uv.txt \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    if [ -e /run/secrets/index ]; then . /run/secrets/index; fi \
 && python -m venv /opt/uv && python -m venv --without-pip /opt/serving \
 && /opt/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r /uv.txt
# Bytecode is made here because the root of a running container is read-only.
RUN --mount=type=bind,source=env/python/requirements.txt,target=/requirements.txt \
    --mount=type=bind,from=bentobelt,source=services/builder/sbom.py,target=/sbom.py \
    --mount=type=cache,target=/root/.cache/uv,sharing=locked \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    if [ -e /run/secrets/index ]; then . /run/secrets/index; fi \
 && /opt/uv/bin/uv pip sync --quiet --python /opt/serving/bin/python --require-hashes /requirements.txt \
 && cd /opt/serving/lib/python3*/site-packages \
 && find . -regextype posix-extended -type d -regex './((joblib|numpy|pandas|scipy|sklearn)(/.*)?/tests|pyarrow/(include|tests))' \
        -prune -exec rm -r {} + \
 && /opt/serving/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash . \
 && /opt/serving/bin/python -I /sbom.py >/opt/serving/sbom.cdx.json

FROM base AS runtime
# The base's own pip is not needed to serve. The standard library is compiled for the same reason as the packages.
RUN useradd --uid 1034 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin serving \
 && rm -rf /usr/bin/pip* /usr/local/bin/pip* "$(python -c 'import os, pip; print(os.path.dirname(pip.__file__))')" \
 && cd "$(python -c 'import os; print(os.path.dirname(os.__file__))')" && rm -rf ensurepip \
 && { python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|lib2to3|turtledemo)/' . || true; }
COPY --link --from=packages /opt/serving /opt/serving
ENV PATH=/opt/serving/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp HOST=0.0.0.0 PORT=3000 \
    BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True PROMETHEUS_MULTIPROC_DIR=/tmp/metrics
WORKDIR /bento
USER 1034:1034
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/serving/bin/python", "-I", "-S", "/bento/src/serving/entrypoints/healthcheck.py"]
ENTRYPOINT ["/opt/serving/bin/python", "-P", "/bento/src/serving/entrypoints/container.py"]

# The code that serves: the same in all versions that one builder makes.
FROM ${RUNTIME} AS code
USER root
COPY env /bento/env
COPY src/contracts /bento/src/contracts
COPY src/serving /bento/src/serving
RUN python -m compileall -q --invalidation-mode unchecked-hash /bento/src

# What differs from version to version.
FROM scratch AS model
COPY bento.yaml README.md /
COPY apis /apis
COPY models /models
COPY src/bentofile.yaml /src/

FROM ${RUNTIME} AS version
COPY --link --from=code /bento /bento
COPY --link --from=model / /bento
