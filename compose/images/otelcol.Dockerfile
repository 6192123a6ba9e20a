# The collector's image has neither shell nor client, so nothing in it can ask whether it is healthy. One static
# program is added for that: busybox under the name of the one applet that it then is.
ARG OTELCOL_IMAGE=otel/opentelemetry-collector-contrib:0.159.0
ARG PROBE_IMAGE=busybox:1.37.0-musl@sha256:fc6dddc4c44b1bfe37f41cae8e67d1693828e8f42a91862816d7953e2c9d3f23

FROM ${PROBE_IMAGE} AS probe

FROM ${OTELCOL_IMAGE}
COPY --from=probe /bin/busybox /bin/wget
