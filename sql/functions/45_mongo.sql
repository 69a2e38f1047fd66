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

CREATE OR REPLACE FUNCTION plinth.bson_to_extjson(document bytea, relaxed boolean DEFAULT false) RETURNS text
    AS 'MODULE_PATHNAME', 'plinth_mongo_bson_to_extjson'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION plinth.bson_to_extjson(bytea, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.bson_to_extjson(bytea, boolean) TO anon, authenticated, plinth_admin;
COMMENT ON FUNCTION plinth.bson_to_extjson(bytea, boolean) IS
'A BSON document as MongoDB''s Extended JSON (version 2), from which extjson_to_bson makes the same bytes.
document: the bytes of one document, from anyone: they are checked first. relaxed: for people: numbers and times as plain JSON, which lose their types.
Returns the text, names in their order, those given twice too. Errors: 22P03 with the byte for what is no sound BSON, 54000 for over 100 levels.';

CREATE OR REPLACE FUNCTION plinth.extjson_to_bson(document text) RETURNS bytea
    AS 'MODULE_PATHNAME', 'plinth_mongo_extjson_to_bson'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE ALL ON FUNCTION plinth.extjson_to_bson(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.extjson_to_bson(text) TO anon, authenticated, plinth_admin;
COMMENT ON FUNCTION plinth.extjson_to_bson(text) IS
'Extended JSON (version 2, canonical or relaxed) as a BSON document.
document: one object; plain numbers become Int32, Int64 or Double, the first that holds them.
Returns the bytes. Errors: 22P02 for what is no JSON (with its line) or no Extended JSON (with the names that lead there), 22008 for a time that never is, 54000 for over 16 MiB or 100 levels.';
