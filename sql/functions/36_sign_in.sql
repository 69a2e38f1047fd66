-- session: signing in by what was mailed.

CREATE OR REPLACE FUNCTION plinth.magic_link_sign_in(link_token text, device_fingerprint text DEFAULT NULL,
        device_type text DEFAULT NULL, user_agent text DEFAULT NULL, label text DEFAULT NULL,
        OUT status text, OUT user_id uuid, OUT session_id uuid, OUT token text, OUT expires_at timestamptz,
        OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_magic_link_sign_in';
COMMENT ON FUNCTION plinth.magic_link_sign_in(text, text, text, text, text) IS
'Begins a session by the token that magic_link_request mailed (link_token), which then is used up; the address is verified by it.
The device is described as in sign_in.
Returns status "ok" with user, session, its token and expiry; "invalid_credentials" for a token that is unknown, used, expired or of an address that is no longer the user''s; "locked" for a user who is locked or banned.
Errors: PT400 for a missing or too long argument, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.email_code_sign_in(email text, code text, device_fingerprint text DEFAULT NULL,
        device_type text DEFAULT NULL, user_agent text DEFAULT NULL, label text DEFAULT NULL,
        OUT status text, OUT user_id uuid, OUT session_id uuid, OUT token text, OUT expires_at timestamptz,
        OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_email_code_sign_in';
COMMENT ON FUNCTION plinth.email_code_sign_in(text, text, text, text, text, text) IS
'Begins a session by the code that email_code_request mailed, which then is used up; the address is verified by it.
The device is described as in sign_in. A code can be tried five times, and a try counts as one of sign_in does.
Returns status "ok" with user, session, its token and expiry; "invalid_credentials"; "locked", with retry_after after too many tries for this account from this address, without it for a user who is locked or banned; or "rate_limited" with retry_after.
Errors: PT400 for a missing or too long argument, 25006 in a read-only transaction.';

REVOKE ALL ON FUNCTION plinth.magic_link_sign_in(text, text, text, text, text),
    plinth.email_code_sign_in(text, text, text, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.magic_link_sign_in(text, text, text, text, text),
    plinth.email_code_sign_in(text, text, text, text, text, text) TO anon, authenticated, authenticator, plinth_admin;
