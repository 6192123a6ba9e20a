#!/bin/sh
# Gives each container a copy of the secrets that it needs, in a volume of its own, and the empty volumes to
# whoever writes to them. Runs to its end before anything else starts; a second run changes nothing.
set -eu

secret() { # name
  file=/from/$1-password
  if [ ! -s "$file" ]; then
    echo "the secret $1-password is missing or empty: run 'make secrets' first" >&2
    exit 1
  fi
  printf %s "$(cat "$file")"
}

put() { # mode, owner, target; what to write comes on standard input
  umask 077
  rm -f "$3.new"
  cat >"$3.new"
  # The mode first: without its capability root cannot change it once the file is somebody else's.
  chmod "$1" "$3.new"
  chown "$2" "$3.new"
  mv -f "$3.new" "$3"
}

chmod 755 /to/postgres /to/redis /to/rabbitmq /to/service /to/grafana /to/s3

# The database, Redis and RabbitMQ run as users whose number is their image's own affair. No other container has their volume.
secret postgres | put 444 0:0 /to/postgres/postgres-password
secret redis | put 444 0:0 /to/redis/redis-password
printf 'include /etc/redis/redis.conf\nrequirepass %s\n' "$(secret redis)" | put 444 0:0 /to/redis/redis.conf
printf 'default_user = yardstick\ndefault_pass = %s\n' "$(secret rabbitmq)" | put 444 0:0 /to/rabbitmq/user.conf

printf 'amqp://yardstick:%s@rabbitmq:5672/%%2F' "$(secret rabbitmq)" | put 400 10001:10001 /to/service/rabbitmq-url
for name in postgres redis files s3; do
  secret "$name" | put 400 10001:10001 "/to/service/$name-password"
done
secret grafana | put 400 472:0 /to/grafana/grafana-password
secret s3 | put 400 10001:10001 /to/s3/s3-password

chown 10001:10001 /data/s3 /data/service-logs /data/files /data/queue /data/otelcol /data/loki /data/tempo /data/load-reports
chown 65534:65534 /data/prometheus /data/alertmanager
chown 472:0 /data/grafana
