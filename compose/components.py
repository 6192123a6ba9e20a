"""The one table of what the stack consists of.

It feeds the plain-process runner, `status`, `endpoints.json`, the scrape targets and the stack's tests.
"""

import signal
from collections.abc import Mapping
from types import MappingProxyType

from compose.model import Amqp, Command, Component, Finished, Http, Metrics, Redis, Var

POSTGRES_URL = "postgresql://yardstick:{postgres_password}@{host}:{postgres.sql}/yardstick"
REDIS_URL = "redis://:{redis_password}@{host}:{redis.redis}/0"
RABBITMQ_URL = "amqp://yardstick:{rabbitmq_password}@{host}:{rabbitmq.amqp}/%2F"
OTLP_GRPC = "http://{host}:{otelcol.grpc}"

_SETTINGS = (
    "APP_", "WORKER_", "SCHEDULER_", "DATABASE_", "REDIS_", "LOCK_", "CACHE_", "QUEUE_", "OUTBOX_",
    "RATE_LIMIT_", "FILES_", "MAINTENANCE_", "LIVE_", "HEALTH_", "TELEMETRY_",
)  # fmt: skip
_CODE = ("service", "observability")


def _ports(**ports: int) -> Mapping[str, int]:
    return MappingProxyType(ports)


def _urls(**templates: str) -> Mapping[str, str]:
    return MappingProxyType(templates)


def _service(log: str) -> tuple[Var, ...]:
    return (
        Var("DATABASE_URL", POSTGRES_URL),
        Var("REDIS_URL", REDIS_URL),
        Var("QUEUE_RABBITMQ_URL", RABBITMQ_URL, when="rabbitmq"),
        Var("FILES_ROOT", "{files}"),
        Var("FILES_SIGNING_KEY", "{files_password}"),
        Var("FILES_PUBLIC_URL", "http://{host}:{api.http}", when="api"),
        Var("TELEMETRY_OTLP_ENDPOINT", OTLP_GRPC, when="otelcol"),
        Var("TELEMETRY_LOG_SINK", "file"),
        Var("TELEMETRY_LOG_FILE", "{logs}/service/" + log),
    )


