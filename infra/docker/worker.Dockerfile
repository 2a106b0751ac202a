# One Dockerfile for every worker:
#   docker build -f infra/docker/worker.Dockerfile --build-arg SERVICE=trainer -t bentobelt/trainer .
# The builder has a stage of its own: `--target builder` adds the docker command with Buildx.
ARG PYTHON=3.11
ARG DOCKER=28-cli

# What installs packages stays in this stage: uv, its cache, and whatever address and password an index needs.
FROM python:${PYTHON}-slim AS packages
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST UV_DEFAULT_INDEX UV_INDEX UV_INSECURE_HOST
ENV UV_LINK_MODE=copy UV_HTTP_TIMEOUT=180
COPY requirements/uv.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/uv \
 && /opt/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r /locks/uv.txt \
 && python -m venv --without-pip /opt/belt
ARG SERVICE
COPY requirements/${SERVICE}.txt /locks/
# One cache for all services: they share most packages, at the same versions.
RUN --mount=type=cache,target=/root/.cache/uv,sharing=locked \
    /opt/uv/bin/uv pip sync --quiet --python /opt/belt/bin/python --require-hashes --compile-bytecode \
    /locks/${SERVICE}.txt
COPY contracts /opt/bentobelt/contracts
COPY infra/__init__.py infra/bootstrap.py /opt/bentobelt/infra/
COPY infra/docker/serving.Dockerfile /opt/bentobelt/infra/docker/
COPY services /opt/bentobelt/services
COPY serving /opt/bentobelt/serving
COPY requirements /opt/bentobelt/requirements
RUN python -m compileall -q /opt/bentobelt

FROM python:${PYTHON}-slim AS base
ARG SERVICE
# The folder of state and the model store belong to the user, so that volumes made of them do too.
RUN useradd --uid 1034 --no-create-home --home-dir /var/lib/bentobelt --shell /usr/sbin/nologin bentobelt \
 && install -d -o bentobelt -g bentobelt /var/lib/bentobelt /var/lib/bentoml
COPY --from=packages /opt/belt /opt/belt
COPY --from=packages /opt/bentobelt /opt/bentobelt
ENV PATH=/opt/belt/bin:$PATH PYTHONPATH=/opt/bentobelt PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/bentobelt BENTOBELT_HOME=/var/lib/bentobelt BENTOML_HOME=/var/lib/bentoml BENTOML_DO_NOT_TRACK=True \
    HTTP_HOST=0.0.0.0 HTTP_PORT=8000 SERVICE=${SERVICE}
LABEL org.opencontainers.image.title="bentobelt ${SERVICE}"
WORKDIR /var/lib/bentobelt
# Builder and deployer run as root in compose.yaml: the Docker socket is root's, and whoever may use it is root anyway.
USER bentobelt
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-I", "-S", "-c", "import sys, http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]
# exec: the worker itself gets the SIGTERM, and returns its running message to the bus.
CMD exec python -P -m services.${SERVICE}.app

FROM docker:${DOCKER} AS docker-cli

FROM base AS builder
COPY --from=docker-cli /usr/local/bin/docker /usr/local/bin/docker
COPY --from=docker-cli /usr/local/libexec/docker/cli-plugins/docker-buildx /usr/local/libexec/docker/cli-plugins/

FROM base AS worker
