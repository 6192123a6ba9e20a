-- When a Snowflake key was made: SELECT snowflake_time(id) FROM transaction;
CREATE OR REPLACE FUNCTION snowflake_time(key bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN to_timestamp(((key >> 22) + 1735689600000) / 1000.0);
