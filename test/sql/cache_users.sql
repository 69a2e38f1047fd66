-- Who may use a cache, and that nobody reads another user's entries, whatever they try.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE cache_app NOLOGIN;
CREATE ROLE cache_login LOGIN NOINHERIT IN ROLE anon, authenticated;
CREATE ROLE cache_stranger LOGIN;
CREATE ROLE cache_dba LOGIN IN ROLE plinth_admin;
CREATE ROLE cache_monitor LOGIN IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA plinth TO cache_app, cache_login, cache_stranger;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO cache_app', current_database()); END $$;
GRANT EXECUTE ON FUNCTION plinth.context_begin(text) TO cache_login, cache_stranger;
\set VERBOSITY terse
\pset null -
SELECT user_id AS ann FROM plinth.sign_up('ann@cache.test', 'correct horse') \gset
SELECT user_id AS ben FROM plinth.sign_up('ben@cache.test', 'battery staple') \gset
SELECT token AS ann_token FROM plinth.sign_in('ann@cache.test', 'correct horse') \gset
SELECT token AS ben_token FROM plinth.sign_in('ben@cache.test', 'battery staple') \gset

SET SESSION AUTHORIZATION cache_stranger;
SELECT plinth.cache_create('stranger');
RESET SESSION AUTHORIZATION;
SET ROLE cache_app;
SELECT plinth.cache_create('mine', roles => '{authenticated}'), plinth.cache_create('mine_durable', roles => '{authenticated}', durable => true),
    plinth.cache_create('shared', per_user => false), plinth.cache_create('open', per_user => false, roles => '{public}');
RESET ROLE;

-- Ann keeps something, and a secret of hers is in both levels.
SET SESSION AUTHORIZATION cache_login;
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann' AS ann;
SELECT plinth.cache_set('mine', 'k', '"of ann"', tags => '{t}'), plinth.cache_set('mine_durable', 'k', '"of ann"', tags => '{t}');
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann' AS ann;
SELECT plinth.cache_get('mine', 'k'), plinth.cache_get('mine_durable', 'k');
SELECT plinth.cache_fetch('mine', 'f', 'SELECT 1'), plinth.cache_fetch('mine_durable', 'f', 'SELECT 1');
COMMIT;

-- Ben sees nothing of it.
BEGIN;
SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben;
SELECT plinth.cache_get('mine', 'k'), plinth.cache_get('mine_durable', 'k');
SELECT found FROM plinth.cache_lookup('mine', 'k');
SELECT count(*) FROM plinth.cache_get_many('mine', '{k,f}');
SELECT plinth.cache_fetch('mine', 'k', 'SELECT ''of ben''::text'), plinth.cache_touch('mine_durable', 'k');
SELECT set_config('search_path', 'pg_temp, public', true);
SELECT set_config('request.jwt.claims', json_build_object('sub', :'ann', 'role', 'authenticated')::text, true) IS NOT NULL AS set;
SELECT plinth.cache_get('mine', 'k'), plinth.cache_get('mine_durable', 'k');
COMMIT;
BEGIN; SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben; SELECT set_config('plinth.context', 'x', true); ROLLBACK;
BEGIN; SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben; SELECT plinth.context_begin(:'ann_token'); ROLLBACK;
BEGIN; SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben; SELECT plinth.cache_delete('mine', 'k', :'ann'); ROLLBACK;
BEGIN; SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben; SELECT plinth.cache_delete_prefix('mine', '', :'ann'); ROLLBACK;
BEGIN; SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben; SELECT plinth.cache_clear('mine', :'ann'); ROLLBACK;
BEGIN; SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben; SELECT plinth.cache_invalidate_tag('mine', 't'); ROLLBACK;
-- What he clears is his own.
BEGIN;
SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben;
SELECT plinth.cache_clear('mine'), plinth.cache_clear('mine_durable'), plinth.cache_delete('mine', 'k'), plinth.cache_delete('mine_durable', 'k'),
    plinth.cache_delete_prefix('mine', ''), plinth.cache_delete_prefix('mine_durable', '');
COMMIT;
-- Nor can the tables, views or a role that he switches to tell him.
BEGIN; SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben; SELECT count(*) FROM plinth.cache_durable_entries; ROLLBACK;
SELECT count(*) FROM plinth.cache_entries;
SELECT count(*) FROM plinth.cache_invalidations;
SELECT count(*) FROM plinth._cache_valid_durable;
SELECT count(*) FROM plinth.caches;
SELECT count(*) FROM plinth.stat_cache;
SELECT plinth.cache_stats('mine');
SELECT plinth._cache_purge(1);
SET ROLE cache_app;
SET ROLE plinth_owner;
-- Without a context there is nobody; also for the role that requests run as.
SET ROLE authenticated;
SELECT plinth.cache_get('mine', 'k');
SELECT plinth.cache_set('mine', 'k', '1');
SELECT plinth.cache_fetch('mine', 'k', 'SELECT 1');
SELECT plinth.cache_clear('mine');
-- Claims count only from a trusted login role.
SELECT set_config('request.jwt.claims', json_build_object('sub', :'ann', 'role', 'authenticated')::text, false) IS NOT NULL AS set;
SELECT plinth.cache_get('mine', 'k');
RESET request.jwt.claims;
-- A shared cache is for whom its owner names.
SELECT plinth.cache_set('shared', 'k', '"poison"');
SELECT plinth.cache_get('shared', 'k');
SELECT plinth.cache_ticket('shared');
SELECT plinth.cache_clear('shared');
SELECT plinth.cache_alter('mine', per_user => false);
SELECT plinth.cache_drop('mine');
SELECT plinth.cache_warm('mine');
SELECT plinth.cache_watch('mine', 'pg_class');
SELECT plinth.cache_set('open', 'k', '1');
RESET ROLE;
RESET SESSION AUTHORIZATION;

