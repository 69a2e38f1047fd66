-- limits: rate limits.

CREATE OR REPLACE FUNCTION plinth._limits_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_limits_changed';
COMMENT ON FUNCTION plinth._limits_changed() IS 'Lets every backend read the policies of limits anew when the change commits.';

CREATE OR REPLACE FUNCTION plinth._limits_dropped() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_limits_dropped';
COMMENT ON FUNCTION plinth._limits_dropped() IS 'Forgets the keys of a policy whose removal commits.';

CREATE OR REPLACE FUNCTION plinth._rate_limit_valid(algorithm text, limit_count bigint, period interval, burst bigint) RETURNS boolean
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_limits_valid';
COMMENT ON FUNCTION plinth._rate_limit_valid(text, bigint, interval, bigint) IS 'Whether the terms of a rate limit are within bounds.';

CREATE OR REPLACE FUNCTION plinth._rate_limits_validate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    terms jsonb;
BEGIN
    FOR t IN SELECT NULL AS tier, '{}'::jsonb AS value UNION ALL SELECT e.key, e.value FROM jsonb_each(NEW.tiers) e LOOP
        IF jsonb_typeof(t.value) <> 'object' OR t.value - '{limit_count,period,burst}'::text[] <> '{}' THEN
            RAISE EXCEPTION 'tier "%" of rate limit policy "%" is not made of limit_count, period and burst', t.tier, NEW.name
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Write for example {"pro": {"limit_count": 1000, "period": "1 minute"}}.';
        END IF;
        -- What a tier does not name is as in the policy; but one with a limit of its own has that as its burst.
        IF NOT plinth._rate_limit_valid(NEW.algorithm,
            coalesce((t.value ->> 'limit_count')::bigint, NEW.limit_count),
            coalesce((t.value ->> 'period')::interval, NEW.period),
            coalesce((t.value ->> 'burst')::bigint, CASE WHEN t.value ->> 'limit_count' IS NULL THEN NEW.burst END)) THEN
            RAISE EXCEPTION 'rate limit policy "%" is out of bounds', NEW.name
                USING ERRCODE = 'invalid_parameter_value',
                DETAIL = coalesce('Tier "' || t.tier || '": ', '') || 'Limit and burst are from 1 to 1000000000, the period is from 0.1 s to 366 days, '
                    'and so is the time in which the burst comes back. A fixed window has no burst.';
        END IF;
    END LOOP;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION plinth._rate_limits_validate() IS 'Refuses policies that are out of bounds.';

CREATE OR REPLACE TRIGGER rate_limits_validate BEFORE INSERT OR UPDATE ON plinth.rate_limits
    FOR EACH ROW EXECUTE FUNCTION plinth._rate_limits_validate();
CREATE OR REPLACE TRIGGER rate_limits_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.rate_limits
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._limits_changed();
-- A subscription's apply fires triggers of rows only; elsewhere those of statements do.
CREATE OR REPLACE TRIGGER rate_limits_row_changed AFTER INSERT OR UPDATE OR DELETE ON plinth.rate_limits
    FOR EACH ROW EXECUTE FUNCTION plinth._limits_changed();
CREATE OR REPLACE TRIGGER rate_limit_rules_row_changed AFTER INSERT OR UPDATE OR DELETE ON plinth.rate_limit_rules
    FOR EACH ROW EXECUTE FUNCTION plinth._limits_changed();
CREATE OR REPLACE TRIGGER rate_limits_dropped AFTER DELETE ON plinth.rate_limits
    FOR EACH ROW EXECUTE FUNCTION plinth._limits_dropped();
CREATE OR REPLACE TRIGGER rate_limits_emptied AFTER TRUNCATE ON plinth.rate_limits
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._limits_dropped();
CREATE OR REPLACE TRIGGER rate_limit_rules_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.rate_limit_rules
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._limits_changed();
ALTER TABLE plinth.rate_limits ENABLE ALWAYS TRIGGER rate_limits_validate;
ALTER TABLE plinth.rate_limits ENABLE ALWAYS TRIGGER rate_limits_changed;
ALTER TABLE plinth.rate_limits ENABLE REPLICA TRIGGER rate_limits_row_changed;
ALTER TABLE plinth.rate_limits ENABLE ALWAYS TRIGGER rate_limits_dropped;
ALTER TABLE plinth.rate_limits ENABLE ALWAYS TRIGGER rate_limits_emptied;
ALTER TABLE plinth.rate_limit_rules ENABLE ALWAYS TRIGGER rate_limit_rules_changed;
ALTER TABLE plinth.rate_limit_rules ENABLE REPLICA TRIGGER rate_limit_rules_row_changed;

