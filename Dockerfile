# Onethread in a container: `onethread serve` by default, any other command of `onethread` instead of it.
# docs/deployment.md tells how to use it; compose.yaml puts PostgreSQL beside it.

FROM python:3.13-slim AS build

WORKDIR /build
COPY requirements.lock requirements-dev.lock ./
# uv, at the version and with the hashes of the lock; it also contains the backend that builds our package.
RUN awk '/^uv==/ {p = 1} p {print} p && !/\\$/ {exit}' requirements-dev.lock > uv.txt \
    && python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r uv.txt \
    && python -m venv --without-pip /opt/onethread \
    && uv pip install --no-cache --python /opt/onethread/bin/python --compile-bytecode --require-hashes -r requirements.lock

COPY pyproject.toml ./
COPY onethread onethread
COPY core core
COPY storage storage
COPY bots bots
COPY mcp_server mcp_server
COPY web web
RUN uv build --wheel --offline --no-build-isolation --python /usr/local/bin/python --out-dir dist \
    && uv pip install --no-cache --python /opt/onethread/bin/python --compile-bytecode --no-deps --offline dist/*.whl


FROM python:3.13-slim

RUN groupadd --gid 10001 onethread \
    && useradd --uid 10001 --gid onethread --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin onethread \
    && install --directory --owner=onethread --group=onethread --mode=0700 /data
COPY --from=build /opt/onethread /opt/onethread

ENV PATH=/opt/onethread/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ONETHREAD_DATA_DIR=/data \
    ONETHREAD_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8420

# Without urllib, which would ask a proxy that the environment names.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8420, timeout=3); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["onethread"]
CMD ["serve", "--host", "0.0.0.0"]
