-- identity: requests that an administrator approves or rejects.

CREATE OR REPLACE FUNCTION plinth.verification_request(kind text, documents jsonb DEFAULT '[]', data jsonb DEFAULT '{}') RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_user_call';
COMMENT ON FUNCTION plinth.verification_request(text, jsonb, jsonb) IS
'Asks the administrators to verify something about the user whose request this is.
kind: what, 1 to 63 of A-Z, a-z, 0-9 and _.:-. documents: a JSON array of references to documents, at most 64 KiB. data: a JSON object of at most 64 KiB.
Returns the request''s id. Errors: PT401 without a request context, PT400 for an argument out of bounds, PT409 while another of that kind is pending, PT429 for more than 100 within a day.';

CREATE OR REPLACE FUNCTION plinth._verification_request(kind text, documents jsonb, data jsonb) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users := plinth._users_lock(plinth.current_user_id());
    made uuid;
BEGIN
    -- Those that were withdrawn count too: each may be of 128 KiB.
    IF (SELECT count(*) FROM plinth.verification_requests r WHERE r.user_id = u.id AND r.created_at > clock_timestamp() - interval '1 day') >= 100 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT429', MESSAGE = 'too many requests of this user';
    END IF;
    INSERT INTO plinth.verification_requests (user_id, kind, documents, data)
        VALUES (u.id, $1, coalesce($2, '[]'), coalesce($3, '{}')) RETURNING id INTO made;
    PERFORM plinth._audit_record('plinth.verification_request', 'verification:' || made, 'success', jsonb_build_object('kind', $1));
    RETURN made;
EXCEPTION
    WHEN unique_violation THEN
        RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = 'a request of this kind is pending';
    WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'kind, documents or data is not valid';
END
$$;

CREATE OR REPLACE FUNCTION plinth.verification_withdraw(request_id uuid) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_user_call';
COMMENT ON FUNCTION plinth.verification_withdraw(uuid) IS
'Takes a request of the user whose request context this is back.
Returns false when there is no such request of theirs that is pending. Errors: PT401 without a request context.';

