-- Which rows concern which documents: the ways that sync_document derives from a query, and what it refuses.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE sync_paths_owner;
GRANT USAGE ON SCHEMA plinth TO sync_paths_owner;
CREATE SCHEMA sync_paths AUTHORIZATION sync_paths_owner;
GRANT USAGE ON SCHEMA sync_paths TO PUBLIC;
SET search_path = sync_paths;
CREATE SERVER sync_paths_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'sync_paths');
GRANT USAGE ON FOREIGN SERVER sync_paths_docs TO sync_paths_owner;
CREATE USER MAPPING FOR PUBLIC SERVER sync_paths_docs;
\pset tuples_only on
\pset format unaligned
SET ROLE sync_paths_owner;

CREATE TABLE users (id int PRIMARY KEY, name text, team_id int, email varchar(80) UNIQUE);
CREATE TABLE threads (id int PRIMARY KEY, title text, author_id int REFERENCES users, parent_id int, member_ids int[], secret text);
CREATE TABLE replies (id int PRIMARY KEY, thread_id int REFERENCES threads, author_id int, body text, at timestamptz);
CREATE TABLE votes (reply_id int, user_id int, value int, PRIMARY KEY (reply_id, user_id));
CREATE TABLE tags (thread_id int, tag text, PRIMARY KEY (thread_id, tag));
CREATE TABLE settings (key text PRIMARY KEY, value text);
CREATE TABLE rooms (building int, room int, name text, PRIMARY KEY (building, room));
CREATE TABLE seats (id int PRIMARY KEY, building int, room int, label varchar(10));
CREATE TABLE events (id int, day date, thread_id int, what text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
ALTER TABLE replies REPLICA IDENTITY FULL;
ALTER TABLE seats REPLICA IDENTITY FULL;
ALTER TABLE users REPLICA IDENTITY FULL;
ALTER TABLE threads REPLICA IDENTITY FULL;
ALTER TABLE settings REPLICA IDENTITY FULL;
ALTER TABLE events_1 REPLICA IDENTITY FULL;
ALTER TABLE events_2 REPLICA IDENTITY FULL;
CREATE VIEW authors AS SELECT u.id, u.name, (SELECT count(*) FROM replies r WHERE r.author_id = u.id) AS written FROM users u;

-- The sources of a query, one a line; or the error.
CREATE FUNCTION sync_paths.ways(root regclass, query text, via jsonb DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m text;
    d text;
    h text;
BEGIN
    PERFORM plinth.sync_document('w', 'sync_paths_docs', 'w', root, query, via, snapshot => false);
    SELECT coalesce(string_agg(format('%s %s %s%s', s.relation, s.columns, coalesce(regexp_replace(s.roots, '\s+', ' ', 'g'), '= key'), CASE WHEN s.derived THEN '' ELSE ' (via)' END), E'\n'
                               ORDER BY s.source), 'only the root') INTO m
        FROM plinth.sync_sources s JOIN plinth.sync_mappings t ON t.id = s.mapping_id WHERE t.name = 'w';
    PERFORM plinth.sync_drop('w');
    RETURN m;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || m, nullif('  ' || d, '  '), nullif('  hint: ' || h, '  hint: '));
END
$$;
CREATE FUNCTION sync_paths.of_thread(query text, via jsonb DEFAULT NULL) RETURNS text LANGUAGE sql AS
    $$ SELECT sync_paths.ways('threads', query, via) $$;

-- Joins.
SELECT of_thread('SELECT id, title FROM threads');
SELECT of_thread('SELECT t.id, u.name FROM threads t JOIN users u ON u.id = t.author_id');
SELECT of_thread('SELECT t.id, u.name FROM threads t LEFT JOIN users u ON t.author_id = u.id');
SELECT of_thread('SELECT t.id, u.name FROM users u RIGHT JOIN threads t ON t.author_id = u.id');
SELECT of_thread('SELECT t.id, u.name FROM threads t, users u WHERE t.author_id = u.id AND u.name <> ''x''');
SELECT of_thread('SELECT id, string_agg(tag, '','' ORDER BY tag) AS tags FROM threads LEFT JOIN tags ON thread_id = id GROUP BY id');
SELECT of_thread('SELECT t.id, count(*) FROM threads t JOIN replies r ON r.thread_id = t.id JOIN votes v ON v.reply_id = r.id GROUP BY t.id');
SELECT ways('rooms', 'SELECT building, room, array_agg(label ORDER BY label) AS seats FROM rooms NATURAL LEFT JOIN seats GROUP BY building, room');
SELECT ways('rooms', 'SELECT r.building, r.room, s.label FROM rooms r LEFT JOIN seats s ON s.building = r.building AND s.id = 1');

-- Subqueries in the target list, LATERAL, WITH, views.
SELECT of_thread('SELECT t.id, (SELECT jsonb_agg(r.body ORDER BY r.id) FROM replies r WHERE r.thread_id = t.id) AS replies FROM threads t');
SELECT of_thread('SELECT t.id, (SELECT jsonb_agg(jsonb_build_object(''body'', r.body, ''votes'', (SELECT sum(v.value) FROM votes v WHERE v.reply_id = r.id),
    ''by'', (SELECT u.name FROM users u WHERE u.id = r.author_id)) ORDER BY r.id) FROM replies r WHERE r.thread_id = t.id) AS replies FROM threads t');
