"""The nodes of keys, triggers on entities, the summary of transactions."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from service.db import assets

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "snowflake_node",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reserved_ms", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snowflake_node")),
    )
    # The keys that are there were made by nodes that nobody wrote down: start after the latest of them.
    op.execute(
        "INSERT INTO snowflake_node (id, reserved_ms, holder) SELECT node, latest, '' FROM"
        " generate_series(0, 1023) AS node, (SELECT coalesce(max(id) >> 22, 0) AS latest FROM"
        " (SELECT max(id) AS id FROM transaction UNION ALL SELECT max(id) FROM outbox_entry"
        " UNION ALL SELECT max(id) FROM job_effect UNION ALL SELECT max(id) FROM dead_job) AS keys) AS made"
    )
    assets.apply("touch_entity", 1)
    assets.touch("transaction")
    assets.apply("snowflake_time", 1)
    assets.apply("transaction_summary", 1)


def downgrade() -> None:
    op.execute("DROP VIEW transaction_summary")
    op.execute("DROP FUNCTION snowflake_time(bigint)")
    assets.untouch("transaction")
    op.execute("DROP FUNCTION touch_entity()")
    op.drop_table("snowflake_node")