CREATE OR REPLACE FUNCTION plinth._verification_withdraw(request_id uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE plinth.verification_requests r SET status = 'withdrawn'
        WHERE r.id = $1 AND r.user_id = plinth.current_user_id() AND r.status = 'pending';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM plinth._audit_record('plinth.verification_withdraw', 'verification:' || $1, 'success', '{}');
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth._verification_review(request_id uuid, new_status text, reason text, role text)
        RETURNS plinth.verification_requests
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    r plinth.verification_requests;
BEGIN
    SELECT * INTO r FROM plinth.verification_requests v WHERE v.id = $1 FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'request not found';
    ELSIF r.status <> 'pending' THEN
        RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = 'request is ' || r.status;
    ELSIF r.user_id = plinth.current_user_id() THEN
        RAISE EXCEPTION USING ERRCODE = 'PT403', MESSAGE = 'nobody reviews their own request';
    ELSIF octet_length($3) > 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'reason is too long';
    END IF;
    UPDATE plinth.verification_requests v SET status = $2, reviewed_at = clock_timestamp(), reviewed_by = plinth.current_user_id(),
        reason = $3, granted_role = $4 WHERE v.id = $1 RETURNING v.* INTO r;
    PERFORM plinth._audit_record('plinth.verification_' || CASE $2 WHEN 'approved' THEN 'approve' ELSE 'reject' END,
        'verification:' || $1, 'success',
        jsonb_strip_nulls(jsonb_build_object('user_id', r.user_id, 'kind', r.kind, 'reason', $3, 'role', $4)));
    RETURN r;
END
$$;

CREATE OR REPLACE FUNCTION plinth.verification_approve(request_id uuid, reason text DEFAULT NULL, role text DEFAULT NULL)
        RETURNS plinth.verification_requests
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.verification_approve(uuid, text, text) IS
'Approves a user''s request, for administrators.
reason: at most 1000 bytes, which the user sees. role: becomes the user''s role (users.role), for running sessions too; NULL leaves it.
Returns the request. Errors: PT404 for no such request or a user who was deleted, PT409 when it is not pending, PT400 for another role than names can be, PT403 for one''s own, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._verification_approve(request_id uuid, reason text, role text) RETURNS plinth.verification_requests
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r plinth.verification_requests := plinth._verification_review($1, 'approved', $2, $3);
    u plinth.users := plinth._users_lock(r.user_id);
BEGIN
    IF u.deleted_at IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'user not found';
    ELSIF $3 IS NOT NULL THEN
        PERFORM plinth._user_update(r.user_id, NULL, NULL, NULL, NULL, $3, NULL, NULL, NULL, NULL, NULL);
    END IF;
    RETURN r;
END
$$;

CREATE OR REPLACE FUNCTION plinth.verification_reject(request_id uuid, reason text) RETURNS plinth.verification_requests
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.verification_reject(uuid, text) IS
'Rejects a user''s request, for administrators.
reason: 1 to 1000 bytes, which the user sees. Returns the request. Errors: PT404 for no such request, PT409 when it is not pending, PT400 without a reason, PT403 for one''s own, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._verification_reject(request_id uuid, reason text) RETURNS plinth.verification_requests
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce($2, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'reason is missing';
    END IF;
    RETURN plinth._verification_review($1, 'rejected', $2, NULL);
END
$$;

CREATE OR REPLACE FUNCTION plinth.verifications_list() RETURNS SETOF plinth.verification_requests
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'plinth_identity_reader_call';
COMMENT ON FUNCTION plinth.verifications_list() IS
'The requests of the user whose request context this is, the newest first.
Errors: PT401 without a request context.';

CREATE OR REPLACE FUNCTION plinth._verifications_list() RETURNS SETOF plinth.verification_requests
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT r.* FROM plinth.verification_requests r WHERE r.user_id = plinth.current_user_id() ORDER BY r.id DESC;
END
$$;

CREATE OR REPLACE FUNCTION plinth.verifications_search(status text DEFAULT 'pending', kind text DEFAULT NULL, limit_count integer DEFAULT 50,
        after uuid DEFAULT NULL) RETURNS SETOF plinth.verification_requests
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 50 AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.verifications_search(text, text, integer, uuid) IS
'Requests of users, a page at a time, the oldest first, for administrators.
status: pending, approved, rejected or withdrawn. kind: NULL for all. limit_count: 1 to 1000. after: the id of the last request of the page before.
Errors: PT400 for an argument out of bounds, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._verifications_search(status text, kind text, limit_count integer, after uuid)
        RETURNS SETOF plinth.verification_requests
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF limit_count IS NULL OR limit_count NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'limit_count must be 1 to 1000';
    ELSIF status IS NULL OR status NOT IN ('pending', 'approved', 'rejected', 'withdrawn') THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'status is not valid';
    END IF;
    RETURN QUERY SELECT r.* FROM plinth.verification_requests r
        WHERE r.status = $1 AND ($2 IS NULL OR r.kind = $2) AND ($4 IS NULL OR r.id > $4) ORDER BY r.id LIMIT $3;
END
$$;

REVOKE ALL ON FUNCTION plinth._verification_request(text, jsonb, jsonb), plinth._verification_withdraw(uuid),
    plinth._verification_review(uuid, text, text, text), plinth._verification_approve(uuid, text, text),
    plinth._verification_reject(uuid, text), plinth._verifications_list(), plinth._verifications_search(text, text, integer, uuid),
    plinth.verification_request(text, jsonb, jsonb), plinth.verification_withdraw(uuid), plinth.verification_approve(uuid, text, text),
    plinth.verification_reject(uuid, text), plinth.verifications_list(), plinth.verifications_search(text, text, integer, uuid)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._verification_review(uuid, text, text, text) TO plinth_owner;
GRANT EXECUTE ON FUNCTION plinth.verification_request(text, jsonb, jsonb), plinth.verification_withdraw(uuid),
    plinth.verification_approve(uuid, text, text), plinth.verification_reject(uuid, text), plinth.verifications_list(),
    plinth.verifications_search(text, text, integer, uuid) TO authenticated, plinth_admin;

GRANT SELECT ON plinth.verification_requests TO authenticated, plinth_admin;
DROP POLICY IF EXISTS verification_requests_admin ON plinth.verification_requests;
CREATE POLICY verification_requests_admin ON plinth.verification_requests FOR SELECT TO plinth_admin USING (true);
DROP POLICY IF EXISTS verification_requests_own ON plinth.verification_requests;
CREATE POLICY verification_requests_own ON plinth.verification_requests FOR SELECT TO authenticated
    USING (user_id = (SELECT plinth.current_user_id()));
