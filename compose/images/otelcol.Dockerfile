# The collector's image has neither shell nor client, so nothing in it can ask whether it is healthy. One static
# program is added for that: busybox under the name of the one applet that it then is.
ARG OTELCOL_IMAGE=otel/opentelemetry-collector-contrib:0.159.0
ARG PROBE_IMAGE=busybox:1.37.0-musl

FROM ${PROBE_IMAGE} AS probe

FROM ${OTELCOL_IMAGE}
COPY --from=probe /bin/busybox /bin/wget
