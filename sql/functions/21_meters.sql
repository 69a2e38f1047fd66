-- limits: usage meters and quotas.

-- Triggers, ENABLE ALWAYS: what is changed by hand or by a restore counts as much as what the functions change.

CREATE OR REPLACE FUNCTION plinth._meter_touch() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_limits_meter_touch';
COMMENT ON FUNCTION plinth._meter_touch() IS
'Makes every backend read meters, quotas and usage anew.
A trigger; statement triggers do, but for logical replication.';

CREATE OR REPLACE FUNCTION plinth._meters_check() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Fails for a time zone that does not exist.
    PERFORM now() AT TIME ZONE NEW.time_zone;
    -- What an abbreviation means is a setting of each session, which could begin another period by it.
    IF upper(NEW.time_zone) NOT IN ('UTC', 'GMT') AND EXISTS (SELECT FROM pg_timezone_abbrevs AS a WHERE a.abbrev = upper(NEW.time_zone)) THEN
        RAISE EXCEPTION 'the time zone of a meter must not be an abbreviation, such as "%"', NEW.time_zone
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use a name of a place, such as "Asia/Kolkata".';
    END IF;
    IF TG_OP = 'UPDATE' AND (NEW.scale, NEW.durable) IS DISTINCT FROM (OLD.scale, OLD.durable) THEN
        RAISE EXCEPTION 'scale and durable of a meter cannot be changed'
            USING ERRCODE = 'feature_not_supported', HINT = 'Make another meter.';
    END IF;
    IF TG_OP = 'UPDATE' AND EXISTS (SELECT FROM plinth.meter_quotas AS q
            WHERE q.meter_id = NEW.id AND q.period <> 'total' AND q.period <> ALL (NEW.periods)) THEN
        RAISE EXCEPTION 'meter "%" has quotas of periods that it would not keep', NEW.name
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Delete these quotas from plinth.meter_quotas first.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION plinth._meters_check() IS
'Refuses a time zone that does not exist or is an abbreviation, what cannot be changed, and to keep no longer what a quota is of.
A row trigger.';

CREATE OR REPLACE FUNCTION plinth._meter_quotas_check() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    m plinth.meters;
BEGIN
    -- Whether there is such a meter is for the foreign key. Locked: its periods must not change beside this.
    SELECT * INTO m FROM plinth.meters AS t WHERE t.id = NEW.meter_id FOR SHARE;
    IF NEW.period <> 'total' AND NEW.period <> ALL (m.periods) THEN
        RAISE EXCEPTION 'meter "%" does not keep the period "%"', m.name, NEW.period
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Its quotas can be of those in plinth.meters.periods, and of "total".';
    END IF;
    IF greatest(NEW.soft, NEW.hard) * 10::numeric ^ m.scale > 9223372036854775806 THEN
        RAISE EXCEPTION 'a quota of meter "%" is out of range', m.name
            USING ERRCODE = 'numeric_value_out_of_range', HINT = 'NULL is no quota; a meter with a smaller scale takes larger ones.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION plinth._meter_quotas_check() IS
'Refuses a quota that would never be asked: of a period that the meter does not keep, or more than can be counted.
A row trigger.';

CREATE OR REPLACE TRIGGER meters_check BEFORE INSERT OR UPDATE ON plinth.meters
    FOR EACH ROW EXECUTE FUNCTION plinth._meters_check();
-- Not for a replica: what arrives there was checked, and may come before its meter.
CREATE OR REPLACE TRIGGER meter_quotas_check BEFORE INSERT OR UPDATE ON plinth.meter_quotas
    FOR EACH ROW WHEN (NEW.period IN ('minute', 'hour', 'day', 'month', 'total')) EXECUTE FUNCTION plinth._meter_quotas_check();
CREATE OR REPLACE TRIGGER meters_touch AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.meters
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._meter_touch();
CREATE OR REPLACE TRIGGER meter_quotas_touch AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.meter_quotas
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._meter_touch();
CREATE OR REPLACE TRIGGER meter_usage_touch AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.meter_usage
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._meter_touch();
CREATE OR REPLACE TRIGGER users_meter_tier AFTER UPDATE OF tier ON plinth.users
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._meter_touch();
ALTER TABLE plinth.meters ENABLE ALWAYS TRIGGER meters_check, ENABLE ALWAYS TRIGGER meters_touch;
ALTER TABLE plinth.meter_quotas ENABLE ALWAYS TRIGGER meter_quotas_touch;
ALTER TABLE plinth.meter_usage ENABLE ALWAYS TRIGGER meter_usage_touch;
ALTER TABLE plinth.users ENABLE ALWAYS TRIGGER users_meter_tier;

