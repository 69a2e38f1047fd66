-- base: identifiers, encodings and the readers of the request context.

CREATE OR REPLACE FUNCTION plinth.uuid_v7() RETURNS uuid
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_uuid_v7';
COMMENT ON FUNCTION plinth.uuid_v7() IS
'Makes a UUID version 7.
Within a session each is greater than the one before, in the same millisecond too (RFC 9562, method 3).';

CREATE OR REPLACE FUNCTION plinth.ulid(prefix text DEFAULT '') RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_ulid';
COMMENT ON FUNCTION plinth.ulid(text) IS
'Makes a ULID with a prefix, such as rpl_01HN5C0Q8ZP2J8R9S7T6V5W4X3.
prefix: at most 16 of a-z, 0-9 and _; with an empty prefix the ULID stands alone. Sorts by the millisecond in which it was made.
Errors: 22023 for another prefix.';

CREATE OR REPLACE FUNCTION plinth.objectid() RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_objectid';
COMMENT ON FUNCTION plinth.objectid() IS
'Makes a MongoDB ObjectId as 24 hexadecimal digits.
Four bytes of time, five random ones of this process and a counter of three.';

CREATE OR REPLACE FUNCTION plinth.base64url_encode(data bytea) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_base64url_encode';
COMMENT ON FUNCTION plinth.base64url_encode(bytea) IS
'Encodes bytes as base64url without padding (RFC 4648, section 5).';

CREATE OR REPLACE FUNCTION plinth.base64url_decode(data text) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_base64url_decode';
COMMENT ON FUNCTION plinth.base64url_decode(text) IS
'Decodes base64url without padding (RFC 4648, section 5).
Only what encoding gives is accepted, so that each value has one form. Errors: 22P02 for anything else.';

REVOKE ALL ON FUNCTION plinth.uuid_v7(), plinth.ulid(text), plinth.objectid(),
    plinth.base64url_encode(bytea), plinth.base64url_decode(text) FROM PUBLIC;
-- On purpose to PUBLIC: they are column defaults, which run as whoever inserts.
GRANT EXECUTE ON FUNCTION plinth.uuid_v7(), plinth.ulid(text), plinth.objectid(),
    plinth.base64url_encode(bytea), plinth.base64url_decode(text) TO PUBLIC;