COMPONENTS: tuple[Component, ...] = (
    Component(
        name="postgres",
        program="postgres",
        about="PostgreSQL",
        required=True,
        ports=_ports(sql=5432),
        arguments=(
            "-D", "{data}/cluster", "-h", "{host}", "-p", "{postgres.sql}",
            "-c", "unix_socket_directories=", "-c", "max_connections=200",
        ),
        ready=Command(("{program_dir}/pg_isready", "-q", "-t", "1", "-h", "{host}", "-p", "{postgres.sql}")),
        endpoints=_urls(postgres=POSTGRES_URL),
        stop_signal=signal.SIGINT,  # a fast shutdown; SIGTERM would wait for every client to leave
        stop_seconds=30,
    ),
    Component(
        name="redis",
        program="redis",
        about="Redis",
        config="redis",
        required=True,
        ports=_ports(redis=6379),
        arguments=("{config}/redis.conf", "--port", "{redis.redis}", "--bind", "{host}", "--dir", "{data}"),
        ready=Redis("redis"),
        endpoints=_urls(redis=REDIS_URL),
    ),
    Component(
        name="epmd",
        program="epmd",
        about="where RabbitMQ's node is looked up",
        # A name server of its own: one that RabbitMQ starts outlives it, and serves the whole machine.
        when=("QUEUE_ENGINE", "rabbitmq"),
        arguments=("-port", "{epmd.names}", "-address", "{host}", "-relaxed_command_check"),
        ports=_ports(names=4369),
        ready=Command(("{program_dir}/epmd", "-port", "{epmd.names}", "-names")),
    ),
    Component(
        name="rabbitmq",
        program="rabbitmq",
        about="RabbitMQ, for QUEUE_ENGINE=rabbitmq",
        when=("QUEUE_ENGINE", "rabbitmq"),
        needs=("epmd",),
        # With input allowed its script becomes the server instead of waiting for it.
        arguments=("-noinput", "-kernel", "inet_dist_use_interface", "{{127,0,0,1}}"),
        ports=_ports(amqp=5672, metrics=15692, nodes=25672),
        ready=Amqp("amqp"),
        config="rabbitmq",
        environment=(
            Var("RABBITMQ_ALLOW_INPUT", "1"),
            Var("RABBITMQ_NODENAME", "yardstick@localhost"),
            Var("RABBITMQ_DIST_PORT", "{rabbitmq.nodes}"),
            Var("ERL_EPMD_ADDRESS", "{host}"),
            Var("ERL_EPMD_PORT", "{epmd.names}"),
            Var("HOME", "{data}"),  # where its generated cookie lies
            Var("RABBITMQ_CONF_ENV_FILE", "{config}/rabbitmq-env.conf"),
            Var("RABBITMQ_CONFIG_FILE", "{config}/rabbitmq.conf"),
            Var("RABBITMQ_CONFIG_FILES", "{config}/conf.d"),
            Var("RABBITMQ_ADVANCED_CONFIG_FILE", "{config}/advanced.config"),
            Var("RABBITMQ_ENABLED_PLUGINS_FILE", "{config}/enabled_plugins"),
            Var("RABBITMQ_MNESIA_BASE", "{data}/mnesia"),
            Var("RABBITMQ_LOG_BASE", "{data}/log"),
            Var("RABBITMQ_LOGS", "-"),
        ),
        endpoints=_urls(rabbitmq=RABBITMQ_URL),
        metrics=Metrics("metrics", "rabbitmq"),
        start_seconds=120,
        stop_seconds=30,
    ),
    Component(
        name="migrate",
        program="python",
        about="database schema",
        required=True,
        needs=("postgres",),
        arguments=("-m", "service.db", "upgrade"),
        ready=Finished(),
        environment=(Var("DATABASE_URL", POSTGRES_URL), Var("REDIS_URL", REDIS_URL)),
        inherit=_SETTINGS,
        watch=("service/db",),
    ),
    Component(
        name="api",
        program="python",
        about="the service's API",
        required=True,
        needs=("migrate", "redis"),
        uses=("otelcol", "rabbitmq"),
        arguments=("-m", "service.app"),
        ports=_ports(http=8000),
        ready=Http("http", "/health/ready"),
        environment=(
            Var("APP_HOST", "{host}"),
            Var("APP_PORT", "{api.http}"),
            # A load test is one address: the limiter counts it, and lets it pass.
            Var("RATE_LIMIT_DEFAULT", "100000000/hour"),
            *_service("api.jsonl"),
        ),
        inherit=_SETTINGS,
        watch=_CODE,
        endpoints=_urls(api="http://{host}:{api.http}"),
        show="api",
        metrics=Metrics("http", "yardstick-api"),
        stop_seconds=35,  # its notice, requests in flight, telemetry
    ),
    Component(
        name="worker",
        program="python",
        about="the service's jobs",
        required=True,
        needs=("migrate", "redis"),
        uses=("otelcol", "rabbitmq"),
        arguments=("-m", "service.worker"),
        ports=_ports(http=8001),
        ready=Http("http", "/health/ready"),
        environment=(
            Var("APP_HOST", "{host}"),
            Var("WORKER_PORT", "{worker.http}"),
            *_service("worker.jsonl"),
        ),
        inherit=_SETTINGS,
        watch=_CODE,
        endpoints=_urls(worker="http://{host}:{worker.http}"),
        metrics=Metrics("http", "yardstick-worker"),
        stop_seconds=45,  # jobs in flight are finished
    ),
    Component(
        name="scheduler",
        program="python",
        about="what the service does by the clock",
        required=True,
        needs=("migrate",),
        uses=("otelcol",),
        arguments=("-m", "service.scheduler"),
        ports=_ports(http=8002),
        ready=Http("http", "/health/ready"),
        environment=(
            Var("APP_HOST", "{host}"),
            Var("SCHEDULER_HOST", "{host}"),
            Var("SCHEDULER_PORT", "{scheduler.http}"),
            *_service("scheduler.jsonl"),
        ),
        inherit=_SETTINGS,
        watch=_CODE,
        endpoints=_urls(scheduler="http://{host}:{scheduler.http}"),
        metrics=Metrics("http", "yardstick-scheduler"),
        stop_seconds=25,  # the firing in hand, telemetry
    ),
    Component(
        name="otelcol",
        program="otelcol",
        about="collector: traces, log files, host metrics",
        uses=("loki", "tempo", "prometheus"),
        # Without the gate a line leaves its checkpoint behind before it is in the queue: a crash loses it.
        arguments=("--config", "{config}/otelcol.yaml", "--feature-gates=stanza.synchronousLogEmitter"),
        ports=_ports(grpc=4317, http=4318, health=13133, metrics=8888),
        ready=Http("health", "/"),
        config="otelcol",
        environment=(
            Var("OTELCOL_ADDRESS", "{host}"),
            Var("OTELCOL_GRPC_PORT", "{otelcol.grpc}"),
            Var("OTELCOL_HTTP_PORT", "{otelcol.http}"),
            Var("OTELCOL_HEALTH_PORT", "{otelcol.health}"),
            Var("OTELCOL_METRICS_PORT", "{otelcol.metrics}"),
            Var("OTELCOL_DATA", "{data}"),
            Var("SERVICE_LOGS", "{logs}/service"),
            Var("TEMPO_OTLP", "{host}:{tempo.otlp}"),
            Var("LOKI_OTLP", "http://{host}:{loki.http}/otlp"),
            Var("PROMETHEUS_OTLP", "http://{host}:{prometheus.http}/api/v1/otlp"),
            Var("GOMEMLIMIT", "480MiB"),
        ),
        inherit=("TRACES_", "OTELCOL_LOG_"),
        endpoints=_urls(**{"otelcol-grpc": OTLP_GRPC, "otelcol-http": "http://{host}:{otelcol.http}"}),
        metrics=Metrics("metrics", "otelcol"),
    ),
    Component(
        name="prometheus",
        program="prometheus",
        about="metrics and their rules",
        uses=("alertmanager",),
        arguments=(
            "--config.file={config}/prometheus.yml",
            "--storage.tsdb.path={data}",
            "--web.listen-address={host}:{prometheus.http}",
            "--web.enable-otlp-receiver",
            "--web.enable-remote-write-receiver",
            "--web.enable-lifecycle",
            # Created timestamps let a burst count that came before a new series was first scraped.
            "--enable-feature=exemplar-storage,created-timestamp-zero-ingestion",
            "--log.level=warn",
        ),
        ports=_ports(http=9090),
        ready=Http("http", "/-/ready"),
        config="prometheus",
        rules="alerts/prometheus",
        environment=(Var("GOMEMLIMIT", "700MiB"),),
        endpoints=_urls(prometheus="http://{host}:{prometheus.http}"),
        show="prometheus",
        metrics=Metrics("http", "prometheus"),
    ),
    Component(
        name="alertmanager",
        program="alertmanager",
        about="who hears of an alert",
        arguments=(
            "--config.file={config}/alertmanager.yml",
            "--storage.path={data}",
            "--web.listen-address={host}:{alertmanager.http}",
            "--cluster.listen-address=",
            "--data.retention=120h",
            "--log.level=warn",
        ),
        ports=_ports(http=9093),
        ready=Http("http", "/-/ready"),
        config="alertmanager",
        endpoints=_urls(alertmanager="http://{host}:{alertmanager.http}"),
        show="alertmanager",
        metrics=Metrics("http", "alertmanager"),
    ),
    Component(
        name="loki",
        program="loki",
        about="logs and their rules",
        uses=("alertmanager", "prometheus"),
        arguments=("-config.file={config}/loki.yaml", "-config.expand-env=true"),
        ports=_ports(http=3100, grpc=9096),
        ready=Http("http", "/ready"),
        config="loki",
        rules="alerts/loki",
        rules_to="rules/fake",
        environment=(
            Var("LOKI_ADDRESS", "{host}"),
            Var("LOKI_HTTP_PORT", "{loki.http}"),
            Var("LOKI_GRPC_PORT", "{loki.grpc}"),
            Var("LOKI_DATA", "{data}"),
            Var("LOKI_RULES", "{config}/rules"),
            Var("LOKI_ALERTMANAGER_URL", "http://{host}:{alertmanager.http}"),
            Var("LOKI_REMOTE_WRITE_URL", "http://{host}:{prometheus.http}/api/v1/write"),
            Var("GOMEMLIMIT", "700MiB"),
        ),
        endpoints=_urls(loki="http://{host}:{loki.http}"),
        metrics=Metrics("http", "loki"),
        stop_seconds=30,
    ),
    Component(
        name="tempo",
        program="tempo",
        about="traces, span metrics, service graph",
        uses=("prometheus",),
        arguments=("-config.file={config}/tempo.yaml", "-config.expand-env=true"),
        ports=_ports(http=3200, grpc=9095, otlp=14317),
        ready=Http("http", "/ready"),
        config="tempo",
        environment=(
            Var("TEMPO_ADDRESS", "{host}"),
            Var("TEMPO_HTTP_PORT", "{tempo.http}"),
            Var("TEMPO_GRPC_PORT", "{tempo.grpc}"),
            Var("TEMPO_OTLP_PORT", "{tempo.otlp}"),
            Var("TEMPO_DATA", "{data}"),
            Var("TEMPO_REMOTE_WRITE_URL", "http://{host}:{prometheus.http}/api/v1/write"),
            Var("GOMEMLIMIT", "700MiB"),
        ),
        endpoints=_urls(tempo="http://{host}:{tempo.http}"),
        metrics=Metrics("http", "tempo"),
        # Its data is on disk within two; after any query 3.0 then waits forever for workers that have gone.
        stop_seconds=6,
    ),
    Component(
        name="grafana",
        program="grafana",
        about="dashboards",
        uses=("prometheus", "loki", "tempo", "alertmanager"),
        arguments=("server", "--homepath", "{program_dir}/..", "--config", "{config}/grafana.ini"),
        ports=_ports(http=3000),
        ready=Http("http", "/api/health"),
        config="grafana",
        environment=(
            Var("GF_SERVER_HTTP_ADDR", "{host}"),
            Var("GF_SERVER_HTTP_PORT", "{grafana.http}"),
            Var("GF_PATHS_DATA", "{data}"),
            Var("GF_PATHS_LOGS", "{data}/log"),
            Var("GF_PATHS_PLUGINS", "{data}/plugins"),
            Var("GF_PATHS_PROVISIONING", "{config}/provisioning"),
            Var("GF_SECURITY_ADMIN_PASSWORD__FILE", "{secrets}/grafana-password"),
            Var("PROMETHEUS_URL", "http://{host}:{prometheus.http}"),
            Var("LOKI_URL", "http://{host}:{loki.http}"),
            Var("TEMPO_URL", "http://{host}:{tempo.http}"),
            Var("ALERTMANAGER_URL", "http://{host}:{alertmanager.http}"),
            Var("DASHBOARDS", "{root}/dashboards/json"),
        ),
        endpoints=_urls(grafana="http://{host}:{grafana.http}"),
        show="grafana",
        metrics=Metrics("http", "grafana"),
        start_seconds=120,
    ),
)  # fmt: skip
