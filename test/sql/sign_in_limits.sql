-- Who tries too often, and what waits for them; verified addresses.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE limits_admin IN ROLE plinth_admin;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset
SELECT status FROM plinth.sign_up('ann@tries.test', 'correct horse', 'tries_ann');
-- However long hashing takes here.
SELECT plinth.rate_limit_alter('plinth.lockout_1', period => '1 day');

-- Five tries, the sixth is not looked at: the right password neither; a known account and an unknown one alike.
SELECT n, (SELECT status FROM plinth.sign_in('ann@tries.test', 'wrong ' || n)) AS known, (SELECT status FROM plinth.sign_in('nobody@tries.test', 'wrong ' || n)) AS unknown
    FROM generate_series(1, 6) n;
SELECT status, token, retry_after BETWEEN '1 hour' AND '1 day' AS later FROM plinth.sign_in('ANN@tries.test', 'correct horse');
SELECT status, token, retry_after BETWEEN '1 hour' AND '1 day' AS later FROM plinth.sign_in('NOBODY@tries.test', 'correct horse');
SELECT status FROM plinth.sign_in('tries_ann', 'correct horse');

-- By each name the account is counted apart, and the right password gives the tries back.
DO $$
BEGIN
    FOR i IN 1 .. 20 LOOP
        IF (SELECT status FROM plinth.sign_in('tries_ann', CASE i % 5 WHEN 4 THEN 'correct horse' ELSE 'wrong' END)) = 'locked' THEN
            RAISE 'locked after %', i;
        END IF;
    END LOOP;
END
$$;

-- A rollback gives nothing back.
BEGIN;
SELECT count(status) FROM generate_series(1, 5) n, plinth.sign_in('rolled@tries.test', 'wrong ' || n);
ROLLBACK;
SELECT status FROM plinth.sign_in('rolled@tries.test', 'wrong');

-- The pauses are policies: what an administrator changes counts at once, and can be undone.
SET ROLE limits_admin;
SELECT name, limit_count, period, burst, shadow FROM plinth.rate_limit_defaults WHERE name ~ 'sign_in|lockout' ORDER BY 1;
SELECT plinth.rate_limit_alter('plinth.lockout_1', enabled => false);
SELECT name, limit_count, period, burst, enabled FROM plinth.rate_limits WHERE name ~ '^plinth';
SELECT status FROM plinth.sign_in('rolled@tries.test', 'wrong');
SELECT plinth.rate_limit_alter('plinth.lockout_2', period => '3 days');
SELECT n, status, retry_after > '1 day' AS longer FROM generate_series(1, 11) n, plinth.sign_in('longer@tries.test', 'wrong ' || n) OFFSET 9;
SELECT plinth.rate_limit_drop('plinth.lockout_1'), plinth.rate_limit_drop('plinth.lockout_2');
SELECT count(*) FROM plinth.rate_limits WHERE name ~ '^plinth';
RESET ROLE;

-- For an account wherever it is tried from: only where somebody asks for it.
SELECT plinth.rate_limit_alter('plinth.sign_in_account', 1, burst => 2, shadow => false);
SELECT n, status, retry_after > '50 min' AS later FROM generate_series(1, 3) n, plinth.sign_in('account@tries.test', 'wrong ' || n);
SELECT plinth.rate_limit_drop('plinth.sign_in_account');

-- Only those whose address is verified, where that is asked for; told to nobody who does not know the password.
SET plinth.require_verified_email = on;
SELECT status, token, retry_after FROM plinth.sign_in('tries_ann', 'correct horse');
SELECT status FROM plinth.sign_in('tries_ann', 'wrong');
UPDATE plinth.users SET status = 'locked' WHERE username = 'tries_ann';
SELECT status, retry_after FROM plinth.sign_in('tries_ann', 'correct horse');
UPDATE plinth.users SET status = 'active', email_verified_at = now() WHERE username = 'tries_ann';
SELECT status, token IS NOT NULL AS in FROM plinth.sign_in('tries_ann', 'correct horse');
RESET plinth.require_verified_email;
SET ROLE authenticated;
SET plinth.require_verified_email = off;
RESET ROLE;

-- Every attempt in audit.
SELECT result, metadata, resource IS NOT NULL AS names_user, count(*) FROM plinth.audit_entries WHERE id > :'start' AND action = 'plinth.sign_in' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
DELETE FROM plinth.users WHERE id > :'start';
DROP ROLE limits_admin;
