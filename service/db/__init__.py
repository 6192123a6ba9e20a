"""PostgreSQL: entities, units of work, the outbox and the migrations."""
