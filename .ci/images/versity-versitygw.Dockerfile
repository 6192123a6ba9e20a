FROM standin/debian:trixie
COPY versitygw /app/versitygw
ENTRYPOINT ["/app/versitygw"]
