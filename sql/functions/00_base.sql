-- base: identifiers, encodings and the readers of the request context.

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

CREATE OR REPLACE FUNCTION plinth.current_user_id() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_current_user_id';
COMMENT ON FUNCTION plinth.current_user_id() IS
'The id of the user whose request this transaction is.
NULL without a context (see context_begin), or in one without a user. No client can set or clear it.';

CREATE OR REPLACE FUNCTION plinth.current_session_id() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_current_session_id';
COMMENT ON FUNCTION plinth.current_session_id() IS
'The id of the session under which this transaction''s request runs.
NULL without a context, or in one without a session.';

CREATE OR REPLACE FUNCTION plinth.current_api_key_id() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_current_api_key_id';
COMMENT ON FUNCTION plinth.current_api_key_id() IS
'The id of the API key that this transaction''s request came with.
NULL without a context, or in one that no API key began.';

CREATE OR REPLACE FUNCTION plinth.current_user_key() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_current_user_key';
COMMENT ON FUNCTION plinth.current_user_key() IS
'The application''s own key of the user whose request this transaction is.
Where the application has registered none, the user''s id as text; NULL without a user.';

CREATE OR REPLACE FUNCTION plinth.current_aal() RETURNS int
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_current_aal';
COMMENT ON FUNCTION plinth.current_aal() IS
'The authenticator assurance level of this transaction''s request, 1 to 3.
0 without a context, or in an anonymous one.';

CREATE OR REPLACE FUNCTION plinth.current_tier() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_current_tier';
COMMENT ON FUNCTION plinth.current_tier() IS
'The tier of the user whose request this transaction is.
NULL without a context, or in one without a user.';

REVOKE ALL ON FUNCTION plinth.current_user_id(), plinth.current_session_id(), plinth.current_api_key_id(), plinth.current_user_key(),
    plinth.current_aal(), plinth.current_tier() FROM PUBLIC;
-- On purpose to PUBLIC: policies call them as whoever reads the table, and they tell a caller only about itself.
GRANT EXECUTE ON FUNCTION plinth.current_user_id(), plinth.current_session_id(), plinth.current_api_key_id(), plinth.current_user_key(),
    plinth.current_aal(), plinth.current_tier() TO PUBLIC;
