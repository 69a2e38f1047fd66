-- sync: what becomes of a user's rows, and so of their documents, when the user goes.

CREATE TABLE plinth.sync_cascade_rules (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL CHECK (name <> '' AND octet_length(name) <= 200),
    relation     regclass NOT NULL,
    owner        regrole NOT NULL,               -- of every table of this name
    key_column   name NOT NULL,                  -- whose value says which rows
    action       text NOT NULL CHECK (action IN ('delete', 'anonymise', 'keep')),
    assignments  jsonb NOT NULL DEFAULT '{}',    -- anonymise: column -> value
    UNIQUE (name, relation, key_column)
);
COMMENT ON TABLE plinth.sync_cascade_rules IS 'Which rows go, or are made anonymous, with the key that they name: see plinth.sync_cascade.';

SELECT pg_catalog.pg_extension_config_dump('plinth.sync_cascade_rules', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.sync_cascade_rules_id_seq', '');

ALTER TABLE plinth.sync_cascade_rules OWNER TO plinth_owner;
ALTER TABLE plinth.sync_cascade_rules ENABLE ROW LEVEL SECURITY;
CREATE POLICY sync_cascade_rules_own ON plinth.sync_cascade_rules FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE') OR pg_catalog.pg_has_role('plinth_admin', 'USAGE'));
REVOKE ALL ON plinth.sync_cascade_rules FROM PUBLIC;
-- On purpose to PUBLIC: any role may own tables, and the policy says which.
GRANT SELECT ON plinth.sync_cascade_rules TO PUBLIC;
