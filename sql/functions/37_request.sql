-- request: HTTP requests that come through PostgREST.

CREATE OR REPLACE FUNCTION plinth.pre_request() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_pre_request';
COMMENT ON FUNCTION plinth.pre_request() IS
'Begins the request context of an HTTP request; for PostgREST''s db-pre-request.
Reads request.headers, request.cookies and request.method. The credential is an access token after "Authorization: Bearer", a session''s or access token in plinth.session_header, an API key in plinth.api_key_header, or a session''s token in the cookie plinth.session_cookie; without one the context is anonymous. Where there are several, all must be good and stand for the same session or API key. Works in read-only transactions.
Errors: PT401 for a credential that context_begin would not accept (under PostgREST a cookie is taken away with it), PT403 for a cookie alone with an unsafe method from an origin that is not in plinth.allowed_origins, PT400 for credentials of different sessions or malformed settings, PT403 when another identity was fixed in this transaction, 0A000 inside a security-definer function.';

CREATE OR REPLACE FUNCTION plinth.response_header_add(name text, value text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_base_response_header';
COMMENT ON FUNCTION plinth.response_header_add(text, text) IS
'Adds a header to the HTTP response, beside those that are there.
name: 1 to 100 characters of a header''s name. value: without control characters. It is added to response.headers for this transaction, where PostgREST reads it.
Errors: 22023 for another name or value, or when response.headers is no array.';

CREATE OR REPLACE FUNCTION plinth.session_cookie_set(token text, expires_at timestamptz, same_site text DEFAULT 'Lax') RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_cookie_set';
COMMENT ON FUNCTION plinth.session_cookie_set(text, timestamptz, text) IS
'Gives a session''s token to the browser as the cookie plinth.session_cookie.
token and expires_at: as sign_in returned them. same_site: Lax or Strict. The cookie is HttpOnly, Secure and for the whole host.
Errors: PT403 when the request''s Origin is not in plinth.allowed_origins, 22023 for another token or same_site.';

CREATE OR REPLACE FUNCTION plinth.session_cookie_clear() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_cookie_clear';
COMMENT ON FUNCTION plinth.session_cookie_clear() IS
'Takes the cookie plinth.session_cookie away from the browser, if the request has it.
The session itself goes on: end it with session_revoke. Errors: none of its own.';

REVOKE ALL ON FUNCTION plinth.pre_request(), plinth.response_header_add(text, text),
    plinth.session_cookie_set(text, timestamptz, text), plinth.session_cookie_clear() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.pre_request(), plinth.response_header_add(text, text),
    plinth.session_cookie_set(text, timestamptz, text), plinth.session_cookie_clear()
    TO anon, authenticated, authenticator, plinth_admin;
