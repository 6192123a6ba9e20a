FROM standin/debian:trixie
COPY prometheus promtool /bin/
RUN mkdir -p /prometheus /etc/prometheus && chown nobody /prometheus /etc/prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
