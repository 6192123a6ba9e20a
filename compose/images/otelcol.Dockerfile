# The collector's image has neither shell nor client, so nothing in it can ask whether it is healthy. Tempo's
# binary can (`-health.url`), and Tempo's image is on the machine anyway.
ARG OTELCOL_IMAGE=otel/opentelemetry-collector-contrib:0.159.0
ARG TEMPO_IMAGE=grafana/tempo:3.0.3

FROM ${TEMPO_IMAGE} AS probe

FROM ${OTELCOL_IMAGE}
COPY --from=probe /tempo /probe