COMMENT ON TABLE plinth.rate_limits IS 'Policies of rate limits. A change counts for everybody from its commit on.';
COMMENT ON COLUMN plinth.rate_limits.algorithm IS 'gcra and token_bucket are the same: a bucket of burst tokens that fills at limit_count a period. fixed_window: limit_count in each period, counted from the Unix epoch.';
COMMENT ON COLUMN plinth.rate_limits.burst IS 'What may be used at once; NULL: limit_count.';
COMMENT ON COLUMN plinth.rate_limits.scope IS 'Whom a call without a key counts: the user or the session of the request context, the client''s address, user and path of the request (endpoint); key: a call must have one.';
COMMENT ON COLUMN plinth.rate_limits.tiers IS 'Other terms for users of a tier (users.tier): {"pro": {"limit_count": 1000, "period": "1 minute", "burst": 50}}.';
COMMENT ON COLUMN plinth.rate_limits.shadow IS 'Counts what would be denied, and allows it.';
COMMENT ON COLUMN plinth.rate_limits.enabled IS 'false: everything is allowed and nothing counted.';
COMMENT ON COLUMN plinth.rate_limits.on_error IS 'The answer when the memory for keys is full of others that are in use: allow or deny.';
COMMENT ON TABLE plinth.rate_limit_rules IS 'Who is always let through, or never: a network, or a key; for one policy, or for all (policy NULL). A key beats a network, the longer prefix the shorter, deny beats allow.';

GRANT SELECT, INSERT, UPDATE, DELETE ON plinth.rate_limits, plinth.rate_limit_rules TO plinth_admin;

CREATE OR REPLACE FUNCTION plinth.rate_limit_create(name text, limit_count bigint, period interval, burst bigint DEFAULT NULL,
        algorithm text DEFAULT 'gcra', scope text DEFAULT 'user', tiers jsonb DEFAULT '{}', shadow boolean DEFAULT false,
        enabled boolean DEFAULT true, on_error text DEFAULT 'deny', comment text DEFAULT NULL) RETURNS int
    LANGUAGE sql VOLATILE
BEGIN ATOMIC
    INSERT INTO plinth.rate_limits (name, limit_count, period, burst, algorithm, scope, tiers, shadow, enabled, on_error, comment)
        VALUES (rate_limit_create.name, rate_limit_create.limit_count, rate_limit_create.period, rate_limit_create.burst,
            rate_limit_create.algorithm, rate_limit_create.scope, rate_limit_create.tiers, rate_limit_create.shadow,
            rate_limit_create.enabled, rate_limit_create.on_error, rate_limit_create.comment)
        RETURNING id;
END;
COMMENT ON FUNCTION plinth.rate_limit_create(text, bigint, interval, bigint, text, text, jsonb, boolean, boolean, text, text) IS
'Creates a policy of rate limits.
name: A-Z, a-z, 0-9, "_", ".", ":" and "-", at most 63. limit_count in each period, from 1 to 1000000000; period: 0.1 s to 366 days, a month is 30 days. burst: what may be used at once, NULL for limit_count; a fixed window has none. algorithm: gcra, token_bucket (the same) or fixed_window. scope: user, session, address, key or endpoint. tiers: other terms by users.tier. shadow: counts only. on_error: "deny" or "allow", the answer when the memory for keys is full.
Returns the policy''s id. Counts from the commit on.
Errors: 23505 for a name that is taken, 23514 and 22023 for what is out of bounds.';

