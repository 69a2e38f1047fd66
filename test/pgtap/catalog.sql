-- What must hold for every object of the extension, by the catalogs.
BEGIN;
SELECT plan(22);

CREATE TEMP VIEW our_functions AS
    SELECT p.*, p.oid::regprocedure::text AS signature, l.lanname AS language
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = 'plinth'::regnamespace;

CREATE TEMP VIEW our_relations AS
    SELECT c.*, c.oid::regclass::text AS name FROM pg_class c
    WHERE c.relnamespace = 'plinth'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f');

-- Readers of the context and makers of ids are for everybody: column defaults
-- and policies run as whoever uses the table.
CREATE TEMP TABLE for_everybody (signature text PRIMARY KEY);
INSERT INTO for_everybody VALUES
    ('plinth.uuid_v7()'), ('plinth.ulid(text)'), ('plinth.objectid()'),
    ('plinth.base64url_encode(bytea)'), ('plinth.base64url_decode(text)'),
    ('plinth.current_user_id()'), ('plinth.current_session_id()'), ('plinth.current_api_key_id()'), ('plinth.current_user_key()'),
    ('plinth.current_aal()'), ('plinth.current_tier()'), ('plinth.has_role(text)'), ('plinth.has_permission(text)'),
    ('plinth.current_roles()'), ('plinth.current_permissions()'), ('plinth.require_permission(text)'),
    ('plinth.owner_policy(regclass,name,text)');

-- Anybody may own a table and a server, and so what goes from one to the other:
-- these ask who owns what; the others are what stat_sync and sync_status ask as their reader.
INSERT INTO for_everybody
    SELECT f.signature FROM our_functions f WHERE f.proname ~ '^(sync_|_sync_(stat|number|span|left)$)' AND NOT f.prosecdef;

-- So with buckets of files.
INSERT INTO for_everybody
    SELECT f.signature FROM our_functions f WHERE f.proname ~ '^(file_|_file_column_changed$)' AND NOT f.prosecdef;

-- So with caches, whose owners name the roles that may use them.
INSERT INTO for_everybody
    SELECT f.signature FROM our_functions f WHERE f.proname ~ '^(cache_|_cache_watched$)' AND NOT f.prosecdef;

SELECT is_empty($$
    SELECT f.signature FROM our_functions f,
        LATERAL aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
    WHERE a.grantee = 0 AND f.signature NOT IN (SELECT e.signature FROM for_everybody e)
$$, 'no function is for PUBLIC but those meant to be');

SELECT is_empty($$
    SELECT f.signature FROM our_functions f,
        LATERAL aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
    WHERE f.proname ~ '^_' AND a.grantee <> f.proowner AND a.grantee::regrole::text IN ('anon', 'authenticated', 'authenticator')
$$, 'no internal function is for clients');

SELECT is_empty($$
    SELECT f.signature, a.grantee::regrole FROM our_functions f,
        LATERAL aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
    WHERE a.is_grantable AND a.grantee <> f.proowner
$$, 'nobody may hand on the right to a function');

