# With a libc, for a Tempo that was not linked statically.
FROM standin/debian:trixie
COPY tempo /tempo
RUN mkdir -p /var/tempo && chown 10001:10001 /var/tempo
USER 10001:10001
ENTRYPOINT ["/tempo"]
