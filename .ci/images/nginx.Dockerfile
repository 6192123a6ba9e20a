# Debian's stable nginx is older than `resolve` in `upstream`.
FROM standin/debian:trixie
RUN sed 's/ trixie / sid /' /etc/apt/sources.list >/etc/apt/sources.list.d/sid.list && apt-get -qq update \
 && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends -t sid nginx >/dev/null
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
