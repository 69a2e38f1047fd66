-- limits: policies of rate limits, and the lists of who is always or never let through.

CREATE TABLE plinth.rate_limits (
    id          int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$'),
    algorithm   text NOT NULL DEFAULT 'gcra' CHECK (algorithm IN ('gcra', 'token_bucket', 'fixed_window')),
    limit_count bigint NOT NULL CHECK (limit_count BETWEEN 1 AND 1000000000),
    period      interval NOT NULL CHECK (period BETWEEN '100 milliseconds' AND '366 days'),
    burst       bigint CHECK (burst BETWEEN 1 AND 1000000000),
    scope       text NOT NULL DEFAULT 'user' CHECK (scope IN ('user', 'session', 'address', 'key', 'endpoint')),
    tiers       jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(tiers) = 'object'),
    shadow      boolean NOT NULL DEFAULT false,
    enabled     boolean NOT NULL DEFAULT true,
    on_error    text NOT NULL DEFAULT 'deny' CHECK (on_error IN ('allow', 'deny')),
    comment     text CHECK (pg_catalog.octet_length(comment) <= 1000),
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CHECK (algorithm <> 'fixed_window' OR burst IS NULL)
);
ALTER TABLE plinth.rate_limits OWNER TO plinth_owner;
SELECT pg_catalog.pg_extension_config_dump('plinth.rate_limits', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.rate_limits_id_seq', '');

CREATE TABLE plinth.rate_limit_rules (
    id         int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    policy     text REFERENCES plinth.rate_limits (name) ON UPDATE CASCADE ON DELETE CASCADE,
    network    cidr,
    key        text CHECK (pg_catalog.octet_length(key) BETWEEN 1 AND 1024),
    action     text NOT NULL CHECK (action IN ('allow', 'deny')),
    comment    text CHECK (pg_catalog.octet_length(comment) <= 1000),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CHECK (pg_catalog.num_nonnulls(network, key) = 1)
);
ALTER TABLE plinth.rate_limit_rules OWNER TO plinth_owner;
CREATE INDEX rate_limit_rules_policy ON plinth.rate_limit_rules (policy);
SELECT pg_catalog.pg_extension_config_dump('plinth.rate_limit_rules', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.rate_limit_rules_id_seq', '');

-- What a decision says.
CREATE TYPE plinth.rate_limit_decision AS (
    allowed     boolean,
    limit_count bigint,
    remaining   bigint,
    retry_after interval,
    reset_after interval
);
ALTER TYPE plinth.rate_limit_decision OWNER TO plinth_owner;
COMMENT ON TYPE plinth.rate_limit_decision IS 'A decision on a rate limit; see rate_limit_check.';