-- Logical replication fires no statement triggers, but for TRUNCATE.
CREATE OR REPLACE TRIGGER meters_touch_row AFTER INSERT OR UPDATE OR DELETE ON plinth.meters
    FOR EACH ROW EXECUTE FUNCTION plinth._meter_touch();
CREATE OR REPLACE TRIGGER meter_quotas_touch_row AFTER INSERT OR UPDATE OR DELETE ON plinth.meter_quotas
    FOR EACH ROW EXECUTE FUNCTION plinth._meter_touch();
CREATE OR REPLACE TRIGGER meter_usage_touch_row AFTER INSERT OR UPDATE OR DELETE ON plinth.meter_usage
    FOR EACH ROW EXECUTE FUNCTION plinth._meter_touch();
CREATE OR REPLACE TRIGGER users_meter_tier_row AFTER UPDATE OF tier ON plinth.users
    FOR EACH ROW WHEN (OLD.tier IS DISTINCT FROM NEW.tier) EXECUTE FUNCTION plinth._meter_touch();
ALTER TABLE plinth.meters ENABLE REPLICA TRIGGER meters_touch_row;
ALTER TABLE plinth.meter_quotas ENABLE REPLICA TRIGGER meter_quotas_touch_row;
ALTER TABLE plinth.meter_usage ENABLE REPLICA TRIGGER meter_usage_touch_row;
ALTER TABLE plinth.users ENABLE REPLICA TRIGGER users_meter_tier_row;

-- Definitions.

CREATE OR REPLACE FUNCTION plinth.meter_create(name text, unit text DEFAULT NULL, scale integer DEFAULT 6,
        time_zone text DEFAULT 'UTC', periods text[] DEFAULT '{month}', soft_quota jsonb DEFAULT '{}', hard_quota jsonb DEFAULT '{}',
        status_code integer DEFAULT 429, durable boolean DEFAULT false, on_error text DEFAULT 'deny', retention interval DEFAULT NULL)
        RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH m AS (
        INSERT INTO plinth.meters (name, unit, scale, time_zone, periods, status_code, durable, on_error, retention)
            VALUES (name, unit, scale, time_zone, periods, status_code, durable, on_error, retention) RETURNING id)
    INSERT INTO plinth.meter_quotas (meter_id, period, soft, hard)
        SELECT m.id, p.period, (soft_quota ->> p.period)::numeric, (hard_quota ->> p.period)::numeric
        FROM m, (SELECT pg_catalog.jsonb_object_keys(coalesce(soft_quota, '{}') || coalesce(hard_quota, '{}')) AS period) AS p;
END;
COMMENT ON FUNCTION plinth.meter_create(text, text, integer, text, text[], jsonb, jsonb, integer, boolean, text, interval) IS
'Makes a meter; all of it stands in plinth.meters and plinth.meter_quotas, where it can be changed by UPDATE and DELETE.
name: 1 to 200 bytes. unit: for people, such as ''tokens'' or ''EUR''. scale: decimal digits kept, 0 to 12. time_zone: whose days and months. periods: of minute, hour, day, month; a total is always kept. soft_quota, hard_quota: how much everybody may use, such as {"month": 100000, "total": 5e6}; see meter_quota for others. status_code: 429 or 402, what meter_require says. durable: count in the transaction instead of shared memory. on_error: ''deny'' or ''allow'', when no shared memory is left. retention: how long minutes, hours and days are kept (at least 2 days); NULL for ever.
Errors: 23505 for a name that exists, 23514, 22023 and 22003 for what is out of range.';