CREATE OR REPLACE FUNCTION plinth.rate_limit_alter(name text, limit_count bigint DEFAULT NULL, period interval DEFAULT NULL,
        burst bigint DEFAULT NULL, algorithm text DEFAULT NULL, scope text DEFAULT NULL, tiers jsonb DEFAULT NULL,
        shadow boolean DEFAULT NULL, enabled boolean DEFAULT NULL, on_error text DEFAULT NULL, comment text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO plinth.rate_limits (name, algorithm, limit_count, period, burst, scope, shadow, enabled, on_error, comment)
        SELECT d.name, d.algorithm, d.limit_count, d.period, d.burst, d.scope, d.shadow, d.enabled, d.on_error, d.comment
            FROM plinth.rate_limit_defaults d WHERE d.name = rate_limit_alter.name
        ON CONFLICT DO NOTHING;
    UPDATE plinth.rate_limits r SET
        limit_count = coalesce(rate_limit_alter.limit_count, r.limit_count),
        period = coalesce(rate_limit_alter.period, r.period),
        burst = CASE coalesce(rate_limit_alter.algorithm, r.algorithm) WHEN 'fixed_window' THEN rate_limit_alter.burst
            ELSE coalesce(rate_limit_alter.burst, r.burst) END,
        algorithm = coalesce(rate_limit_alter.algorithm, r.algorithm),
        scope = coalesce(rate_limit_alter.scope, r.scope),
        tiers = coalesce(rate_limit_alter.tiers, r.tiers),
        shadow = coalesce(rate_limit_alter.shadow, r.shadow),
        enabled = coalesce(rate_limit_alter.enabled, r.enabled),
        on_error = coalesce(rate_limit_alter.on_error, r.on_error),
        comment = coalesce(rate_limit_alter.comment, r.comment)
        WHERE r.name = rate_limit_alter.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'rate limit policy "%" does not exist', rate_limit_alter.name USING ERRCODE = 'undefined_object',
            HINT = 'Create it with plinth.rate_limit_create().';
    END IF;
END
$$;
COMMENT ON FUNCTION plinth.rate_limit_alter(text, bigint, interval, bigint, text, text, jsonb, boolean, boolean, text, text) IS
'Changes a policy of rate limits.
What is NULL stays as it is; the arguments are those of rate_limit_create. One of plinth.rate_limit_defaults is put into the table first. Another limit_count, period or algorithm lets every key begin with all of its limit; another burst does not.
Errors: 42704 for an unknown policy, 23514 and 22023 for what is out of bounds.';

CREATE OR REPLACE FUNCTION plinth.rate_limit_drop(name text) RETURNS boolean
    LANGUAGE sql VOLATILE
BEGIN ATOMIC
    WITH gone AS (DELETE FROM plinth.rate_limits r WHERE r.name = rate_limit_drop.name RETURNING r.id)
        SELECT pg_catalog.count(*) > 0 FROM gone;
END;
COMMENT ON FUNCTION plinth.rate_limit_drop(text) IS
'Removes a policy of rate limits, its rules, and what its keys have used.
Returns false where there is none of that name. Who asks for it from the commit on gets an error, or what plinth.rate_limit_defaults says.';

CREATE OR REPLACE FUNCTION plinth.rate_limit_check(policy text, key text DEFAULT NULL, cost bigint DEFAULT 1)
    RETURNS plinth.rate_limit_decision
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_limits_check_sql';
COMMENT ON FUNCTION plinth.rate_limit_check(text, text, bigint) IS
'Asks whether a policy allows something now, and consumes it if so.
key: who is counted, 1 to 1024 bytes; NULL is the caller by the policy''s scope. cost: how much at once; 0 consumes nothing and tells whether 1 would be allowed.
Returns allowed; limit_count, what may be used at once; remaining; retry_after, until the same cost would be allowed: 0 when it is, NULL for never; reset_after, until nothing counts as used. What was consumed stays consumed when the transaction rolls back. Works in READ ONLY transactions and on a standby.
When the memory for keys is full the policy''s on_error answers.
Errors: 42704 for an unknown policy, 22023 for a cost below 0 or above what is allowed at once and for a key that is empty, too long or no address where the scope is address, 22004 for a policy or cost that is NULL and for a key that is missing.';

CREATE OR REPLACE FUNCTION plinth.rate_limit_allow(policy text, key text DEFAULT NULL, cost bigint DEFAULT 1) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_limits_allow_sql';
COMMENT ON FUNCTION plinth.rate_limit_allow(text, text, bigint) IS
'Asks whether a policy allows something now, and consumes it if so: rate_limit_check for who needs no more than the answer.
SELECT plinth.rate_limit_allow(...) costs a client little more than SELECT 1.
Returns true when it is allowed. Arguments and errors: those of rate_limit_check.';

CREATE OR REPLACE FUNCTION plinth.rate_limit_check_all(policies text[], key text DEFAULT NULL, cost bigint DEFAULT 1,
        OUT allowed boolean, OUT policy text, OUT limit_count bigint, OUT remaining bigint, OUT retry_after interval, OUT reset_after interval)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_limits_check_all_sql';
COMMENT ON FUNCTION plinth.rate_limit_check_all(text[], text, bigint) IS
'Asks whether several policies all allow something now, and consumes it in each if so, in none otherwise.
policies: 1 to 16 names, none twice. key and cost as in rate_limit_check, for each policy.
Returns the decision of the policy that makes one wait the longest, or else has the least left. One instant for all: nobody sees a part of it.
Errors: those of rate_limit_check.';

CREATE OR REPLACE FUNCTION plinth.rate_limit_check_adhoc(key text, limit_count bigint, period interval, burst bigint DEFAULT NULL,
        cost bigint DEFAULT 1) RETURNS plinth.rate_limit_decision
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_limits_check_adhoc_sql';
COMMENT ON FUNCTION plinth.rate_limit_check_adhoc(text, bigint, interval, bigint, bigint) IS
'Asks for a key by terms that are given here, without a policy, and consumes it if allowed.
key: who is counted for what, 1 to 1024 bytes. limit_count in each period, as a bucket of burst (NULL: limit_count); cost as in rate_limit_check. Keys are shared by all callers with the same limit_count and period; allow and deny lists do not count.
Returns what rate_limit_check does. When the memory for keys is full, the answer is no.
Errors: 22023 for what is out of bounds, 22004 for NULL.';

CREATE OR REPLACE FUNCTION plinth.rate_limit_require(policy text, key text DEFAULT NULL, cost bigint DEFAULT 1) RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_limits_require_sql';
COMMENT ON FUNCTION plinth.rate_limit_require(text, text, bigint) IS
'Consumes as rate_limit_check does, and raises an error when the policy does not allow it.
Under PostgREST the answer is HTTP 429 with Retry-After, RateLimit and RateLimit-Policy; when allowed, the latter two are added to response.headers.
Errors: PT429 when it is not allowed (PGRST under PostgREST), and those of rate_limit_check.';

CREATE OR REPLACE FUNCTION plinth.rate_limit_reset(policy text, key text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_limits_reset_sql';
COMMENT ON FUNCTION plinth.rate_limit_reset(text, text) IS
'Gives a key all of a policy''s limit again, in every tier.
key: as in rate_limit_check; a caller''s own is user:<id>, session:<id>, address:<address> or local.
Returns whether something was used. At once, and not undone by a rollback. Errors: those of rate_limit_check.';

CREATE OR REPLACE FUNCTION plinth._stat_limits(OUT policy text, OUT allowed bigint, OUT denied bigint, OUT shadow_denied bigint,
        OUT table_full bigint, OUT evicted bigint, OUT entries bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_limits_stat';
COMMENT ON FUNCTION plinth._stat_limits() IS 'What became of the decisions on each policy of this database, for plinth.stat_limits.';

CREATE OR REPLACE VIEW plinth.stat_limits AS
SELECT policy, allowed, denied, shadow_denied, table_full, evicted, entries FROM plinth._stat_limits();
ALTER VIEW plinth.stat_limits OWNER TO plinth_owner;
COMMENT ON VIEW plinth.stat_limits IS
'Decisions on each policy since the server started, on this node: allowed, denied, denied but for shadow mode; table_full: answered by on_error since no key could make place; evicted: idle keys that made place for one of this policy; entries: keys that have used some of their limit now.';

REVOKE ALL ON FUNCTION plinth._limits_changed(), plinth._limits_dropped(), plinth._rate_limits_validate(),
    plinth._rate_limit_valid(text, bigint, interval, bigint), plinth._stat_limits(),
    plinth.rate_limit_create(text, bigint, interval, bigint, text, text, jsonb, boolean, boolean, text, text),
    plinth.rate_limit_alter(text, bigint, interval, bigint, text, text, jsonb, boolean, boolean, text, text),
    plinth.rate_limit_drop(text), plinth.rate_limit_check(text, text, bigint), plinth.rate_limit_allow(text, text, bigint),
    plinth.rate_limit_check_all(text[], text, bigint),
    plinth.rate_limit_check_adhoc(text, bigint, interval, bigint, bigint), plinth.rate_limit_require(text, text, bigint),
    plinth.rate_limit_reset(text, text) FROM PUBLIC;
-- Not to clients: whoever may pass a key could use up another's limit.
GRANT EXECUTE ON FUNCTION plinth._rate_limit_valid(text, bigint, interval, bigint),
    plinth.rate_limit_create(text, bigint, interval, bigint, text, text, jsonb, boolean, boolean, text, text),
    plinth.rate_limit_alter(text, bigint, interval, bigint, text, text, jsonb, boolean, boolean, text, text),
    plinth.rate_limit_drop(text), plinth.rate_limit_check(text, text, bigint), plinth.rate_limit_allow(text, text, bigint),
    plinth.rate_limit_check_all(text[], text, bigint),
    plinth.rate_limit_check_adhoc(text, bigint, interval, bigint, bigint), plinth.rate_limit_require(text, text, bigint),
    plinth.rate_limit_reset(text, text) TO plinth_admin;
GRANT EXECUTE ON FUNCTION plinth._stat_limits() TO plinth_admin, pg_monitor;
REVOKE ALL ON plinth.stat_limits FROM PUBLIC;
GRANT SELECT ON plinth.stat_limits TO plinth_admin, pg_monitor;
