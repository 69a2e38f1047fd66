-- identity: passwords, tokens that are good for one use, and the outbox.
--
-- What has a secret enters in C and goes on as a hash or sealed: plinth._NAME, in PL/pgSQL, runs as plinth_owner.

-- ---- passwords --------------------------------------------------------------------

CREATE OR REPLACE FUNCTION plinth.password_check(password text, OUT ok boolean, OUT reasons text[]) RETURNS record
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_password_check_sql';
COMMENT ON FUNCTION plinth.password_check(text) IS
'Tells whether somebody may choose this password.
Returns ok, and the reasons why not: "password_too_short" (plinth.password_min_length characters), "password_too_long" (1024 bytes), "password_breached" (it is in plinth.breached_passwords).
Errors: none of its own.';

CREATE OR REPLACE FUNCTION plinth.breached_passwords_load(path text, min_count bigint DEFAULT 1) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_breached_load';
COMMENT ON FUNCTION plinth.breached_passwords_load(text, bigint) IS
'Adds passwords that nobody may choose from a file of the server, in the form of Have I Been Pwned.
path: absolute, or relative to the data directory; a line is 40 hexadecimal digits of a SHA-1, and a colon and a count or nothing. min_count: lines with a smaller count are left out. Sorted files load faster. Of each hash the first 10 bytes are kept.
Returns how many were new. For superusers and members of both plinth_admin and pg_read_server_files.
Errors: 42501 for others, 22P02 with its number for a line of another form, and those of opening a file.';