SELECT is_empty($$
    SELECT f.signature FROM our_functions f
    WHERE f.prosecdef AND NOT coalesce(f.proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']
$$, 'every SECURITY DEFINER function pins search_path');

SELECT is_empty($$
    SELECT f.signature FROM our_functions f WHERE f.prosecdef AND f.proowner <> 'plinth_owner'::regrole
$$, 'every SECURITY DEFINER function belongs to plinth_owner');

SELECT is_empty($$
    SELECT f.signature FROM our_functions f
    WHERE f.language IN ('sql', 'plpgsql') AND f.prosqlbody IS NULL
        AND NOT coalesce(f.proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']
$$, 'every function whose body is read when it runs pins search_path');

SELECT is_empty($$
    SELECT f.signature FROM our_functions f
    WHERE f.language IN ('c', 'internal') AND f.probin IS DISTINCT FROM '$libdir/plinth'
$$, 'every C function is in our library');

SELECT is_empty($$
    SELECT f.signature FROM our_functions f
    WHERE f.proname !~ '^_' AND coalesce(split_part(obj_description(f.oid, 'pg_proc'), E'\n', 1), '') = ''
$$, 'every public function has a comment');

SELECT is_empty($$
    SELECT f.signature FROM our_functions f
    WHERE f.proname !~ '^_' AND f.pronargs > 0
        AND (f.proargnames IS NULL OR '' = ANY (f.proargnames[1:f.pronargs]))
        AND NOT EXISTS (SELECT FROM pg_foreign_data_wrapper w WHERE f.oid IN (w.fdwhandler, w.fdwvalidator))
$$, 'every argument of a public function has a name');

SELECT is_empty($$
    SELECT f.signature, k.word FROM our_functions f, LATERAL unnest(f.proargnames) n
        JOIN pg_get_keywords() k ON k.word = n
    WHERE k.catcode <> 'U' AND f.proname !~ '^_'
$$, 'no argument is named by a word that SQL reserves');

SELECT is_empty($$
    SELECT f.proname, f.pronargs FROM our_functions f GROUP BY 1, 2 HAVING count(*) > 1
$$, 'no two functions differ by types only');

SELECT is_empty($$
    SELECT f.signature FROM our_functions f
    WHERE f.provolatile <> 'v' AND f.proparallel <> 's' AND f.prorettype <> 'trigger'::regtype
        AND f.language = 'c' AND f.proname ~ '^(current|has)_'
$$, 'readers of the context can run in parallel');

SELECT is_empty($$
    SELECT r.name, r.relowner::regrole FROM our_relations r WHERE r.relowner <> 'plinth_owner'::regrole
$$, 'every table, view and sequence belongs to plinth_owner');

SELECT is_empty($$
    SELECT r.name FROM our_relations r, LATERAL aclexplode(r.relacl) a WHERE a.grantee = 0
        AND NOT (a.privilege_type = 'SELECT' AND (r.relrowsecurity OR r.relkind = 'v'))
$$, 'PUBLIC may read only what row-level security filters, and write nothing');

SELECT is_empty($$
    SELECT r.name, a.grantee::regrole, a.privilege_type FROM our_relations r, LATERAL aclexplode(r.relacl) a
    WHERE r.relkind IN ('r', 'p') AND NOT r.relrowsecurity
        AND a.grantee NOT IN ('plinth_owner'::regrole, 'plinth_admin'::regrole, 'pg_monitor'::regrole)
$$, 'a table that clients may use has row-level security');

SELECT is_empty($$
    SELECT r.name FROM our_relations r
    WHERE r.relkind IN ('r', 'p') AND NOT r.relrowsecurity AND (r.relname ~ '^(users|passwords|sessions|audit_)'
        OR EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = r.oid AND t.attname = 'user_id'))
$$, 'a table of users'' data has row-level security');

SELECT is_empty($$
    SELECT r.name FROM our_relations r
    WHERE r.relkind IN ('r', 'p', 'v', 'm') AND NOT r.relispartition AND obj_description(r.oid, 'pg_class') IS NULL
$$, 'every table and view has a comment');

SELECT is_empty($$
    SELECT c.conrelid::regclass, c.conname FROM pg_constraint c JOIN our_relations r ON r.oid = c.conrelid
    WHERE c.contype = 'f' AND NOT EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.conrelid
            -- without the rows that no foreign key asks for is enough
            AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)',
                (SELECT t.attname FROM pg_attribute t WHERE t.attrelid = c.conrelid AND c.conkey = ARRAY[t.attnum])))
            AND (SELECT array_agg(k ORDER BY k) FROM unnest((i.indkey::int2[])[0:cardinality(c.conkey) - 1]) k)
                = (SELECT array_agg(k ORDER BY k) FROM unnest(c.conkey) k))
$$, 'every foreign key has an index');

SELECT is_empty($$
    SELECT s.name FROM our_relations s JOIN pg_depend d ON d.objid = s.oid AND d.refclassid = 'pg_class'::regclass
            AND d.deptype IN ('a', 'i')
        JOIN pg_extension e ON e.extname = 'plinth'
    WHERE s.relkind = 'S' AND (d.refobjid = ANY (e.extconfig)) <> (s.oid = ANY (e.extconfig))
$$, 'a sequence is dumped where its table is');

-- What a restore forgets on purpose; every other table is dumped.  A partitioned table has no rows of its own.
SELECT set_eq($$
    SELECT r.name FROM our_relations r JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_class'::regclass
            AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'plinth'
    WHERE r.relkind = 'r' AND NOT r.oid = ANY (coalesce(e.extconfig, '{}'))
$$, ARRAY['plinth.audit_event_keys', 'plinth.cache_durable_entries', 'plinth.cache_entries', 'plinth.cache_horizons', 'plinth.cache_invalidations',
    'plinth.decode_state', 'plinth.one_time_tokens', 'plinth.outbox_messages', 'plinth.refresh_tokens', 'plinth.sessions', 'plinth.sync_dead_letters', 'plinth.sync_dirty', 'plinth.sync_foreign_ids', 'plinth.sync_lanes', 'plinth.sync_via',
    'plinth.sync_states', 'plinth.sync_tasks', 'plinth.sync_verify_runs'],
    'every table is dumped but runtime state');

SELECT is_empty($$
    SELECT r.rolname FROM pg_roles r
    WHERE (r.rolname IN ('plinth_owner', 'anon', 'authenticated', 'authenticator', 'plinth_admin') AND (r.rolsuper OR r.rolbypassrls))
        OR (r.rolname IN ('plinth_owner', 'anon', 'authenticated', 'plinth_admin') AND r.rolcanlogin)
        OR (r.rolname = 'authenticator' AND r.rolinherit)
    UNION ALL
    SELECT r.rolname FROM pg_roles r JOIN pg_auth_members m ON r.oid IN (m.roleid, m.member) WHERE r.rolname = 'plinth_owner'
$$, 'no role of ours has more rights than it needs');

SELECT is_empty($$
    SELECT a.grantee::regrole, a.privilege_type FROM pg_namespace n, LATERAL aclexplode(n.nspacl) a
    WHERE n.nspname = 'plinth' AND a.privilege_type = 'CREATE' AND a.grantee NOT IN (n.nspowner, 'plinth_owner'::regrole)
$$, 'nobody else may create anything in the schema');

SELECT * FROM finish();
ROLLBACK;
