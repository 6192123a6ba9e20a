# Two images: `service` (the API, the worker, the migrations) and `loadtest`. Each is Python, the locked packages
# and the code, and nothing to build with. The same sources on the same base give the same layers.
ARG PYTHON_IMAGE=python:3.13.15-slim-trixie@sha256:881d80734ee05dca6f7f42dcb080975652a53c7eda9ba1f03bb8da31aa6a6ec2

FROM ${PYTHON_IMAGE} AS tools
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ONLY_BINARY=:all: PIP_REQUIRE_HASHES=1 PIP_NO_COMPILE=1 PIP_PYTHON=/yardstick/bin/python
WORKDIR /build
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends binutils >/dev/null \
 && python -m venv --without-pip /yardstick

FROM tools AS build
ARG SOURCE_DATE_EPOCH=1767225600
COPY requirements/service.lock ./
# Wheels alone: what would need a compiler fails here, and nothing does. Debugging symbols, 38 MB of them, go.
RUN python -m pip install --quiet --no-deps -r service.lock \
 && find /yardstick -name '*.so' -exec strip --strip-unneeded {} +
COPY service /yardstick/app/service
COPY observability /yardstick/app/observability
# Compiled by content and not by time: the running container cannot write, and would compile at every start.
RUN python -m compileall -q -j 1 --invalidation-mode unchecked-hash /yardstick/lib /yardstick/app \
 && chmod -R u=rwX,go=rX /yardstick \
 && mkdir /out && mv /yardstick /out/yardstick \
 && find /out -exec touch --no-dereference --date=@${SOURCE_DATE_EPOCH} {} +

FROM tools AS build-loadtest
ARG SOURCE_DATE_EPOCH=1767225600
COPY requirements/load.lock ./
RUN python -m pip install --quiet --no-deps -r load.lock \
 && find /yardstick -name '*.so' -exec strip --strip-unneeded {} +
COPY loadtest /yardstick/app/loadtest
COPY alerts/slo.yaml /yardstick/app/alerts/slo.yaml
RUN python -m compileall -q -j 1 --invalidation-mode unchecked-hash /yardstick/lib /yardstick/app \
 && chmod -R u=rwX,go=rX /yardstick \
 && mkdir /out && mv /yardstick /out/yardstick \
 && find /out -exec touch --no-dereference --date=@${SOURCE_DATE_EPOCH} {} +

FROM ${PYTHON_IMAGE} AS loadtest
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="yardstick-loadtest" org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-loadtest /out /
ENV PATH=/yardstick/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /yardstick/app
USER 10001:10001
ENTRYPOINT ["python", "-m", "loadtest"]
CMD ["--help"]

FROM ${PYTHON_IMAGE} AS service
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="yardstick" org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0"
# One layer over the base, and no command run in it, which would leave the time of its run behind. The base's own
# pip is still in it, with no compiler and, the root being read-only, no place to write to.
COPY --from=build /out /
ENV PATH=/yardstick/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /yardstick/app
# A number, so that an orchestrator can see that it is not root; it needs no entry in /etc/passwd.
USER 10001:10001
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
# No shell in between: the signal reaches Python, which drains.
CMD ["python", "-m", "service.app"]
