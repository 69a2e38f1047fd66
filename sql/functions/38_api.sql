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
name: for the list. scopes: the only permissions that it gives; empty for all of the user. The key is shown only here.'),

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
    RETURN QUERY SELECT s.id, s.id IS NOT DISTINCT FROM plinth.current_session_id(), s.device_type, s.label, host(s.address), s.user_agent, s.aal::integer,
            s.created_at, s.last_active_at, s.expires_at, s.impersonation_reason IS NOT NULL
        FROM plinth.sessions s
        WHERE s.user_id = plinth.current_user_id() AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
            AND (s.idle_timeout IS NULL OR s.last_active_at + s.idle_timeout > clock_timestamp())
        ORDER BY s.last_active_at DESC;
END
$body$, 'The sessions of the user: where they are signed in.'),

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
$body$, 'Takes a role from a user, for administrators.')
$definitions$;

-- What several definitions share; each may use those after it.
CREATE OR REPLACE FUNCTION plinth._api_expand(definition text, same_site text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $expand$
DECLARE
    macro text[];
BEGIN
    FOREACH macro SLICE 1 IN ARRAY ARRAY[
        ['user', 'OUT id uuid, OUT email text, OUT email_verified_at timestamptz, OUT username text, OUT full_name text, '
            'OUT avatar_url text, OUT role text, OUT tier text, OUT metadata jsonb, OUT created_at timestamptz, OUT last_login_at timestamptz, '
            'OUT roles text[], OUT permissions text[], OUT session_id uuid, OUT aal integer'],
        ['device', 'transport text DEFAULT ''token'', device_fingerprint text DEFAULT NULL, device_type text DEFAULT NULL, label text DEFAULT NULL'],
        ['session', 'OUT status text, OUT user_id uuid, OUT session_id uuid, OUT token text, OUT expires_at timestamptz, '
            'OUT access_token text, OUT access_expires_at timestamptz, OUT refresh_token text, OUT refresh_expires_at timestamptz'],
        ['check_transport', $$IF transport IS NULL OR transport NOT IN ('token', 'cookie', 'jwt') THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'transport is not valid';
    END IF;$$],
        ['begin_session', $$status := plinth.api_respond(answer.status, answer.retry_after);
    IF answer.status = 'ok' THEN
        user_id := answer.user_id;
        session_id := answer.session_id;
        expires_at := answer.expires_at;
        IF transport = 'cookie' THEN
            PERFORM plinth.session_cookie_set(answer.token, answer.expires_at, {same_site});
        ELSIF transport = 'jwt' THEN
            SELECT t.access_token, t.access_expires_at, t.refresh_token, t.refresh_expires_at
                INTO access_token, access_expires_at, refresh_token, refresh_expires_at FROM plinth.tokens_issue(answer.token) t;
        ELSE
            token := answer.token;
        END IF;
    END IF;$$],
        ['verifications', 'TABLE (id uuid, user_id uuid, request_kind text, request_status text, documents jsonb, data jsonb, created_at timestamptz, '
            'reviewed_at timestamptz, review_reason text, granted_role text)'],
        ['verification', 'v.id, v.user_id, v.kind, v.status, v.documents, v.data, v.created_at, v.reviewed_at, v.reason, v.granted_role'],
        ['same_site', quote_literal(same_site)]]
    LOOP
        definition := replace(definition, '{' || macro[1] || '}', macro[2]);
    END LOOP;
    RETURN definition;
END
$expand$;

-- What will be made in a schema, with the options put in.
CREATE OR REPLACE FUNCTION plinth._api_wanted(areas text[], same_site text, OUT name text, OUT anonymous boolean, OUT volatility text,
        OUT arguments text, OUT result text, OUT body text, OUT comment text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.name, d.anonymous, d.volatility, plinth._api_expand(d.arguments, $2), plinth._api_expand(d.result, $2),
        plinth._api_expand(d.body, $2), d.comment
    FROM plinth._api_definitions() d WHERE d.area = ANY ($1)
$$;

-- Whether a function in a schema is the one that api_install made; NULL where there is none.
CREATE OR REPLACE FUNCTION plinth._api_is_ours(schema_name text, name text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(*) > 0 THEN count(*) = 1 AND coalesce(bool_and(p.prosrc = f.body), false) END
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        LEFT JOIN plinth.api_functions f ON f.schema_name = n.nspname AND f.name = p.proname
    WHERE n.nspname = _api_is_ours.schema_name AND p.proname = _api_is_ours.name
$$;

CREATE OR REPLACE FUNCTION plinth._api_drop(target text, name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours boolean := plinth._api_is_ours(target, name);
BEGIN
    IF ours THEN
        EXECUTE format('DROP FUNCTION %I.%I', target, name);
    END IF;
    DELETE FROM plinth.api_functions f WHERE f.schema_name = target AND f.name = _api_drop.name;
    RETURN coalesce(ours, false);
END
$$;

CREATE OR REPLACE FUNCTION plinth.api_install(target_schema text, areas text[] DEFAULT '{sign_in,account,admin}', same_site text DEFAULT 'Lax') RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    callers text := format('%I, %I', current_setting('plinth.role_anon'), current_setting('plinth.role_authenticated'));
    wanted record;
    old plinth.api_functions;
    made integer := 0;
    signature text;
BEGIN
    IF to_regnamespace(quote_ident(target_schema)) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name', MESSAGE = format('schema "%s" does not exist', target_schema);
    ELSIF NOT coalesce(areas <@ (SELECT array_agg(d.area) FROM plinth._api_definitions() d), false) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('areas must be of %s',
            (SELECT string_agg(DISTINCT d.area, ', ') FROM plinth._api_definitions() d));
    ELSIF NOT coalesce(same_site IN ('Lax', 'Strict'), false) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'same_site must be Lax or Strict';
    END IF;
    LOCK TABLE plinth.api_functions IN SHARE ROW EXCLUSIVE MODE;

    SELECT string_agg(quote_ident(w.name), ', ' ORDER BY w.name) INTO signature FROM plinth._api_wanted(areas, same_site) w
        WHERE plinth._api_is_ours(target_schema, w.name) = false;
    IF signature IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_function',
            MESSAGE = format('schema "%s" has functions that are not of api_install, or were changed: %s', target_schema, signature),
            HINT = 'Drop or rename them, use another schema, or leave their area out.';
    END IF;

    FOR wanted IN SELECT w.* FROM plinth._api_wanted(areas, same_site) w LOOP
        SELECT f.* INTO old FROM plinth.api_functions f WHERE f.schema_name = target_schema AND f.name = wanted.name;
        IF FOUND AND (old.arguments, old.result) IS DISTINCT FROM (wanted.arguments, wanted.result) THEN
            PERFORM plinth._api_drop(target_schema, wanted.name);
        END IF;
        EXECUTE format('CREATE OR REPLACE FUNCTION %I.%I(%s) RETURNS %s LANGUAGE plpgsql %s PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS %L',
            target_schema, wanted.name, wanted.arguments, wanted.result, wanted.volatility, wanted.body);
        SELECT p.oid::regprocedure::text INTO signature FROM pg_proc p
            WHERE p.pronamespace = to_regnamespace(quote_ident(target_schema)) AND p.proname = wanted.name;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', signature,
            CASE WHEN wanted.anonymous THEN callers ELSE quote_ident(current_setting('plinth.role_authenticated')) END);
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', signature, wanted.comment);
        EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION plinth', signature);
        INSERT INTO plinth.api_functions AS f (schema_name, name, arguments, result, body, version)
            VALUES (target_schema, wanted.name, wanted.arguments, wanted.result, wanted.body,
                (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'plinth'))
            ON CONFLICT ON CONSTRAINT api_functions_pkey DO UPDATE SET arguments = excluded.arguments, result = excluded.result,
                body = excluded.body, version = excluded.version, installed_at = excluded.installed_at;
        made := made + 1;
    END LOOP;

    -- What an earlier version or call made, and is not wanted now.
    PERFORM plinth._api_drop(target_schema, f.name) FROM plinth.api_functions f
        WHERE f.schema_name = target_schema AND f.name NOT IN (SELECT w.name FROM plinth._api_wanted(areas, same_site) w);
    IF NOT (has_schema_privilege(current_setting('plinth.role_anon'), target_schema, 'USAGE')
            AND has_schema_privilege(current_setting('plinth.role_authenticated'), target_schema, 'USAGE')) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', target_schema, callers);
    END IF;
    PERFORM pg_notify('pgrst', 'reload schema');
    RETURN made;
END
$$;
COMMENT ON FUNCTION plinth.api_install(text, text[], text) IS
'Makes functions for signing up, signing in and the rest in a schema that PostgREST or PostGraphile serves.
target_schema: an existing schema; who calls needs CREATE in it, and owns the functions. areas: which of sign_in, account and admin. same_site: Lax or Strict, of the cookie that signing in may give. The functions run as who calls them, are granted to plinth.role_anon and plinth.role_authenticated as far as each needs them, and tell PostgREST to read the schema again. Called again, it replaces what it made, and drops what is not wanted any more; call it after each update of the extension. They go with DROP EXTENSION.
Returns how many there are. Errors: 42723 for a function of such a name that it did not make, or that was changed since; 3F000 for no such schema, 22023 for other areas or same_site.';

CREATE OR REPLACE FUNCTION plinth.api_uninstall(target_schema text) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped integer;
BEGIN
    LOCK TABLE plinth.api_functions IN SHARE ROW EXCLUSIVE MODE;
    SELECT count(*) FILTER (WHERE plinth._api_drop(f.schema_name, f.name)) INTO dropped
        FROM plinth.api_functions f WHERE f.schema_name = target_schema;
    PERFORM pg_notify('pgrst', 'reload schema');
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION plinth.api_uninstall(text) IS
'Drops what api_install made in a schema.
target_schema: the schema. A function that was changed since stays. Returns how many were dropped. Errors: 42501 for functions of another owner, 2BP01 when something depends on one.';

REVOKE ALL ON FUNCTION plinth._api_definitions(), plinth._api_expand(text, text), plinth._api_wanted(text[], text), plinth._api_is_ours(text, text), plinth._api_drop(text, text),
    plinth.api_install(text, text[], text), plinth.api_uninstall(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._api_definitions(), plinth._api_expand(text, text), plinth._api_wanted(text[], text), plinth._api_is_ours(text, text), plinth._api_drop(text, text),
    plinth.api_install(text, text[], text), plinth.api_uninstall(text) TO plinth_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON plinth.api_functions TO plinth_admin;
