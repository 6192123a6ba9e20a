"""One row per job in place of the outbox, the effects and the dead jobs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = postgresql.JSONB(astext_type=sa.Text())
TIME = sa.DateTime(timezone=True)

# Whoever is in two of the old tables is one job. A dead job's ID may be no UUID: its message was malformed.
FORTH = """
INSERT INTO job
  (id, job_id, name, payload, options, meta, created_at, due_at, published_at, outcome, finished_at)
SELECT o.id, o.job_id, o.name, o.payload, o.options, o.meta, o.created_at, o.created_at, o.published_at,
       CASE WHEN e.id IS NOT NULL THEN 'completed' END, e.created_at
  FROM outbox_entry o LEFT JOIN job_effect e USING (job_id);

INSERT INTO job (id, job_id, name, created_at, due_at, published_at, outcome, finished_at)
SELECT e.id, e.job_id, e.name, e.created_at, e.created_at, e.created_at, 'completed', e.created_at
  FROM job_effect e WHERE NOT EXISTS (SELECT FROM outbox_entry o WHERE o.job_id = e.job_id);

INSERT INTO job
  (id, job_id, name, body, created_at, due_at, published_at, attempts, history, outcome, finished_at)
SELECT DISTINCT ON (key) d.id, key, d.name, d.body, d.created_at, d.created_at, d.created_at, d.attempts,
       jsonb_build_array(jsonb_build_object('at', d.created_at, 'attempt', d.attempts, 'error', d.error)),
       'dead', d.created_at
  FROM (SELECT *, CASE WHEN job_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN job_id::uuid
                  ELSE md5(job_id)::uuid END AS key FROM dead_job) d
 ORDER BY key, d.id
ON CONFLICT (job_id) DO UPDATE SET attempts = EXCLUDED.attempts,
       history = EXCLUDED.history, outcome = 'dead', finished_at = EXCLUDED.finished_at
 WHERE job.outcome IS NULL;
"""

BACK = """
INSERT INTO outbox_entry (id, job_id, name, payload, options, meta, created_at, published_at)
SELECT id, job_id, name, payload, options, meta, created_at,
       CASE WHEN outcome IS NULL THEN published_at ELSE coalesce(published_at, finished_at) END
  FROM job WHERE payload IS NOT NULL;

INSERT INTO job_effect (id, job_id, name, created_at)
SELECT id, job_id, name, finished_at FROM job WHERE outcome IN ('completed', 'removed') AND name IS NOT NULL;

INSERT INTO dead_job (id, job_id, name, attempts, body, error, created_at)
SELECT id, job_id::text, name, greatest(attempts, 1),
       coalesce(body, convert_to(jsonb_build_object('id', job_id, 'name', name, 'payload', payload,
         'attempt', greatest(attempts, 1), 'options', options, 'meta', meta, 'enqueuedAt', due_at)::text,
         'UTF8')),
       coalesce(history -> -1 ->> 'error', ''), finished_at
  FROM job WHERE outcome IN ('dead', 'failed');
"""


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("payload", JSON, nullable=True),
        sa.Column("options", JSON, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("meta", JSON, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", TIME, nullable=True),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("interruptions", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("history", JSON, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("job_id", name=op.f("uq_job_job_id")),
    )
    for statement in FORTH.strip().split(";\n"):
        op.execute(statement)
    pending = sa.text("published_at IS NULL AND outcome IS NULL")
    held = sa.text("published_at IS NOT NULL AND outcome IS NULL")
    op.create_index("ix_job_pending", "job", ["id"], postgresql_where=pending)
    op.create_index("ix_job_open", "job", ["due_at"], postgresql_where=held)
    op.create_index(
        "ix_job_ended",
        "job",
        ["outcome", "name", "finished_at"],
        postgresql_where=sa.text("outcome IS NOT NULL"),
    )
    for old in ("outbox_entry", "job_effect", "dead_job"):
        op.drop_table(old)


def downgrade() -> None:
    op.create_table(
        "dead_job",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_job")),
    )
    op.create_table(
        "job_effect",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_effect")),
        sa.UniqueConstraint("job_id", name=op.f("uq_job_effect_job_id")),
    )
    op.create_table(
        "outbox_entry",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("options", JSON, nullable=False),
        sa.Column("meta", JSON, nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_entry")),
        sa.UniqueConstraint("job_id", name=op.f("uq_outbox_entry_job_id")),
    )
    for statement in BACK.strip().split(";\n"):
        op.execute(statement)
    op.create_index(op.f("ix_dead_job_job_id"), "dead_job", ["job_id"])
    op.create_index(
        "ix_outbox_entry_pending", "outbox_entry", ["id"], postgresql_where=sa.text("published_at IS NULL")
    )
    op.create_index(
        "ix_outbox_entry_published_at",
        "outbox_entry",
        ["published_at"],
        postgresql_where=sa.text("published_at IS NOT NULL"),
    )
    op.drop_table("job")
