# Static, as in the image whose name it bears: it is copied into an image without a libc.
FROM standin/debian:trixie
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends busybox-static >/dev/null
