-- A trigger function for every entity: the time of its last change, and a version that always moves.
-- A writer that counts the version up itself, as the service does, keeps its own.
CREATE OR REPLACE FUNCTION touch_entity() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  IF NEW.version = OLD.version THEN
    NEW.version := OLD.version + 1;
  END IF;
  RETURN NEW;
END
$$;
