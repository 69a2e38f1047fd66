-- mongo: BSON and values.

CREATE OR REPLACE FUNCTION plinth.mongodb_fdw_validator(options text[], catalog oid) RETURNS void
    AS 'MODULE_PATHNAME', 'plinth_mongo_validator'
    LANGUAGE C STRICT;
REVOKE ALL ON FUNCTION plinth.mongodb_fdw_validator(text[], oid) FROM PUBLIC;
COMMENT ON FUNCTION plinth.mongodb_fdw_validator(text[], oid) IS
'Checks the options of a mongodb_fdw server or user mapping.
PostgreSQL calls it at CREATE and ALTER; options is the whole list, catalog the kind of object.
Returns nothing. Errors: HV00D for an unknown option, HV024 for a bad value, HV00J for a missing one, 42501 for one that needs more rights.';

COMMENT ON FOREIGN DATA WRAPPER mongodb_fdw IS 'MongoDB servers and their credentials, for plinth.sync_table';
GRANT USAGE ON FOREIGN DATA WRAPPER mongodb_fdw TO plinth_admin;

CREATE OR REPLACE FUNCTION plinth.to_bson(item anyelement) RETURNS bytea
    AS 'MODULE_PATHNAME', 'plinth_mongo_to_bson'
    LANGUAGE C STABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION plinth.to_bson(anyelement) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.to_bson(anyelement) TO anon, authenticated, plinth_admin;
COMMENT ON FUNCTION plinth.to_bson(anyelement) IS
'The value as a BSON document, as sync would write it.
item: a row or a JSON object becomes the document, anything else its field "value".
Returns the bytes. Errors: 54000 for over 16 MiB or 100 levels, 22xxx for what BSON cannot hold.';

CREATE OR REPLACE FUNCTION plinth.from_bson(document bytea) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'plinth_mongo_from_bson'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION plinth.from_bson(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.from_bson(bytea) TO anon, authenticated, plinth_admin;
COMMENT ON FUNCTION plinth.from_bson(bytea) IS
'A BSON document as jsonb, in MongoDB''s relaxed Extended JSON.
document: the bytes of one document, from anyone: they are checked first.
Returns jsonb. Errors: 22P03 for what is no sound BSON, 54000 for over 100 levels, 22P05 for a NUL character in a string.';
