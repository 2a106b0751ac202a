# The runtime image: how it is run. What is in it comes with services/builder/runtime.sh, in layers of its own.
ARG BASE
FROM ${BASE}
ENV PATH=/opt/serving/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp HOST=0.0.0.0 PORT=3000 \
    BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True PROMETHEUS_MULTIPROC_DIR=/tmp/metrics
WORKDIR /bento
USER 1034:1034
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/serving/bin/python", "-I", "-S", "/bento/src/serving/healthy.py"]
ENTRYPOINT ["/opt/serving/bin/python", "-P", "/bento/src/serving/container.py"]