SELECT of_thread('SELECT t.id, l.body FROM threads t LEFT JOIN LATERAL (SELECT r.body FROM replies r WHERE r.thread_id = t.id ORDER BY r.at DESC LIMIT 1) l ON true');
SELECT of_thread('WITH r AS (SELECT thread_id, count(*) AS n FROM replies GROUP BY thread_id) SELECT t.id, r.n, p.n AS of_parent
    FROM threads t LEFT JOIN r ON r.thread_id = t.id LEFT JOIN r p ON p.thread_id = t.parent_id');
SELECT of_thread('SELECT t.id, a.name, a.written FROM threads t JOIN authors a ON a.id = t.author_id');
SELECT of_thread('SELECT id, title FROM threads t WHERE EXISTS (SELECT FROM replies r WHERE r.thread_id = t.id)');
SELECT of_thread('SELECT id, title FROM threads t WHERE author_id IN (SELECT u.id FROM users u WHERE u.team_id = 1)');
SELECT of_thread('SELECT id, title FROM threads t WHERE (id, parent_id) IN (SELECT r.thread_id, r.author_id FROM replies r)');
SELECT of_thread('SELECT t.id, ARRAY(SELECT x.tag FROM tags x WHERE x.thread_id = t.id UNION ALL SELECT u.name FROM users u WHERE u.id = t.author_id) AS words FROM threads t');

-- Subqueries of their own: groups, windows, DISTINCT, set operations.
SELECT of_thread('SELECT t.id, r.n FROM threads t JOIN (SELECT thread_id, count(*) AS n FROM replies GROUP BY thread_id HAVING count(*) > 1) r ON r.thread_id = t.id');
SELECT of_thread('SELECT t.id, r.body FROM threads t LEFT JOIN (SELECT thread_id, body, row_number() OVER (PARTITION BY thread_id ORDER BY at DESC) AS n FROM replies) r
    ON r.thread_id = t.id AND r.n = 1');
SELECT of_thread('SELECT t.id, r.body FROM threads t LEFT JOIN (SELECT DISTINCT ON (thread_id) thread_id, body FROM replies ORDER BY thread_id, at DESC) r ON r.thread_id = t.id');
SELECT of_thread('SELECT t.id, count(*) FROM threads t LEFT JOIN (SELECT thread_id AS id FROM replies UNION ALL SELECT thread_id FROM tags) x USING (id) GROUP BY t.id');
SELECT of_thread('SELECT s.id, s.title, r.body FROM (SELECT id, title FROM threads WHERE secret IS NULL) s LEFT JOIN replies r ON r.thread_id = s.id');

-- The same table in several roles, the root among them.
SELECT of_thread('SELECT t.id, p.title AS parent FROM threads t LEFT JOIN threads p ON p.id = t.parent_id');
SELECT of_thread('SELECT t.id, (SELECT count(*) FROM threads c WHERE c.parent_id = t.id) AS children FROM threads t');
SELECT of_thread('SELECT t.id, a.name, (SELECT jsonb_agg(u.name ORDER BY r.id) FROM replies r JOIN users u ON u.id = r.author_id WHERE r.thread_id = t.id) AS others
    FROM threads t LEFT JOIN users a ON a.id = t.author_id');
SELECT of_thread('SELECT t.id, t2.title FROM threads t JOIN threads t2 ON t2.id = t.id');

-- Partitions, relabeled types, equality through a third table.
SELECT of_thread('SELECT t.id, (SELECT jsonb_agg(e.what ORDER BY e.id, e.day) FROM events e WHERE e.thread_id = t.id) AS events FROM threads t');
SELECT of_thread('SELECT t.id, u.name FROM threads t LEFT JOIN users u ON u.email = t.secret');
SELECT of_thread('SELECT t.id, s.value FROM threads t LEFT JOIN settings s ON s.key = t.title');
SELECT ways('events', 'SELECT e.id, e.day, t.title FROM events e JOIN threads t ON t.id = e.thread_id');

-- Values go through texts, and the root is found by each type.
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN name_of AS varchar(8) CHECK (VALUE <> '');
CREATE FUNCTION of_type(type text, value text, other text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r record;
    n int;
    bad int;
BEGIN
    EXECUTE format('CREATE TABLE typed (id int PRIMARY KEY, x %1$s); CREATE TABLE typed_child (id int, x %1$s);
        ALTER TABLE typed_child REPLICA IDENTITY FULL; INSERT INTO typed VALUES (1, %2$L), (2, %3$L); INSERT INTO typed_child VALUES (1, %2$L)', type, value, other);
    PERFORM plinth.sync_document('w', 'sync_paths_docs', 'w', 'typed', 'SELECT t.id, (SELECT count(*) FROM typed_child c WHERE c.x = t.x) AS n FROM typed t', snapshot => false);
    SELECT s.columns, s.roots INTO r FROM plinth.sync_sources s JOIN plinth.sync_mappings m ON m.id = s.mapping_id WHERE m.name = 'w';
    EXECUTE format('SELECT count(*) FILTER (WHERE t.id = 1), count(*) FILTER (WHERE t.id <> 1) FROM typed_child c, LATERAL (%s) t',
                   replace(r.roots, '$1', 'c.x::text')) INTO n, bad;
    PERFORM plinth.sync_drop('w');
    DROP TABLE typed, typed_child;
    RETURN format('%s: %s and %s', type, n, bad);
END
$$;
SELECT of_type(t, a, b) FROM (VALUES ('char(5)', 'ab', 'a'), ('varchar(3)', 'ab', 'a'), ('bit(3)', '101', '100'), ('varbit', '10', '1'), ('numeric(5,2)', '1.5', '1.51'), ('float8', '0.1', '0.2'),
    ('float4', '0.1', '0.2'), ('bytea', '\x0041', '\x00'), ('timestamptz', '2026-01-01 00:00:00.000001', '2026-01-01'), ('interval', '1 mon 2 days', '1 mon'), ('date', '0044-03-15 BC', '0044-03-15'),
    ('uuid', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002'), ('boolean', 'true', 'false'), ('"char"', 'a', 'b'), ('name', 'a', 'b'), ('int[]', '{1,NULL}', '{1}'),
    ('sync_paths.mood', 'glad', 'sad'), ('sync_paths.name_of', 'a', 'b'), ('inet', '10.0.0.1', '10.0.0.1/8'), ('oid', '1', '2'),
    ('jsonb', '{"a": 1}', '{"a": 2}'), ('int4range', '[1,3)', '[1,4)'), ('money', '1.50', '1.51')) AS v (t, a, b);
SELECT ways('threads', 'SELECT t.id, (SELECT count(*) FROM settings s WHERE s.key::regclass = t.title::regclass) FROM threads t');

-- A recursive query: what is joined to the root within it is certain, the rest is not.
SELECT of_thread('SELECT t.id, (WITH RECURSIVE c AS (SELECT r.id FROM replies r WHERE r.thread_id = t.id UNION ALL SELECT r.id FROM replies r JOIN c ON c.id = r.author_id)
    SELECT count(*) FROM c) FROM threads t');

-- Where it is not certain.
SELECT of_thread('SELECT t.id, s.value FROM threads t CROSS JOIN settings s');
SELECT of_thread('SELECT t.id, s.value FROM threads t, settings s WHERE s.key = ''motd''');
SELECT of_thread('SELECT t.id, (SELECT count(*) FROM users) AS users FROM threads t');
SELECT of_thread('SELECT t.id, u.name FROM threads t JOIN users u ON u.id = t.author_id OR u.id = t.parent_id');
SELECT of_thread('SELECT t.id, u.name FROM threads t JOIN users u ON u.id > t.author_id');
SELECT of_thread('SELECT t.id, u.name FROM threads t JOIN users u ON u.id = t.author_id + 1');
SELECT of_thread('SELECT t.id, u.name FROM threads t JOIN users u ON u.id::text = t.title');
SELECT of_thread('SELECT t.id, u.name FROM threads t FULL JOIN users u ON u.id = t.author_id');
SELECT of_thread('SELECT t.id, u.name FROM users u LEFT JOIN threads t ON u.id = t.author_id');
SELECT of_thread('SELECT id, title FROM threads t WHERE author_id NOT IN (SELECT u.id FROM users u)');
SELECT of_thread('SELECT id, author_id IN (SELECT u.id FROM users u) AS known FROM threads t');
SELECT of_thread('SELECT t.id, r.body FROM threads t LEFT JOIN (SELECT thread_id, body FROM replies ORDER BY at DESC LIMIT 5) r ON r.thread_id = t.id');
SELECT of_thread('SELECT t.id, r.n FROM threads t LEFT JOIN (SELECT thread_id, rank() OVER (ORDER BY at) AS n FROM replies) r ON r.thread_id = t.id');
SELECT of_thread('SELECT t.id, r.n FROM threads t LEFT JOIN (SELECT max(thread_id) AS thread_id, count(*) AS n FROM replies GROUP BY author_id) r ON r.thread_id = t.id');
SELECT of_thread('SELECT t.id, r.n FROM threads t LEFT JOIN (SELECT thread_id, count(*) AS n FROM replies GROUP BY GROUPING SETS ((thread_id), ())) r ON r.thread_id = t.id');
SELECT of_thread('SELECT t.id, r.body FROM threads t LEFT JOIN (SELECT DISTINCT ON (author_id) thread_id, body FROM replies ORDER BY author_id, at) r ON r.thread_id = t.id');
SELECT of_thread('SELECT t.id, s.key FROM threads t LEFT JOIN (SELECT s.key, t2.id FROM settings s, threads t2) s ON s.id = t.id');
SELECT of_thread('SELECT t.id, (SELECT count(*) FROM users u WHERE u.id = ANY (t.member_ids)) FROM threads t');

-- The key must be the root's own.
SELECT of_thread('SELECT title FROM threads');
SELECT of_thread('SELECT thread_id AS id, count(*) FROM replies GROUP BY 1');
SELECT of_thread('SELECT r.thread_id AS id, r.body FROM threads t JOIN replies r ON r.thread_id = t.id');
SELECT of_thread('SELECT id + 0 AS id FROM threads');
SELECT of_thread('SELECT parent_id AS id, title FROM threads');
SELECT of_thread('SELECT id, title FROM threads ORDER BY title LIMIT 10');
SELECT of_thread('SELECT id, rank() OVER (ORDER BY title) FROM threads');
SELECT of_thread('SELECT id, title FROM threads UNION SELECT id, name FROM users');
SELECT of_thread('SELECT max(id) AS id, title FROM threads GROUP BY title');
SELECT ways('rooms', 'SELECT a.building, b.room FROM rooms a JOIN rooms b USING (building, room)');

-- Old rows must tell the columns of the way.
ALTER TABLE replies REPLICA IDENTITY DEFAULT;
SELECT of_thread('SELECT t.id, r.body FROM threads t LEFT JOIN replies r ON r.thread_id = t.id');
SELECT of_thread('SELECT t.id, (SELECT count(*) FROM replies r WHERE r.id = t.author_id) FROM threads t');
CREATE UNIQUE INDEX replies_of_thread ON replies (thread_id, id);
ALTER TABLE replies ALTER thread_id SET NOT NULL;
ALTER TABLE replies REPLICA IDENTITY USING INDEX replies_of_thread;
SELECT of_thread('SELECT t.id, r.body FROM threads t LEFT JOIN replies r ON r.thread_id = t.id');
ALTER TABLE events_2 REPLICA IDENTITY DEFAULT;
SELECT of_thread('SELECT t.id, e.what FROM threads t LEFT JOIN events e ON e.thread_id = t.id');
ALTER TABLE replies REPLICA IDENTITY FULL;
RESET ROLE;