CREATE OR REPLACE FUNCTION plinth.password_change(current_password text, new_password text, OUT status text, OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_password_change';
COMMENT ON FUNCTION plinth.password_change(text, text) IS
'Changes the password of the user of the request context, and ends their other sessions.
current_password: NULL for a user who has no password yet and signed in within plinth.recent_sign_in.
Returns status "ok"; "invalid_credentials"; "locked" or "rate_limited" with retry_after, as sign_in; or "recent_sign_in_required".
Errors: PT400 with the reason as detail for a password that password_check refuses, PT401 without a user, PT403 while an administrator acts as the user, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.password_set(user_id uuid, password text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_password_set';
COMMENT ON FUNCTION plinth.password_set(uuid, text) IS
'Gives a user another password, for administrators, and ends all of their sessions.
password: NULL takes it away.
Errors: PT400 with the reason as detail for a password that password_check refuses, PT401 or PT403 for who is no administrator, PT404 for an unknown user.';

CREATE OR REPLACE FUNCTION plinth.password_reset(token text, new_password text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_password_reset';
COMMENT ON FUNCTION plinth.password_reset(text, text) IS
'Sets a password by the token that password_reset_request mailed, and ends all sessions of the user.
Returns "ok", or "invalid_token" for one that is unknown, used, expired or of an address that is no longer the user''s.
Errors: PT400 with the reason as detail for a password that password_check refuses (the token stays good), 25006 in a read-only transaction.';

-- What was mailed before lets nobody in, nor change the address, who may have asked for it with the old password.
CREATE OR REPLACE FUNCTION plinth._password_end_tokens(user_id uuid) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM plinth.one_time_tokens t WHERE t.user_id = $1 AND t.kind <> 'email_verify'
$$;

CREATE OR REPLACE FUNCTION plinth._password_store(user_id uuid, phc text) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO plinth.passwords AS p (user_id, phc) VALUES ($1, $2)
        ON CONFLICT ON CONSTRAINT passwords_pkey DO UPDATE SET phc = $2, changed_at = pg_catalog.now()
$$;

-- old_phc: what was verified, NULL for none; false when it is no longer so
CREATE OR REPLACE FUNCTION plinth._password_change(user_id uuid, session_id uuid, old_phc text, new_phc text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._users_lock($1);
    IF (SELECT p.phc FROM plinth.passwords p WHERE p.user_id = $1) IS DISTINCT FROM $3 THEN
        RETURN false;
    END IF;
    PERFORM plinth._password_store($1, $4);
    PERFORM plinth._password_end_tokens($1);
    UPDATE plinth.sessions s SET revoked_at = clock_timestamp(), revoked_reason = 'password changed'
        WHERE s.user_id = $1 AND s.id IS DISTINCT FROM $2 AND s.revoked_at IS NULL;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth._password_set(user_id uuid, phc text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._users_lock($1);
    IF $2 IS NULL THEN
        DELETE FROM plinth.passwords p WHERE p.user_id = $1;
    ELSE
        PERFORM plinth._password_store($1, $2);
    END IF;
    PERFORM plinth._password_end_tokens($1);
    PERFORM plinth._users_end_sessions($1, 'password set by an administrator');
    PERFORM plinth._users_audit('password_set', $1, jsonb_build_object('removed', CASE WHEN $2 IS NULL THEN true END));
END
$$;

-- ---- tokens that are good for one use ---------------------------------------------

-- Who is meant by an address.
CREATE OR REPLACE FUNCTION plinth._one_time_user(email text) RETURNS plinth.users
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT u.* FROM plinth.users u WHERE u.deleted_at IS NULL AND pg_catalog.lower(u.email) = pg_catalog.lower($1)
$$;

-- For an address that nobody has, a token that nobody can use and a message that nobody is sent: both cost the same.
CREATE OR REPLACE FUNCTION plinth._one_time_request(kind text, email text, redirect text, token_id uuid, token_hash bytea,
        message_id uuid, secret bytea, lifetime interval) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    meant plinth.users := plinth._one_time_user($2);
    until timestamptz := clock_timestamp() + $8;
BEGIN
    IF $1 = 'email_verify' AND meant.email_verified_at IS NOT NULL THEN
        meant := NULL;
    END IF;
    IF $1 = 'email_code' THEN
        DELETE FROM plinth.one_time_tokens t WHERE t.kind = 'email_code' AND lower(t.email) = lower($2);
    END IF;
    INSERT INTO plinth.one_time_tokens (id, kind, user_id, email, token_hash, expires_at)
        VALUES ($4, $1, meant.id, coalesce(meant.email, $2), $5, until)
        ON CONFLICT (lower(email)) WHERE kind = 'email_code'
        DO UPDATE SET id = excluded.id, user_id = excluded.user_id, token_hash = excluded.token_hash, expires_at = excluded.expires_at;
    INSERT INTO plinth.outbox_messages (id, kind, recipient, user_id, token_id, data, secret, expires_at, failed_at)
        VALUES ($6, $1, coalesce(meant.email, $2), meant.id, $4,
            jsonb_strip_nulls(jsonb_build_object('full_name', meant.full_name, 'username', meant.username, 'redirect', nullif($3, ''))),
            $7, until, CASE WHEN meant.id IS NULL THEN clock_timestamp() END);
    RETURN meant.id;
END
$$;

-- The token, which is no longer good, with its user's row locked; NULL where it is not good.
CREATE OR REPLACE FUNCTION plinth._one_time_take(kind text, token_hash bytea) RETURNS plinth.one_time_tokens
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_token plinth.one_time_tokens;
    found_email text;
BEGIN
    SELECT t.* INTO found_token FROM plinth.one_time_tokens t WHERE t.token_hash = $2 AND t.kind = $1 AND t.user_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- The user first, as everybody locks.
    SELECT u.email INTO found_email FROM plinth.users u WHERE u.id = found_token.user_id AND u.deleted_at IS NULL FOR NO KEY UPDATE;
    DELETE FROM plinth.one_time_tokens t WHERE t.token_hash = $2 AND t.kind = $1 RETURNING t.* INTO found_token;
    IF NOT FOUND OR found_token.expires_at <= clock_timestamp() OR lower(found_token.email) IS DISTINCT FROM lower(found_email) THEN
        RETURN NULL;
    END IF;
    RETURN found_token;
END
$$;

-- Whoever read the mail has the address.
-- Returns whether this is the first proof.
CREATE OR REPLACE FUNCTION plinth._email_proved(user_id uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE plinth.users u SET email_verified_at = now() WHERE u.id = $1 AND u.email_verified_at IS NULL;
    RETURN FOUND;
END
$$;

-- Who had the account before its address was proved may have been anybody: what they left to come back by ends.
CREATE OR REPLACE FUNCTION plinth._email_claimed(user_id uuid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM plinth.passwords p WHERE p.user_id = $1;
    DELETE FROM plinth.identities i WHERE i.user_id = $1;
    DELETE FROM plinth.one_time_tokens t WHERE t.user_id = $1;
    UPDATE plinth.api_keys k SET revoked_at = clock_timestamp(), revoked_reason = 'address proved for the first time'
        WHERE k.user_id = $1 AND k.revoked_at IS NULL;
    PERFORM plinth._users_end_sessions($1, 'address proved for the first time');
END
$$;

CREATE OR REPLACE FUNCTION plinth._email_verify(token_hash bytea) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken plinth.one_time_tokens := plinth._one_time_take('email_verify', $1);
BEGIN
    IF taken.id IS NOT NULL THEN
        PERFORM plinth._email_proved(taken.user_id);
        DELETE FROM plinth.one_time_tokens t WHERE t.user_id = taken.user_id AND t.kind = 'email_verify';
    END IF;
    RETURN taken.user_id;
END
$$;

CREATE OR REPLACE FUNCTION plinth._password_reset(token_hash bytea, phc text) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken plinth.one_time_tokens := plinth._one_time_take('password_reset', $1);
BEGIN
    IF taken.id IS NOT NULL THEN
        IF plinth._email_proved(taken.user_id) THEN
            PERFORM plinth._email_claimed(taken.user_id);
        END IF;
        PERFORM plinth._password_store(taken.user_id, $2);
        PERFORM plinth._password_end_tokens(taken.user_id);
        PERFORM plinth._users_end_sessions(taken.user_id, 'password reset');
    END IF;
    RETURN taken.user_id;
END
$$;

-- Whose token it was.
CREATE OR REPLACE FUNCTION plinth._one_time_sign_in(kind text, token_hash bytea) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken plinth.one_time_tokens := plinth._one_time_take($1, $2);
BEGIN
    IF taken.id IS NOT NULL AND plinth._email_proved(taken.user_id) THEN
        PERFORM plinth._email_claimed(taken.user_id);
    END IF;
    RETURN taken.user_id;
END
$$;

CREATE OR REPLACE FUNCTION plinth._email_change_request(user_id uuid, new_email text, token_ids uuid[], token_hashes bytea[],
        message_ids uuid[], secrets bytea[], lifetime interval) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    meant plinth.users := plinth._users_lock($1);
    until timestamptz := clock_timestamp() + $7;
    kinds text[] := ARRAY['email_change_new', 'email_change_old'];
    recipients text[] := ARRAY[$2, meant.email];
BEGIN
    DELETE FROM plinth.one_time_tokens t WHERE t.user_id = $1 AND t.kind IN ('email_change_old', 'email_change_new');
    FOR i IN 1 .. CASE WHEN meant.email IS NULL THEN 1 ELSE 2 END LOOP
        INSERT INTO plinth.one_time_tokens (id, kind, user_id, email, new_email, token_hash, expires_at)
            VALUES ($3[i], kinds[i], $1, coalesce(meant.email, ''), $2, $4[i], until);
        INSERT INTO plinth.outbox_messages (id, kind, recipient, user_id, token_id, data, secret, expires_at)
            VALUES ($5[i], kinds[i], recipients[i], $1, $3[i],
                jsonb_strip_nulls(jsonb_build_object('full_name', meant.full_name, 'username', meant.username, 'new_email', $2)), $6[i], until);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION plinth._email_change_confirm(token_hash bytea, OUT status text, OUT user_id uuid) RETURNS record
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found_token plinth.one_time_tokens;
    found_email text;
BEGIN
    status := 'invalid_token';
    SELECT t.user_id INTO user_id FROM plinth.one_time_tokens t WHERE t.token_hash = $1 AND t.kind ~ '^email_change';
    SELECT u.email INTO found_email FROM plinth.users u WHERE u.id = user_id AND u.deleted_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE plinth.one_time_tokens t SET confirmed_at = clock_timestamp()
        WHERE t.token_hash = $1 AND t.confirmed_at IS NULL AND t.expires_at > clock_timestamp()
            AND lower(t.email) = lower(coalesce(found_email, ''))
        RETURNING t.* INTO found_token;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM plinth.one_time_tokens t WHERE t.user_id = found_token.user_id AND t.kind ~ '^email_change' AND t.confirmed_at IS NULL) THEN
        status := 'pending';
        RETURN;
    END IF;
    DELETE FROM plinth.one_time_tokens t WHERE t.user_id = found_token.user_id;
    BEGIN
        UPDATE plinth.users u SET email = found_token.new_email, email_verified_at = now() WHERE u.id = found_token.user_id;
        status := 'ok';
    EXCEPTION WHEN unique_violation THEN
        status := 'email_taken';
    END;
END
$$;

CREATE OR REPLACE FUNCTION plinth.email_verify_request(email text DEFAULT NULL, OUT status text, OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_email_verify_request';
COMMENT ON FUNCTION plinth.email_verify_request(text) IS
'Has a token mailed (kind email_verify) that proves who has an address.
email: NULL for that of the request context''s user.
Returns status "ok" whether a user has this address or not and whether it was verified before, or "rate_limited" with retry_after.
Errors: PT400 for what is no address, PT401 without an address and a user, 55000 without a root key, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.password_reset_request(email text, OUT status text, OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_password_reset_request';
COMMENT ON FUNCTION plinth.password_reset_request(text) IS
'Has a token mailed (kind password_reset) by which password_reset sets a password.
Returns status "ok" whether a user has this address or not, or "rate_limited" with retry_after.
Errors: PT400 for what is no address, 55000 without a root key, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.magic_link_request(email text, redirect text DEFAULT NULL, OUT status text, OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_magic_link_request';
COMMENT ON FUNCTION plinth.magic_link_request(text, text) IS
'Has a token mailed (kind magic_link) by which magic_link_sign_in signs in.
redirect: at most 2000 bytes, handed to the sender as data.redirect; check it before you use it.
Returns status "ok" whether a user has this address or not, or "rate_limited" with retry_after.
Errors: PT400 for what is no address, 55000 without a root key, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.email_code_request(email text, OUT status text, OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_email_code_request';
COMMENT ON FUNCTION plinth.email_code_request(text) IS
'Has a code of six digits mailed (kind email_code) by which email_code_sign_in signs in; one asked for before is no longer good.
Returns status "ok" whether a user has this address or not, or "rate_limited" with retry_after.
Errors: PT400 for what is no address, 55000 without a root key, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.email_change_request(new_email text, OUT status text, OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_email_change_request';
COMMENT ON FUNCTION plinth.email_change_request(text) IS
'Has a token mailed to the present address of the request context''s user and another to the new one (kinds email_change_old, email_change_new); the address changes when both were confirmed.
Returns status "ok" whether the new address is free or not, or "rate_limited" with retry_after. What was asked for before is no longer good.
Errors: PT400 for what is no address, PT401 without a user, PT403 while an administrator acts as the user, 55000 without a root key, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.email_verify(token text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_email_verify';
COMMENT ON FUNCTION plinth.email_verify(text) IS
'Marks an address as verified, by the token that email_verify_request mailed.
Returns "ok", or "invalid_token" for one that is unknown, used, expired or of an address that is no longer the user''s.
Errors: 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.email_change_confirm(token text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_email_change_confirm';
COMMENT ON FUNCTION plinth.email_change_confirm(text) IS
'Confirms a change of address, by one of the tokens that email_change_request mailed.
Returns "pending" until the other one is confirmed as well, then "ok", and the address is changed and verified; "email_taken" when somebody else has taken it; or "invalid_token".
Errors: 25006 in a read-only transaction.';

-- ---- the outbox -------------------------------------------------------------------

CREATE OR REPLACE FUNCTION plinth._outbox_open(id uuid, secret bytea) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_outbox_open';
COMMENT ON FUNCTION plinth._outbox_open(uuid, bytea) IS 'The token in a message of the outbox, for outbox_claim.';

CREATE OR REPLACE FUNCTION plinth.outbox_claim(sender text, limit_count int DEFAULT 10, lease interval DEFAULT '1 minute')
    RETURNS TABLE (id uuid, kind text, recipient text, token text, data jsonb, user_id uuid, attempt int, expires_at timestamptz)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    m record;
    unreadable int := 0;
BEGIN
    IF outbox_claim.sender IS NULL OR octet_length(outbox_claim.sender) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'sender must have 1 to 200 bytes';
    END IF;
    IF outbox_claim.limit_count IS NULL OR outbox_claim.limit_count NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'between 1 and 1000 messages can be claimed at once';
    END IF;
    IF outbox_claim.lease IS NULL OR outbox_claim.lease NOT BETWEEN interval '1 second' AND interval '1 day' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'lease must be between a second and a day';
    END IF;
    FOR m IN
        WITH due AS (
            SELECT m.id FROM plinth.outbox_messages m
                WHERE m.sent_at IS NULL AND m.failed_at IS NULL AND m.available_at <= clock_timestamp() AND m.expires_at > clock_timestamp()
                    AND m.token_id IS NOT NULL AND m.secret IS NOT NULL
                ORDER BY m.available_at, m.id LIMIT outbox_claim.limit_count FOR UPDATE SKIP LOCKED),
        claimed AS (
            UPDATE plinth.outbox_messages m SET attempts = m.attempts + 1, claimed_by = outbox_claim.sender,
                    lease_until = clock_timestamp() + outbox_claim.lease, available_at = clock_timestamp() + outbox_claim.lease
                FROM due WHERE m.id = due.id RETURNING m.*)
        SELECT c.id, c.kind, c.recipient, plinth._outbox_open(c.id, c.secret) AS token, c.data, c.user_id, c.attempts, c.expires_at
            FROM claimed c ORDER BY c.created_at, c.id
    LOOP
        -- Nobody could do anything with it; the right root key may be back before it expires.
        IF m.token IS NULL THEN
            PERFORM plinth.outbox_fail(m.id, 'sealed under another root key', m.attempts);
            unreadable := unreadable + 1;
            CONTINUE;
        END IF;
        id := m.id;
        kind := m.kind;
        recipient := m.recipient;
        token := m.token;
        data := m.data;
        user_id := m.user_id;
        attempt := m.attempts;
        expires_at := m.expires_at;
        RETURN NEXT;
    END LOOP;
    IF unreadable > 0 THEN
        RAISE WARNING 'messages that are sealed under another root key: %', unreadable USING HINT = 'Check "plinth.root_key_file".';
    END IF;
END
$$;
ALTER FUNCTION plinth.outbox_claim(text, int, interval) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.outbox_claim(text, int, interval) IS
'Hands messages to a sender, each to one at a time; it must tell by outbox_ack or outbox_fail what became of each.
sender: a name, 1 to 200 bytes, to be seen in the table. limit_count: how many at most, 1 to 1000. lease: after this time without an answer the message is handed out again, 1 s to 1 day.
Returns kind (email_verify, password_reset, magic_link, email_code, email_change_old, email_change_new), recipient, the token or code in clear, data for the template (full_name, username, redirect, new_email where known), the user, which attempt it is, and when the token expires. Commit before you send. A message is sent at least once. One that was sealed under another root key is not handed out: that counts as an attempt that failed, with a warning.
Errors: 22023 for an argument out of bounds, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.outbox_ack(id uuid) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE plinth.outbox_messages m SET sent_at = clock_timestamp(), failed_at = NULL, last_error = NULL, secret = NULL, lease_until = NULL
        WHERE m.id = outbox_ack.id AND m.attempts > 0 AND m.sent_at IS NULL;
    RETURN FOUND;
END
$$;
ALTER FUNCTION plinth.outbox_ack(uuid) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.outbox_ack(uuid) IS
'Says that a message was sent; its token is forgotten.
Returns false for a message that does not exist, was not claimed, or was acknowledged before.';

CREATE OR REPLACE FUNCTION plinth.outbox_fail(id uuid, reason text, attempt int DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most int := current_setting('plinth.outbox_max_attempts')::int;
BEGIN
    UPDATE plinth.outbox_messages m SET lease_until = NULL, last_error = left(outbox_fail.reason, 500),
            failed_at = CASE WHEN m.attempts >= most THEN clock_timestamp() END,
            secret = CASE WHEN m.attempts < most THEN m.secret END,
            available_at = clock_timestamp() + least(interval '10 s' * power(2, least(m.attempts, 20) - 1), interval '1 hour')
        WHERE m.id = outbox_fail.id AND m.attempts > 0 AND m.sent_at IS NULL AND m.failed_at IS NULL
            AND m.attempts = coalesce(outbox_fail.attempt, m.attempts);
    RETURN FOUND;
END
$$;
ALTER FUNCTION plinth.outbox_fail(uuid, text, int) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.outbox_fail(uuid, text, int) IS
'Says that a message could not be sent; it is handed out again after 10 s, then 20 s and so on up to an hour, and given up after plinth.outbox_max_attempts.
reason: the first 500 characters are kept; put no token into it. attempt: as outbox_claim returned it, so that a sender whose lease is over does not speak for the next one; NULL: whichever.
Returns false for a message that does not exist, is done, or is at another attempt.';

-- Whether there is something to forget now, by indexes: those take no clock that goes on while they are read.
CREATE OR REPLACE FUNCTION plinth._credentials_due() RETURNS boolean
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM plinth.one_time_tokens t WHERE t.expires_at <= pg_catalog.statement_timestamp())
        OR EXISTS (SELECT FROM plinth.outbox_messages m WHERE m.secret IS NOT NULL AND m.expires_at <= pg_catalog.statement_timestamp())
        OR EXISTS (SELECT FROM plinth.outbox_messages m
            WHERE m.created_at < pg_catalog.statement_timestamp() - pg_catalog.current_setting('plinth.outbox_retention')::interval)
        OR EXISTS (SELECT FROM plinth.api_keys k WHERE LEAST(k.expires_at, k.revoked_at)
            < pg_catalog.statement_timestamp() - pg_catalog.current_setting('plinth.api_key_retention')::interval)
$$;

-- Some of it; how much that was.
CREATE OR REPLACE FUNCTION plinth._credentials_purge() RETURNS int
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    done int := 0;
    n int;
BEGIN
    UPDATE plinth.outbox_messages m SET secret = NULL, failed_at = coalesce(m.failed_at, clock_timestamp()),
            last_error = coalesce(m.last_error, CASE WHEN m.failed_at IS NULL THEN 'expired' END)
        WHERE m.id IN (SELECT e.id FROM plinth.outbox_messages e WHERE e.secret IS NOT NULL AND e.expires_at <= statement_timestamp()
            LIMIT 1000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    done := done + n;
    DELETE FROM plinth.one_time_tokens t WHERE t.id IN (SELECT e.id FROM plinth.one_time_tokens e WHERE e.expires_at <= statement_timestamp()
        LIMIT 1000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    done := done + n;
    DELETE FROM plinth.outbox_messages m WHERE m.id IN (SELECT e.id FROM plinth.outbox_messages e
        WHERE e.created_at < statement_timestamp() - current_setting('plinth.outbox_retention')::interval LIMIT 1000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    done := done + n;
    DELETE FROM plinth.api_keys k WHERE k.id IN (SELECT e.id FROM plinth.api_keys e WHERE least(e.expires_at, e.revoked_at)
        < statement_timestamp() - current_setting('plinth.api_key_retention')::interval LIMIT 1000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN done + n;
END
$$;
COMMENT ON FUNCTION plinth._credentials_purge() IS 'Forgets tokens, messages and API keys whose time is over, for the housekeeper.';

DO $$
DECLARE
    f record;
BEGIN
    FOR f IN SELECT p.proname, p.oid::pg_catalog.regprocedure AS signature FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'plinth'::pg_catalog.regnamespace
            AND p.proname ~ '^_?(password_|breached_|one_time_|email_(verify|proved|claimed|change|code)|magic_link_request|outbox_|credentials_)' LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f.signature);
        IF f.proname ~ '^_' THEN
            EXECUTE pg_catalog.format('ALTER FUNCTION %s OWNER TO plinth_owner', f.signature);
        END IF;
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION plinth.password_check(text), plinth.password_reset(text, text), plinth.password_reset_request(text),
    plinth.email_verify_request(text), plinth.email_verify(text), plinth.magic_link_request(text, text),
    plinth.email_code_request(text), plinth.email_change_confirm(text) TO anon, authenticated, authenticator, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.password_change(text, text), plinth.email_change_request(text) TO authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.password_set(uuid, text), plinth.breached_passwords_load(text, bigint), plinth.outbox_claim(text, int, interval),
    plinth.outbox_ack(uuid), plinth.outbox_fail(uuid, text, int) TO plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.password_set(uuid, text) TO authenticated;

GRANT SELECT, INSERT, DELETE ON plinth.breached_passwords TO plinth_admin;
-- All but the token.
GRANT SELECT (id, kind, recipient, user_id, token_id, data, created_at, expires_at, available_at, attempts, claimed_by, lease_until, sent_at,
    failed_at, last_error) ON plinth.outbox_messages TO plinth_admin;
DROP POLICY IF EXISTS outbox_messages_admin ON plinth.outbox_messages;
CREATE POLICY outbox_messages_admin ON plinth.outbox_messages FOR SELECT TO plinth_admin USING (true);