CREATE OR REPLACE FUNCTION plinth.meter_quota(meter text, period text, soft numeric DEFAULT NULL, hard numeric DEFAULT NULL,
        key text DEFAULT NULL, tier text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    wanted bigint;
BEGIN
    SELECT m.id INTO wanted FROM plinth.meters AS m WHERE m.name = meter;
    IF wanted IS NULL THEN
        RAISE EXCEPTION 'meter "%" does not exist', meter USING ERRCODE = 'undefined_object';
    END IF;
    DELETE FROM plinth.meter_quotas AS q
        WHERE q.meter_id = wanted AND q.period = period AND q.key IS NOT DISTINCT FROM key AND q.tier IS NOT DISTINCT FROM tier;
    INSERT INTO plinth.meter_quotas (meter_id, period, soft, hard, key, tier) VALUES (wanted, period, soft, hard, key, tier);
END
$$;
COMMENT ON FUNCTION plinth.meter_quota(text, text, numeric, numeric, text, text) IS
'Says how much of a meter may be used in a period, in place of what was said before.
period: one that the meter keeps, or total. soft, hard: amounts; NULL is no quota. key: for this key only; tier: for users (keys "user:<id>") of this tier in plinth.users; neither: for everybody else. Counts from the next call on, also for what is used already.
Errors: 42704 for an unknown meter, 23514 for an amount below 0, what is no period, or key and tier together, 22023 for a period that the meter does not keep, 22003 for an amount out of range.';

CREATE OR REPLACE FUNCTION plinth.meter_drop(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM plinth.meters AS m WHERE m.name = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'meter "%" does not exist', name USING ERRCODE = 'undefined_object';
    END IF;
END
$$;
COMMENT ON FUNCTION plinth.meter_drop(text) IS
'Drops a meter, its quotas, and all that was counted by it.
Errors: 42704 for an unknown meter.';

-- Counting.

CREATE OR REPLACE FUNCTION plinth.meter_add(meter text, amount numeric DEFAULT 1, key text DEFAULT NULL, dimension text DEFAULT NULL)
        RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_meter_add';
COMMENT ON FUNCTION plinth.meter_add(text, numeric, text, text) IS
'Counts an amount, whatever the quotas say.
amount: exact, at most the meter''s scale of decimal digits; below 0 corrects. key: 1 to 1024 bytes; NULL for the caller ("user:<id>", without a context the client''s address). dimension: what it is also kept by, such as a model; 1 to 200 bytes.
Counts at once, also when the transaction rolls back or is read-only; a durable meter, and one made or changed in this transaction, in the transaction. Nothing for a meter that is not enabled.
Errors: 42704 for an unknown meter, 22004 and 22023 for NULL, NaN, infinity, too many digits or a key out of range, 22003 for too much, 25006 on a standby, 53400 when plinth.limits_memory is full and on_error is deny.';

CREATE OR REPLACE FUNCTION plinth.meter_check(meter text, amount numeric DEFAULT 1, key text DEFAULT NULL, dimension text DEFAULT NULL,
        OUT allowed boolean, OUT status text, OUT period text, OUT used numeric, OUT soft_quota numeric, OUT hard_quota numeric,
        OUT remaining numeric, OUT resets_at timestamptz) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_meter_check';
COMMENT ON FUNCTION plinth.meter_check(text, numeric, text, text) IS
'Counts an amount unless it would exceed a hard quota, as one step; 0 only looks.
Arguments as meter_add, but amount not below 0. Quotas are of the key with all of its dimensions.
Returns allowed; status: ''ok'', ''soft'' (counted, and a soft quota is exceeded), ''hard'' (not counted), ''disabled'', or ''error'' (not counted for want of memory, on_error is allow); then for the quota that refuses, or has the least left: period, what is used now, both quotas, what remains, and when the period ends. NULLs where no quota says anything.
Errors: as meter_add.';

CREATE OR REPLACE FUNCTION plinth.meter_require(meter text, amount numeric DEFAULT 1, key text DEFAULT NULL, dimension text DEFAULT NULL,
        OUT allowed boolean, OUT status text, OUT period text, OUT used numeric, OUT soft_quota numeric, OUT hard_quota numeric,
        OUT remaining numeric, OUT resets_at timestamptz) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_meter_require';
COMMENT ON FUNCTION plinth.meter_require(text, numeric, text, text) IS
'As meter_check, but raises an error where a hard quota would be exceeded.
Errors: PT429 or PT402, by the meter''s status_code; under PostgREST with Retry-After and the RateLimit fields. Else as meter_check.';

-- Reading.

CREATE OR REPLACE FUNCTION plinth.meter_read(meter text, key text DEFAULT NULL, period text DEFAULT 'total', at timestamptz DEFAULT NULL,
        dimension text DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_meter_read';
COMMENT ON FUNCTION plinth.meter_read(text, text, text, timestamptz, text) IS
'What a key has used in a period: what is in the table and what is not flushed yet, each once.
key: NULL for the caller. period: one that the meter keeps, or total. at: any time of the period; NULL for now. dimension: of this one only; NULL for all. On a standby what is replayed. The latest state, whatever the transaction''s isolation level.
Returns 0 where nothing was counted. Errors: 42704 for an unknown meter, 22023 for a period that it does not keep.';

CREATE OR REPLACE FUNCTION plinth.meter_history(meter text, key text DEFAULT NULL, period text DEFAULT 'month', since timestamptz DEFAULT NULL,
        until timestamptz DEFAULT NULL, dimension text DEFAULT NULL) RETURNS TABLE (period_start timestamptz, amount numeric)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 12 AS 'MODULE_PATHNAME', 'plinth_limits_meter_history';
COMMENT ON FUNCTION plinth.meter_history(text, text, text, timestamptz, timestamptz, text) IS
'What a key has used in each period, oldest first, as meter_read reads it.
since, until: periods that began at or after the one and before the other; NULL for no bound. Periods in which nothing was counted have no row. Errors: as meter_read.';

CREATE OR REPLACE FUNCTION plinth.meter_flush() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_meter_flush_sql';
COMMENT ON FUNCTION plinth.meter_flush() IS
'Writes what was counted in this database to plinth.meter_usage, in this transaction; for an export that is to be complete.
Other flushes wait for its end. Returns how many amounts there were. Errors: 25006 in a read-only transaction, 0A000 under REPEATABLE READ and above.';

CREATE OR REPLACE FUNCTION plinth.meter_reset(meter text, key text DEFAULT NULL, period text DEFAULT NULL, dimension text DEFAULT NULL)
        RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_meter_reset';
COMMENT ON FUNCTION plinth.meter_reset(text, text, text, text) IS
'Sets what a key has used in the current periods to 0, in this transaction; what is counted from then on stays.
key: NULL for the caller. period: only this one; NULL for all, the total too. dimension: only this one; NULL for all and their sum. Earlier periods keep what they have.
Errors: as meter_read and meter_flush.';

CREATE OR REPLACE VIEW plinth.meter_export AS
SELECT m.name AS meter, m.unit, u.key, nullif(u.dimension, '') AS dimension, u.period,
       nullif(u.period_start, '-infinity') AS period_start, pg_catalog.trim_scale(u.amount) AS amount, u.updated_at
  FROM plinth.meter_usage AS u JOIN plinth.meters AS m ON m.id = u.meter_id;
ALTER VIEW plinth.meter_export OWNER TO plinth_owner;
COMMENT ON VIEW plinth.meter_export IS
'All usage that is flushed, for export: SELECT plinth.meter_flush() first makes it complete. Rows without a dimension have all of a key''s dimensions in them.';

CREATE OR REPLACE FUNCTION plinth._meter_stat(meter_id bigint, scale integer, OUT adds bigint, OUT denied bigint, OUT full_memory bigint,
        OUT keys_in_memory bigint, OUT pending numeric) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_meter_stat';

CREATE OR REPLACE VIEW plinth.stat_meters AS
SELECT m.name, m.enabled, m.durable, s.adds, s.denied, s.full_memory, s.keys_in_memory, s.pending
  FROM plinth.meters AS m CROSS JOIN LATERAL plinth._meter_stat(m.id, m.scale) AS s;
ALTER VIEW plinth.stat_meters OWNER TO plinth_owner;
COMMENT ON VIEW plinth.stat_meters IS
'Each meter since the server''s start: calls that counted, that a hard quota refused, that found plinth.limits_memory full; and now: keys in shared memory, and the amount that is not flushed yet.';

-- Rights.

REVOKE ALL ON FUNCTION plinth._meter_touch(), plinth._meters_check(), plinth._meter_quotas_check(),
    plinth.meter_create(text, text, integer, text, text[], jsonb, jsonb, integer, boolean, text, interval),
    plinth.meter_quota(text, text, numeric, numeric, text, text), plinth.meter_drop(text),
    plinth.meter_add(text, numeric, text, text), plinth.meter_check(text, numeric, text, text),
    plinth.meter_require(text, numeric, text, text), plinth.meter_read(text, text, text, timestamptz, text),
    plinth.meter_history(text, text, text, timestamptz, timestamptz, text), plinth.meter_flush(),
    plinth.meter_reset(text, text, text, text), plinth._meter_stat(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    plinth.meter_create(text, text, integer, text, text[], jsonb, jsonb, integer, boolean, text, interval),
    plinth.meter_quota(text, text, numeric, numeric, text, text), plinth.meter_drop(text),
    plinth.meter_add(text, numeric, text, text), plinth.meter_check(text, numeric, text, text),
    plinth.meter_require(text, numeric, text, text), plinth.meter_read(text, text, text, timestamptz, text),
    plinth.meter_history(text, text, text, timestamptz, timestamptz, text), plinth.meter_flush(),
    plinth.meter_reset(text, text, text, text) TO plinth_admin;
GRANT EXECUTE ON FUNCTION plinth._meter_stat(bigint, integer) TO plinth_owner, plinth_admin, pg_monitor;
GRANT SELECT, INSERT, UPDATE, DELETE ON plinth.meters, plinth.meter_quotas TO plinth_admin;
GRANT SELECT, UPDATE, DELETE ON plinth.meter_usage TO plinth_admin;
GRANT SELECT ON plinth.meter_export, plinth.stat_meters TO plinth_admin, pg_monitor;