-- Ann still has hers.
SET SESSION AUTHORIZATION cache_login;
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann' AS ann;
SELECT plinth.cache_get('mine', 'k'), plinth.cache_get('mine_durable', 'k'), plinth.cache_get('mine', 'f');
COMMIT;
RESET SESSION AUTHORIZATION;
-- A definer's function uses the shared cache for everybody, and the caller's own entries for the caller.
CREATE FUNCTION cache_definer() RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT jsonb_build_array(plinth.cache_fetch('shared', 'sum', 'SELECT 1 + 1'), plinth.cache_get('mine', 'k')) $$;
ALTER FUNCTION cache_definer() OWNER TO cache_app;
SET SESSION AUTHORIZATION cache_login;
BEGIN; SELECT plinth.context_begin(:'ann_token') = :'ann' AS ann; SELECT cache_definer(); COMMIT;
BEGIN; SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben; SELECT cache_definer(); COMMIT;
RESET SESSION AUTHORIZATION;

-- What warms a cache is nobody's request, whoever asks for it; what he asks afterwards is his own again.
SET ROLE cache_app;
SELECT plinth.cache_create('warmed', per_user => false, warm => $$SELECT 'who', to_jsonb(concat_ws(' ', 'nobody', plinth.current_user_id(), nullif(current_setting('request.jwt.claims', true), '')))$$);
RESET ROLE;
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann' AS ann;
RESET ROLE;
SELECT set_config('request.jwt.claims', json_build_object('sub', :'ann')::text, true) IS NOT NULL AS set;
SELECT plinth.cache_warm('warmed'), plinth.cache_get('warmed', 'who'), plinth.current_user_id() = :'ann' AS ann;
SELECT plinth.cache_alter('warmed', warm => $$SELECT 'k', plinth.cache_get('mine', 'k')$$);
SAVEPOINT s;
SELECT plinth.cache_warm('warmed');
ROLLBACK TO s;
SELECT plinth.current_user_id() = :'ann' AS ann, plinth.cache_get('mine', 'k');
ROLLBACK;
SELECT plinth.cache_drop('warmed');

-- The owner and plinth_admin invalidate anybody's, and read nobody's.
SET SESSION AUTHORIZATION cache_dba;
SELECT plinth.cache_get('mine', 'k');
SELECT plinth.cache_delete('mine', 'k', :'ann'), plinth.cache_invalidate_tag('mine_durable', 't');
SELECT name FROM plinth.caches WHERE name IN ('mine', 'shared') ORDER BY name;
SELECT name FROM plinth.stat_cache WHERE name = 'mine';
SELECT count(*) FROM plinth.cache_durable_entries;
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION cache_login;
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann' AS ann;
SELECT plinth.cache_get('mine', 'k'), plinth.cache_get('mine_durable', 'k'), plinth.cache_get('mine', 'f');
COMMIT;
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION cache_monitor;
SELECT name FROM plinth.stat_cache WHERE name = 'mine';
SELECT plinth.cache_get('mine', 'k');
RESET SESSION AUTHORIZATION;
-- Rights follow memberships and the list of roles at once.
SET ROLE cache_stranger;
SELECT plinth.cache_get('shared', 'sum');
RESET ROLE;
GRANT cache_app TO cache_stranger;
SET ROLE cache_stranger;
SELECT plinth.cache_get('shared', 'sum');
RESET ROLE;
REVOKE cache_app FROM cache_stranger;
SET ROLE cache_stranger;
SELECT plinth.cache_get('shared', 'sum');
RESET ROLE;
SELECT plinth.cache_alter('shared', roles => '{cache_stranger}');
SET ROLE cache_stranger;
SELECT plinth.cache_set('shared', 'sum', '3');
RESET ROLE;

SELECT plinth.cache_drop('mine'), plinth.cache_drop('mine_durable'), plinth.cache_drop('shared'), plinth.cache_drop('open');
DELETE FROM plinth.users WHERE email LIKE '%@cache.test';
DROP FUNCTION cache_definer();
DROP OWNED BY cache_app, cache_login, cache_stranger, cache_dba, cache_monitor;
DROP ROLE cache_app, cache_login, cache_stranger, cache_dba, cache_monitor;
