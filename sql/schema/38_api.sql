-- api: what api_install has put where.

CREATE TABLE plinth.api_functions (
    schema_name  text NOT NULL,
    name         text NOT NULL,
    arguments    text NOT NULL,
    result       text NOT NULL,
    body         text NOT NULL, -- as it was installed: a function with another one is not ours any more
    version      text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (schema_name, name)
);
ALTER TABLE plinth.api_functions OWNER TO plinth_owner;
SELECT pg_catalog.pg_extension_config_dump('plinth.api_functions', '');
COMMENT ON TABLE plinth.api_functions IS 'The functions that api_install made in schemas of applications.';
