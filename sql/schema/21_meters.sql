-- limits: usage meters, their quotas, and what was used.

CREATE TABLE plinth.meters (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (name <> '' AND pg_catalog.octet_length(name) <= 200),
    unit         text CHECK (pg_catalog.octet_length(unit) <= 100),
    scale        integer NOT NULL DEFAULT 6 CHECK (scale BETWEEN 0 AND 12),
    time_zone    text NOT NULL DEFAULT 'UTC' CHECK (pg_catalog.octet_length(time_zone) BETWEEN 1 AND 63),
    periods      text[] NOT NULL DEFAULT '{month}' CHECK (periods <@ ARRAY['minute', 'hour', 'day', 'month']
                     AND pg_catalog.array_position(periods, NULL) IS NULL),
    status_code  integer NOT NULL DEFAULT 429 CHECK (status_code IN (402, 429)),
    durable      boolean NOT NULL DEFAULT false,
    on_error     text NOT NULL DEFAULT 'deny' CHECK (on_error IN ('allow', 'deny')),
    enabled      boolean NOT NULL DEFAULT true,
    retention    interval CHECK (retention >= interval '2 days'),
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.now()
);
ALTER TABLE plinth.meters OWNER TO plinth_owner;
COMMENT ON TABLE plinth.meters IS 'What is counted, and how.';
COMMENT ON COLUMN plinth.meters.scale IS 'Decimal digits that are kept. Cannot be changed.';
COMMENT ON COLUMN plinth.meters.time_zone IS 'Whose days, months and so on.';
COMMENT ON COLUMN plinth.meters.periods IS 'What is kept besides the total: minute, hour, day, month. What is added later counts from then on.';
COMMENT ON COLUMN plinth.meters.status_code IS 'What meter_require says when a hard quota is used up.';
COMMENT ON COLUMN plinth.meters.durable IS 'Counted in the table, by the transaction, and rolled back with it. Cannot be changed.';
COMMENT ON COLUMN plinth.meters.on_error IS 'When no shared memory is left: deny raises an error, allow goes on without counting.';
COMMENT ON COLUMN plinth.meters.retention IS 'How long minutes, hours and days are kept after they began; NULL for ever. Months and totals stay.';

CREATE TABLE plinth.meter_quotas (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id     bigint NOT NULL REFERENCES plinth.meters ON DELETE CASCADE,
    period       text NOT NULL CHECK (period IN ('minute', 'hour', 'day', 'month', 'total')),
    key          text CHECK (key <> '' AND pg_catalog.octet_length(key) <= 1024),
    tier         text CHECK (tier <> '' AND pg_catalog.octet_length(tier) <= 63),
    soft         numeric CHECK (soft >= 0 AND soft < 'Infinity'),
    hard         numeric CHECK (hard >= 0 AND hard < 'Infinity'),
    CHECK (key IS NULL OR tier IS NULL)
);
ALTER TABLE plinth.meter_quotas OWNER TO plinth_owner;
CREATE UNIQUE INDEX meter_quotas_key_idx ON plinth.meter_quotas
    (meter_id, period, coalesce(key, ''), coalesce(tier, ''));
COMMENT ON TABLE plinth.meter_quotas IS
'How much of a meter may be used in a period: by one key, else by users of one tier, else by everybody. NULL is no quota.';

CREATE TABLE plinth.meter_usage (
    meter_id     bigint NOT NULL REFERENCES plinth.meters ON DELETE CASCADE,
    key          text NOT NULL,
    dimension    text NOT NULL DEFAULT '',
    period       text NOT NULL CHECK (period IN ('minute', 'hour', 'day', 'month', 'total')),
    period_start timestamptz NOT NULL,
    amount       numeric NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (meter_id, key, dimension, period, period_start)
) WITH (fillfactor = 80);
ALTER TABLE plinth.meter_usage OWNER TO plinth_owner;
CREATE INDEX meter_usage_period_idx ON plinth.meter_usage (meter_id, period, period_start);
COMMENT ON TABLE plinth.meter_usage IS
'What was used, as far as it is flushed. A key''s row without a dimension has all of its dimensions in it; a total began at -infinity.';

SELECT pg_catalog.pg_extension_config_dump('plinth.meters', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.meters_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.meter_quotas', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.meter_quotas_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.meter_usage', '');
