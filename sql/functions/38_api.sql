-- api: functions in an application's schema, for PostgREST and PostGraphile.
--
-- They are no members of the extension, since PostGraphile shows none of those,
-- and are what both can serve: no overloads, no bare records.  Each is a row
-- of _api_definitions, and runs as who calls it.

CREATE OR REPLACE FUNCTION plinth.request_header(name text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_request_header';
COMMENT ON FUNCTION plinth.request_header(text) IS
'A header of the HTTP request that runs, as PostgREST passes it.
name: in any case. Returns NULL where there is none. Any SQL client can write these.
Errors: PT400 when request.headers is not a JSON object.';

CREATE OR REPLACE FUNCTION plinth.api_respond(status text, retry_after interval DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    code text := CASE status
        WHEN 'invalid_credentials' THEN '401' WHEN 'invalid_token' THEN '401'
        WHEN 'locked' THEN '403' WHEN 'unverified' THEN '403' WHEN 'recent_sign_in_required' THEN '403'
        WHEN 'username_taken' THEN '409' WHEN 'email_taken' THEN '409'
        WHEN 'rate_limited' THEN '429' END;
BEGIN
    -- Waiting helps: the account is not locked, this address has to slow down.
    IF retry_after IS NOT NULL AND code IS NOT NULL THEN
        code := '429';
        PERFORM plinth.response_header_add('Retry-After', greatest(ceil(extract(epoch FROM retry_after)), 1)::text);
    END IF;
    IF code IS NOT NULL THEN
        PERFORM set_config('response.status', code, true);
    END IF;
    RETURN status;
END
$$;
COMMENT ON FUNCTION plinth.api_respond(text, interval) IS
'Makes a status that a function returned the status of the HTTP response.
status: as sign_in, sign_up and others return it. 401 for invalid_credentials and invalid_token, 403 for locked, unverified and recent_sign_in_required, 409 for username_taken and email_taken, 429 for rate_limited and whatever has retry_after, which becomes Retry-After; others change nothing. Since it is no error, what was counted and recorded commits. Returns status.';

REVOKE ALL ON FUNCTION plinth.request_header(text), plinth.api_respond(text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.request_header(text), plinth.api_respond(text, interval) TO anon, authenticated, authenticator, plinth_admin;

-- What stands in braces is in _api_expand.
CREATE OR REPLACE FUNCTION plinth._api_definitions(OUT area text, OUT name text, OUT anonymous boolean, OUT volatility text,
        OUT arguments text, OUT result text, OUT body text, OUT comment text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $definitions$
VALUES
('sign_in', 'sign_up', true, 'VOLATILE',
    'email text, password text, username text DEFAULT NULL, full_name text DEFAULT NULL, metadata jsonb DEFAULT ''{}''', 'text', $body$
DECLARE
    answer record;
BEGIN
    SELECT * INTO answer FROM plinth.sign_up(sign_up.email, sign_up.password, sign_up.username, sign_up.full_name, sign_up.metadata);
    -- Nobody learns here who has an account.
    RETURN plinth.api_respond(CASE answer.status WHEN 'email_taken' THEN 'ok' ELSE answer.status END, answer.retry_after);
END
$body$, 'Creates a user with a password.
Answers "ok" for an e-mail address that has an account too, which then stays as it is. Sign in afterwards. 400 for an address, password or name that cannot be, 409 and "username_taken" for a username of somebody else, 429 and "rate_limited" for too many tries.'),

('sign_in', 'sign_in', true, 'VOLATILE', 'identifier text, password text, {device}, {session}', 'record', $body$
DECLARE
    answer record;
BEGIN
    {check_transport}
    SELECT * INTO answer FROM plinth.sign_in(identifier, password, device_fingerprint, device_type, plinth.request_header('user-agent'), label);
    {begin_session}
END
$body$, 'Signs in with e-mail address or username, and password.
transport: how the session comes. "token": token, to be sent in the header X-Plinth-Session. "cookie": an HttpOnly cookie, for a page of an allowed origin. "jwt": access_token, to be sent as Authorization: Bearer, and refresh_token for refresh_session. device_fingerprint, device_type and label describe the device in the list of sessions.
401 and "invalid_credentials"; 403 and "locked" or "unverified", when the password was right; 429 and "rate_limited" or "locked" with Retry-After; 400 for a missing or too long argument.'),

('sign_in', 'magic_link_request', true, 'VOLATILE', 'email text, redirect text DEFAULT NULL', 'text', $body$
BEGIN
    RETURN (SELECT plinth.api_respond(a.status, a.retry_after) FROM plinth.magic_link_request(email, redirect) a);
END
$body$, 'Has a link mailed that signs in.
redirect: at most 2000 bytes, for whoever sends the mail. Answers "ok" whether somebody has this address or not. 429 and "rate_limited" with Retry-After.'),

('sign_in', 'magic_link_sign_in', true, 'VOLATILE', 'link_token text, {device}, {session}', 'record', $body$
DECLARE
    answer record;
BEGIN
    {check_transport}
    SELECT * INTO answer FROM plinth.magic_link_sign_in(link_token, device_fingerprint, device_type, plinth.request_header('user-agent'), label);
    {begin_session}
END
$body$, 'Signs in by the token of a mailed link.
link_token: good once. The rest is as in sign_in. 401 and "invalid_credentials" for one that is not good.'),

('sign_in', 'email_code_request', true, 'VOLATILE', 'email text', 'text', $body$
BEGIN
    RETURN (SELECT plinth.api_respond(a.status, a.retry_after) FROM plinth.email_code_request(email) a);
END
$body$, 'Has a code of six digits mailed that signs in.
Answers "ok" whether somebody has this address or not. 429 and "rate_limited" with Retry-After.'),

('sign_in', 'email_code_sign_in', true, 'VOLATILE', 'email text, code text, {device}, {session}', 'record', $body$
DECLARE
    answer record;
BEGIN
    {check_transport}
    SELECT * INTO answer FROM plinth.email_code_sign_in(email, code, device_fingerprint, device_type, plinth.request_header('user-agent'), label);
    {begin_session}
END
$body$, 'Signs in by a mailed code.
A code can be tried five times. The rest is as in sign_in. 401 and "invalid_credentials" for one that is not good.'),

('sign_in', 'password_reset_request', true, 'VOLATILE', 'email text', 'text', $body$
BEGIN
    RETURN (SELECT plinth.api_respond(a.status, a.retry_after) FROM plinth.password_reset_request(email) a);
END
$body$, 'Has a token mailed by which password_reset sets a password.
Answers "ok" whether somebody has this address or not. 429 and "rate_limited" with Retry-After.'),

('sign_in', 'password_reset', true, 'VOLATILE', 'token text, new_password text', 'text', $body$
BEGIN
    RETURN plinth.api_respond(plinth.password_reset(token, new_password));
END
$body$, 'Sets a password by a mailed token, and ends all sessions of the user.
401 and "invalid_token" for one that is not good; 400 for a password that may not be chosen, after which the token is still good.'),

('sign_in', 'email_verify_request', true, 'VOLATILE', 'email text DEFAULT NULL', 'text', $body$
BEGIN
    RETURN (SELECT plinth.api_respond(a.status, a.retry_after) FROM plinth.email_verify_request(email) a);
END
$body$, 'Has a token mailed that proves who has an address.
email: left out for that of who is signed in. Answers "ok" whether somebody has this address or not. 429 and "rate_limited" with Retry-After.'),

('sign_in', 'email_verify', true, 'VOLATILE', 'token text', 'text', $body$
BEGIN
    RETURN plinth.api_respond(plinth.email_verify(token));
END
$body$, 'Marks an address as verified, by a mailed token.
401 and "invalid_token" for one that is not good.'),

('sign_in', 'email_change_confirm', true, 'VOLATILE', 'token text', 'text', $body$
BEGIN
    RETURN plinth.api_respond(plinth.email_change_confirm(token));
END
$body$, 'Confirms a change of address, by a token that was mailed to the old or the new one.
Answers "pending" until the other is confirmed too, then "ok". 401 and "invalid_token"; 409 and "email_taken".'),

('sign_in', 'refresh_session', true, 'VOLATILE',
    'token text, OUT status text, OUT access_token text, OUT access_expires_at timestamptz, OUT refresh_token text, OUT refresh_expires_at timestamptz', 'record', $body$
DECLARE
    answer record;
BEGIN
    SELECT * INTO answer FROM plinth.session_refresh(token);
    status := plinth.api_respond(answer.status);
    access_token := answer.access_token;
    access_expires_at := answer.access_expires_at;
    refresh_token := answer.refresh_token_next;
    refresh_expires_at := answer.refresh_expires_at;
END
$body$, 'Exchanges a refresh token for new tokens.
token: the refresh_token that sign_in or refresh_session gave last. Send no Authorization with it: an access token that has expired is refused. 401 and "invalid_token" for one that is not good; one that was used before ends the session.'),

('sign_in', 'jwks', true, 'STABLE', '', 'jsonb', $body$
BEGIN
    RETURN plinth.jwks();
END
$body$, 'The public keys of access tokens, as a JWK set.
For whoever verifies access tokens on their own.'),

('account', 'sign_out', false, 'VOLATILE', '', 'boolean', $body$
BEGIN
    PERFORM plinth.session_cookie_clear();
    RETURN plinth.session_revoke();
END
$body$, 'Ends the session of this request, and takes its cookie away.
Its access and refresh tokens end with it.'),

('account', 'sign_out_everywhere', false, 'VOLATILE', '', 'integer', $body$
BEGIN
    PERFORM plinth.session_cookie_clear();
    RETURN plinth.session_revoke_all();
END
$body$, 'Ends all sessions of the user.
Returns how many.'),

('account', 'me', false, 'STABLE', '{user}', 'record', $body$
DECLARE
    answer plinth.users := plinth.me();
BEGIN
    SELECT answer.id, answer.email, answer.email_verified_at, answer.username, answer.full_name, answer.avatar_url, answer.role, answer.tier,
            answer.metadata, answer.created_at, answer.last_login_at, plinth.current_roles(), plinth.current_permissions(),
            plinth.current_session_id(), plinth.current_aal()
        INTO id, email, email_verified_at, username, full_name, avatar_url, role, tier, metadata, created_at, last_login_at, roles, permissions,
            session_id, aal;
END
$body$, 'The user whose request this is.'),

('account', 'update_me', false, 'VOLATILE',
    'full_name text DEFAULT NULL, avatar_url text DEFAULT NULL, username text DEFAULT NULL, metadata jsonb DEFAULT NULL, clear_fields text[] DEFAULT ''{}''', 'boolean', $body$
BEGIN
    PERFORM plinth.user_update_me(full_name, avatar_url, username, metadata, clear_fields);
    RETURN true;
END
$body$, 'Changes what is given about the user whose request this is.
What is left out stays; clear_fields names which of username, full_name and avatar_url become empty; metadata replaces what was there. 400 for what cannot be, 409 for a username of somebody else.'),

('account', 'delete_me', false, 'VOLATILE', '', 'boolean', $body$
BEGIN
    PERFORM plinth.session_cookie_clear();
    RETURN plinth.user_delete_me();
END
$body$, 'Deletes the user whose request this is, so that an administrator can bring them back.
403 unless they signed in within the last 10 minutes.'),

('account', 'password_change', false, 'VOLATILE', 'current_password text, new_password text', 'text', $body$
BEGIN
    RETURN (SELECT plinth.api_respond(a.status, a.retry_after) FROM plinth.password_change(current_password, new_password) a);
END
$body$, 'Changes the password, and ends the other sessions of the user.
401 and "invalid_credentials" for another current password, 403 and "recent_sign_in_required", 400 for a password that may not be chosen, 429 for too many tries.'),

('account', 'email_change_request', false, 'VOLATILE', 'new_email text', 'text', $body$
BEGIN
    RETURN (SELECT plinth.api_respond(a.status, a.retry_after) FROM plinth.email_change_request(new_email) a);
END
$body$, 'Has tokens mailed to the present and the new address, which both are to be confirmed.
Answers "ok" whether the new address is free or not. 429 and "rate_limited" with Retry-After.'),

('account', 'api_key_create', false, 'VOLATILE',
    'name text, scopes text[] DEFAULT ''{}'', expires_at timestamptz DEFAULT NULL, OUT id uuid, OUT key text, OUT prefix text', 'record', $body$
BEGIN
    SELECT a.id, a.key, a.prefix INTO id, key, prefix FROM plinth.api_key_create(name, scopes, expires_at) a;
END
$body$, 'Makes an API key, to be sent in the header X-API-Key.
name: for the list. scopes: the only permissions that it gives; empty for all of the user. The key is shown only here. 403 and "recent sign-in required".'),

('account', 'api_keys_list', false, 'STABLE', '',
    'TABLE (id uuid, name text, prefix text, scopes text[], created_at timestamptz, expires_at timestamptz, last_used_at timestamptz)', $body$
BEGIN
    RETURN QUERY SELECT a.id, a.name, a.prefix, a.scopes, a.created_at, a.expires_at, a.last_used_at FROM plinth.api_keys_list() a;
END
$body$, 'The API keys of the user, without the keys themselves.'),

('account', 'api_key_revoke', false, 'VOLATILE', 'key_id uuid, reason text DEFAULT NULL', 'boolean', $body$
BEGIN
    IF key_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'key_id is missing';
    ELSIF NOT plinth.api_key_revoke(key_id, reason) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'API key not found';
    END IF;
    RETURN true;
END
$body$, 'Ends an API key of the user.
404 when there is no such key.'),

('account', 'verification_request', false, 'VOLATILE', 'kind text, documents jsonb DEFAULT ''[]'', data jsonb DEFAULT ''{}''', 'uuid', $body$
BEGIN
    RETURN plinth.verification_request(kind, documents, data);
END
$body$, 'Asks the administrators to verify something about the user.
Returns the id. 409 while another request of that kind is pending, 429 for more than 100 within a day.'),

('account', 'verifications_list', false, 'STABLE', '', '{verifications}', $body$
BEGIN
    RETURN QUERY SELECT {verification} FROM plinth.verifications_list() v;
END
$body$, 'What the user has asked to be verified.'),

('account', 'my_sessions', false, 'STABLE', '',
    'TABLE (id uuid, is_current boolean, device_type text, label text, address text, user_agent text, aal integer, created_at timestamptz, '
    'last_active_at timestamptz, expires_at timestamptz, impersonated boolean)', $body$
BEGIN
    RETURN QUERY SELECT s.session_id, s.is_current, s.device_type, s.label, host(s.address), s.user_agent, s.aal, s.created_at, s.last_active_at,
            s.expires_at, s.is_impersonated
        FROM plinth.session_list() s;
END
$body$, 'The sessions of the user: where they are signed in.
The one last used comes first. 403 with an API key and while an administrator acts as the user.'),

('account', 'label_session', false, 'VOLATILE', 'session_id uuid, label text DEFAULT NULL', 'boolean', $body$
BEGIN
    IF session_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'session_id is missing';
    ELSIF NOT plinth.session_label(session_id, label) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'session not found';
    END IF;
    RETURN true;
END
$body$, 'Names a session of the user in their list.
label: at most 200 bytes; left out for none. 404 when there is no such session.'),

('account', 'my_identities', false, 'STABLE', '', 'TABLE (provider text, subject text, created_at timestamptz, last_used_at timestamptz)', $body$
BEGIN
    IF plinth.current_api_key_id() IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT403', MESSAGE = 'not with an API key';
    END IF;
    RETURN QUERY SELECT i.provider, i.subject, i.created_at, i.last_used_at FROM plinth.identities i
        WHERE i.user_id = plinth.current_user_id() ORDER BY i.provider, i.subject;
END
$body$, 'Who the user is to outside providers.
403 with an API key.'),

('account', 'link_identity', false, 'VOLATILE', 'provider_token text', 'boolean', $body$
BEGIN
    RETURN plinth.identity_link_me(provider_token);
END
$body$, 'Lets the user come by tokens of an outside provider from now on.
provider_token: a token of theirs from there. Answers false when it was so already. 401 for a token that is not good, 403 and "recent sign-in required", 409 when it is another user''s.'),

('account', 'unlink_identity', false, 'VOLATILE', 'provider text, subject text', 'boolean', $body$
BEGIN
    IF provider IS NULL OR subject IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'provider or subject is missing';
    ELSIF NOT plinth.identity_unlink_me(provider, subject) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'identity not found';
    END IF;
    RETURN true;
END
$body$, 'Takes what link_identity gave.
404 when the user has no such identity, 409 when it is the last way to sign in.'),

('account', 'revoke_session', false, 'VOLATILE', 'session_id uuid', 'boolean', $body$
BEGIN
    IF session_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'session_id is missing';
    ELSIF NOT plinth.session_revoke(session_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'session not found';
    END IF;
    RETURN true;
END
$body$, 'Ends a session of the user.
404 when there is no such session.'),

('account', 'revoke_other_sessions', false, 'VOLATILE', '', 'integer', $body$
BEGIN
    RETURN plinth.session_revoke_all(keep_current => true);
END
$body$, 'Ends all sessions of the user but this one.
Returns how many.'),

('admin', 'users_search', false, 'STABLE',
    'query text DEFAULT NULL, status text DEFAULT NULL, role text DEFAULT NULL, tier text DEFAULT NULL, limit_count integer DEFAULT 50, after_id uuid DEFAULT NULL',
    'TABLE (id uuid, email text, email_verified_at timestamptz, username text, full_name text, avatar_url text, user_role text, user_tier text, user_status text, '
    'status_reason text, banned_until timestamptz, metadata jsonb, app_metadata jsonb, created_at timestamptz, updated_at timestamptz, '
    'last_login_at timestamptz, deleted_at timestamptz)', $body$
BEGIN
    RETURN QUERY SELECT u.id, u.email, u.email_verified_at, u.username, u.full_name, u.avatar_url, u.role, u.tier, u.status, u.status_reason,
            u.banned_until, u.metadata, u.app_metadata, u.created_at, u.updated_at, u.last_login_at, u.deleted_at
        FROM plinth.users_search(query, status, role, tier, limit_count, after_id) u;
END
$body$, 'Users, a page at a time; for administrators.
query: the beginning of an e-mail address or username, or an id. status: active, locked, banned or deleted. limit_count: 1 to 1000. after_id: the id of the last user of the page before. 401 or 403 for who is no administrator.'),

('admin', 'user_create', false, 'VOLATILE',
    'email text DEFAULT NULL, username text DEFAULT NULL, full_name text DEFAULT NULL, role text DEFAULT NULL, tier text DEFAULT NULL, '
    'password text DEFAULT NULL, email_verified boolean DEFAULT false, metadata jsonb DEFAULT NULL, app_metadata jsonb DEFAULT NULL', 'uuid', $body$
BEGIN
    RETURN (plinth.user_create(email, username, full_name, role, tier, password, email_verified, metadata, app_metadata)).id;
END
$body$, 'Creates a user, for administrators.
Returns the id. 400 for what cannot be, 409 for an e-mail address or username of somebody else, 401 or 403 for who is no administrator.'),

('admin', 'user_update', false, 'VOLATILE',
    'user_id uuid, email text DEFAULT NULL, username text DEFAULT NULL, full_name text DEFAULT NULL, avatar_url text DEFAULT NULL, role text DEFAULT NULL, '
    'tier text DEFAULT NULL, email_verified boolean DEFAULT NULL, metadata jsonb DEFAULT NULL, app_metadata jsonb DEFAULT NULL, '
    'clear_fields text[] DEFAULT ''{}''', 'boolean', $body$
BEGIN
    PERFORM plinth.user_update(user_id, email, username, full_name, avatar_url, role, tier, email_verified, metadata, app_metadata, clear_fields);
    RETURN true;
END
$body$, 'Changes what is given about a user, for administrators.
What is left out stays; clear_fields names which of email, username, full_name and avatar_url become empty. 404 for no such user, 400 for what cannot be, 409 for an e-mail address or username of somebody else, 401 or 403 for who is no administrator.'),

('admin', 'user_verify', false, 'VOLATILE', 'user_id uuid', 'boolean', $body$
BEGIN
    RETURN plinth.user_verify(user_id);
END
$body$, 'Takes a user''s e-mail address as verified, for administrators.'),

('admin', 'user_lock', false, 'VOLATILE', 'user_id uuid, reason text DEFAULT NULL', 'boolean', $body$
BEGIN
    RETURN plinth.user_lock(user_id, reason);
END
$body$, 'Locks a user out until user_unlock, and ends their sessions, for administrators.'),

('admin', 'user_unlock', false, 'VOLATILE', 'user_id uuid, reason text DEFAULT NULL', 'boolean', $body$
BEGIN
    RETURN plinth.user_unlock(user_id, reason);
END
$body$, 'Ends what user_lock did, for administrators.'),

('admin', 'user_ban', false, 'VOLATILE', 'user_id uuid, until timestamptz DEFAULT NULL, reason text DEFAULT NULL', 'boolean', $body$
BEGIN
    RETURN plinth.user_ban(user_id, until, reason);
END
$body$, 'Bans a user until a time, or for good, and ends their sessions, for administrators.'),

('admin', 'user_unban', false, 'VOLATILE', 'user_id uuid, reason text DEFAULT NULL', 'boolean', $body$
BEGIN
    RETURN plinth.user_unban(user_id, reason);
END
$body$, 'Ends a ban, for administrators.'),

('admin', 'user_delete', false, 'VOLATILE', 'user_id uuid, reason text DEFAULT NULL', 'boolean', $body$
BEGIN
    RETURN plinth.user_delete(user_id, reason);
END
$body$, 'Deletes a user so that user_restore can bring them back, for administrators.'),

('admin', 'user_restore', false, 'VOLATILE', 'user_id uuid', 'boolean', $body$
BEGIN
    RETURN plinth.user_restore(user_id);
END
$body$, 'Brings a deleted user back, for administrators.'),

('admin', 'password_set', false, 'VOLATILE', 'user_id uuid, password text', 'boolean', $body$
BEGIN
    PERFORM plinth.password_set(user_id, password);
    RETURN true;
END
$body$, 'Gives a user another password, and ends their sessions, for administrators.'),

('admin', 'verifications_search', false, 'STABLE',
    'status text DEFAULT ''pending'', kind text DEFAULT NULL, limit_count integer DEFAULT 50, after_id uuid DEFAULT NULL', '{verifications}', $body$
BEGIN
    RETURN QUERY SELECT {verification} FROM plinth.verifications_search(status, kind, limit_count, after_id) v;
END
$body$, 'What users have asked to be verified, a page at a time, for administrators.'),

('admin', 'verification_approve', false, 'VOLATILE', 'request_id uuid, reason text DEFAULT NULL, role text DEFAULT NULL', 'boolean', $body$
BEGIN
    PERFORM plinth.verification_approve(request_id, reason, role);
    RETURN true;
END
$body$, 'Approves what a user asked to be verified, for administrators.
role: becomes the role of the user. 404 for no such request, 409 when it is not pending.'),

('admin', 'verification_reject', false, 'VOLATILE', 'request_id uuid, reason text', 'boolean', $body$
BEGIN
    PERFORM plinth.verification_reject(request_id, reason);
    RETURN true;
END
$body$, 'Rejects what a user asked to be verified, for administrators.
reason: which the user sees. 404 for no such request, 409 when it is not pending.'),

('admin', 'user_role_grant', false, 'VOLATILE', 'user_id uuid, role text, expires_at timestamptz DEFAULT NULL, reason text DEFAULT NULL', 'boolean', $body$
BEGIN
    PERFORM plinth.user_role_grant(user_id, role, expires_at, reason);
    RETURN true;
END
$body$, 'Gives a user a role, for good or until a time, for administrators.'),

('admin', 'user_role_revoke', false, 'VOLATILE', 'user_id uuid, role text, reason text DEFAULT NULL', 'boolean', $body$
BEGIN
    RETURN plinth.user_role_revoke(user_id, role, reason);
END
$body$, 'Takes a role from a user, for administrators.'),

('admin', 'user_identity_link', false, 'VOLATILE', 'user_id uuid, provider text, subject text', 'boolean', $body$
BEGIN
    RETURN plinth.identity_link(user_id, provider, subject);
END
$body$, 'Says who a user is to an outside provider, for administrators.
Answers false when it was so already. 404 for no such user, 409 when it is another user''s.'),

('admin', 'user_identity_unlink', false, 'VOLATILE', 'user_id uuid, provider text, subject text, force boolean DEFAULT false', 'boolean', $body$
BEGIN
    RETURN plinth.identity_unlink(user_id, provider, subject, force);
END
$body$, 'Takes an identity from a user, for administrators.
force: also the last way to sign in, for which it is 409 otherwise. Answers false when the user has no such identity.'),

('admin', 'device_ban', false, 'VOLATILE', 'device_fingerprint text, user_id uuid DEFAULT NULL, until timestamptz DEFAULT NULL, reason text DEFAULT NULL',
    'integer', $body$
BEGIN
    RETURN plinth.device_ban(device_fingerprint, user_id, until, reason);
END
$body$, 'Bans a device of a user, or of everybody, until a time or for good, and ends its sessions, for administrators.
Returns how many.'),

('admin', 'device_unban', false, 'VOLATILE', 'device_fingerprint text, user_id uuid DEFAULT NULL', 'boolean', $body$
BEGIN
    RETURN plinth.device_unban(device_fingerprint, user_id);
END
$body$, 'Ends what device_ban did, for administrators.')
$definitions$;
