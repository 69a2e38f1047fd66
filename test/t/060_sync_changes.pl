# Every way a row can change arrives: both sides are compared, document by
# document, by a client that is not ours.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $node  = PlinthTest::node('changes', conf => "plinth.sync_checkpoint_interval = '200ms'");
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What sync_wait promises holds at once; what only a sweep finds is part of it.
sub arrives
{
	my ($name, %queries) = @_;
	is(sql("SELECT plinth.sync_wait('180s')"), 't', "$name: delivered")
	  or diag(sql('SELECT * FROM plinth.stat_sync'));
	equal_ok($node, 'postgres', $queries{$_}, $mongo, 'app', $_, "$name: $_", 0) for sort keys %queries;
	return;
}
sub stat_of { return sql("SELECT $_[1] FROM plinth.stat_sync WHERE name = '$_[0]'"); }
sub dead { return sql("SELECT string_agg(key || ' ' || status, ' ' ORDER BY key) FROM plinth.sync_dead_letters"); }

# ---------------------------------------------------------------------------
sql(<<'SQL');
CREATE TABLE t (id int PRIMARY KEY, v text, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE pairs (a int, b text, v int, PRIMARY KEY (a, b));
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON UPDATE CASCADE ON DELETE CASCADE,
	other int REFERENCES parent ON UPDATE CASCADE ON DELETE SET NULL);
CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO log (what) VALUES (TG_OP || ' ' || coalesce(NEW.id, OLD.id)); RETURN coalesce(NEW, OLD); END $$;
CREATE TRIGGER note BEFORE INSERT OR UPDATE OR DELETE ON parent FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO t SELECT g, 'v' || g, g FROM generate_series(1, 50) g;
INSERT INTO pairs SELECT g, 'b' || g, g FROM generate_series(1, 20) g;
SELECT plinth.sync_table(c::regclass, 'docs') FROM unnest('{t,pairs,parent,child,log}'::text[]) c;
SQL
my %all = (
	t      => q{SELECT json_build_object('_id', id, 'v', v, 'n', n, 'twice', twice) FROM t},
	pairs  => q{SELECT json_build_object('_id', json_build_object('a', a, 'b', b), 'v', v) FROM pairs},
	parent => q{SELECT json_build_object('_id', id, 'v', v) FROM parent},
	child  => q{SELECT json_build_object('_id', id, 'parent', parent, 'other', other) FROM child},
	log    => q{SELECT json_build_object('_id', id, 'what', what) FROM log});
arrives('snapshot', %all);

sql(<<'SQL');
INSERT INTO t (id, v, n) VALUES (100, 'new', NULL), (101, NULL, 7);
UPDATE t SET v = 'updated', n = n + 1 WHERE id BETWEEN 1 AND 5;
UPDATE t SET id = id + 1000 WHERE id BETWEEN 6 AND 9;
DELETE FROM t WHERE id BETWEEN 10 AND 12;
UPDATE pairs SET b = upper(b) WHERE a < 5;
UPDATE pairs SET a = -a WHERE a BETWEEN 6 AND 8;
DELETE FROM pairs WHERE a = 9;
INSERT INTO pairs VALUES (50, E'a "quoted", {brace}\\ and \n line', 1), (51, '', 2), (52, 'NULL', 3), (53, 'é😀', 4);
SQL
arrives('insert, update, delete, keys that change', %all);

sql(<<'SQL');
BEGIN;
UPDATE t SET id = -1 WHERE id = 13;
UPDATE t SET id = 13 WHERE id = 14;
UPDATE t SET id = 14 WHERE id = -1;
COMMIT;
BEGIN;
DELETE FROM t WHERE id = 15;
INSERT INTO t VALUES (15, 'again', 1);
UPDATE t SET id = 999 WHERE id = 15;
UPDATE t SET id = 15 WHERE id = 999;
INSERT INTO t VALUES (500, 'short-lived', 1);
DELETE FROM t WHERE id = 500;
COMMIT;
UPDATE pairs SET (a, b) = (SELECT p.a, p.b || '!' FROM pairs p WHERE p.a = 50) WHERE a = 51;
SQL
arrives('keys swapped in one transaction, key gone and back', %all);
is($mongo->eval('client["app"]["t"].find_one({"_id": 14})["v"]'), 'v13', 'the rows have changed places');

sql(<<'SQL');
BEGIN;
INSERT INTO t VALUES (200, 'kept', 1);
SAVEPOINT a;
INSERT INTO t VALUES (201, 'rolled back', 1);
UPDATE t SET v = 'rolled back' WHERE id = 20;
DELETE FROM t WHERE id = 21;
UPDATE t SET id = 2200 WHERE id = 22;
SAVEPOINT b;
DELETE FROM t WHERE id = 200;
ROLLBACK TO a;
UPDATE t SET v = 'after the savepoint' WHERE id = 23;
RELEASE a;
COMMIT;
BEGIN;
DELETE FROM t;
ROLLBACK;
SQL
arrives('savepoints rolled back', %all);

sql(<<'SQL');
INSERT INTO t VALUES (24, 'x', 1) ON CONFLICT (id) DO UPDATE SET v = 'conflict', n = excluded.n;
INSERT INTO t VALUES (24, 'y', 1), (300, 'no conflict', 1) ON CONFLICT DO NOTHING;
MERGE INTO t USING (VALUES (25, 'merged'), (26, NULL), (301, 'merged')) AS s (id, v) ON t.id = s.id
	WHEN MATCHED AND s.v IS NULL THEN DELETE
	WHEN MATCHED THEN UPDATE SET v = s.v
	WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v, 0);
COPY t (id, v, n) FROM PROGRAM 'seq 400 449 | sed "s/.*/&\tcopied\t1/"';
WITH gone AS (DELETE FROM t WHERE id = 27 RETURNING *) INSERT INTO t (id, v) SELECT 302, v FROM gone;
SQL
arrives('ON CONFLICT, MERGE, COPY, WITH', %all);

sql(<<'SQL');
INSERT INTO parent SELECT g, 'p' FROM generate_series(1, 10) g;
INSERT INTO child SELECT g, g % 10 + 1, g % 7 + 1 FROM generate_series(1, 40) g;
UPDATE parent SET id = 100 WHERE id = 1;
DELETE FROM parent WHERE id IN (2, 3);
SQL
arrives('foreign keys that cascade, triggers', %all);
is(sql('SELECT count(*) FROM log'), 13, 'the trigger wrote');

sql(<<'SQL');
SET session_replication_role = replica;
INSERT INTO child VALUES (1000, 12345, NULL);
UPDATE t SET v = 'replica' WHERE id = 30;
DELETE FROM parent WHERE id = 4;
SQL
arrives('session_replication_role = replica', %all);

sql('TRUNCATE t');
arrives('TRUNCATE', %all);
sql(q{INSERT INTO t SELECT g, 'before', g FROM generate_series(1, 30) g});
arrives('filled again', %all);
sql(q{BEGIN; TRUNCATE t; INSERT INTO t SELECT g, 'after', g FROM generate_series(11, 20) g; COMMIT});
arrives('TRUNCATE and inserts in one transaction', %all);
sql(q{BEGIN; TRUNCATE t; ROLLBACK; BEGIN; SAVEPOINT s; TRUNCATE t; ROLLBACK TO s; COMMIT; TRUNCATE parent CASCADE});
arrives('TRUNCATE rolled back, TRUNCATE CASCADE', %all);

# TRUNCATE racing with inserts: the writers go on until the last TRUNCATE is
# done, so that each of them falls between their rows.
{
	sql('CREATE TABLE truncations (n int); INSERT INTO truncations VALUES (0)');
	my @writers = map {
		IPC::Run::start([ 'psql', '-qX', '-d', $node->connstr('postgres'), '-v', 'ON_ERROR_STOP=1', '-c', <<"SQL" ])
DO \$\$
DECLARE
	last int := $_ * 10000000;
	first int := last;
	at int := 0;
	seen int;
BEGIN
	LOOP
		seen := (SELECT n FROM truncations);
		EXIT WHEN seen >= 20;
		IF seen > at THEN
			at := seen;
			first := last;
		END IF;
		last := last + 1;
		INSERT INTO t VALUES (last, 'race', last);
		UPDATE t SET v = 'raced' WHERE id = last AND last % 10 = 0;
		COMMIT;
		-- In bursts, and slower when a TRUNCATE is long in coming: what is written between two must be bearable for a slow client.
		IF last % 20 = 0 THEN
			PERFORM pg_sleep(CASE WHEN last - first < 1000 THEN 0.01 ELSE 1 END);
		END IF;
	END LOOP;
END \$\$
SQL
	} 1 .. 3;
	for my $n (1 .. 20)
	{
		# Rows of all writers, written since the last TRUNCATE.
		wait_until(sub { sql('SELECT count(DISTINCT id / 10000000) FROM t WHERE id >= 10000000') == 3 })
		  or fail("writers write before TRUNCATE $n");
		sql(q{TRUNCATE t; UPDATE truncations SET n = n + 1});
	}
	ok($_->finish, 'a writer ended well') for @writers;
	cmp_ok(sql('SELECT n FROM truncations'), '==', 20, 'TRUNCATE came between');
	arrives('TRUNCATE racing with inserts', %all);
}

# ---------------------------------------------------------------------------
# Two-phase commit, the server restarted in between.
sql(<<'SQL');
BEGIN;
INSERT INTO t VALUES (7001, 'prepared', 1);
DELETE FROM pairs WHERE a > 10 AND a < 15;
TRUNCATE log;
PREPARE TRANSACTION 'one';
BEGIN;
INSERT INTO t VALUES (7002, 'rolled back', 1);
DELETE FROM parent;
PREPARE TRANSACTION 'two';
CREATE TABLE late (id int PRIMARY KEY);
INSERT INTO late VALUES (0);
BEGIN;
INSERT INTO late VALUES (1);
PREPARE TRANSACTION 'three';
SQL
arrives('prepared is not committed', map { $_ => $all{$_} } qw(pairs t));
sql(q{SELECT plinth.sync_table('late', 'docs')});
ok(wait_until(sub { stat_of('late', 'state') eq 'waiting' }), 'a snapshot waits for a prepared transaction')
  or diag(stat_of('late', 'state'));
$node->restart;
is(sql(q{SELECT count(*) FROM pg_prepared_xacts}), 3, 'prepared transactions survive');
sql(q{COMMIT PREPARED 'one'; });
sql(q{ROLLBACK PREPARED 'two'; });
sql(q{INSERT INTO late VALUES (2)});
sql(q{COMMIT PREPARED 'three'; });
arrives('COMMIT PREPARED after a restart', %all, late => q{SELECT json_build_object('_id', id) FROM late});

# ---------------------------------------------------------------------------
# TOAST, in columns and in keys.
sql(<<'SQL');
CREATE FUNCTION noise(seed int, size int) RETURNS text LANGUAGE sql IMMUTABLE AS
	$$ SELECT substr(string_agg(md5(seed || '.' || g), ''), 1, size) FROM generate_series(0, size / 32) g $$;
CREATE TABLE big (id int PRIMARY KEY, v text, n int, j jsonb);
ALTER TABLE big ALTER v SET STORAGE EXTERNAL;
CREATE TABLE bigkey (k text PRIMARY KEY, v text, n int);
ALTER TABLE bigkey ALTER k SET STORAGE EXTERNAL;
CREATE TABLE bigfull (k text, part int, v text, n int, PRIMARY KEY (k, part));
ALTER TABLE bigfull ALTER k SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE bigpart (k text, part int, n int, PRIMARY KEY (k, part));
ALTER TABLE bigpart ALTER k SET STORAGE EXTERNAL;
INSERT INTO big SELECT g, noise(g, 20000), g, jsonb_build_object('x', noise(-g, 9000)) FROM generate_series(1, 10) g;
INSERT INTO bigkey SELECT noise(g, 2600), 'v', g FROM generate_series(1, 10) g;
SELECT plinth.sync_table(c::regclass, 'docs') FROM unnest('{big,bigkey,bigfull,bigpart}'::text[]) c;
INSERT INTO bigfull SELECT noise(g, 2600), g, noise(g, 5000), g FROM generate_series(1, 10) g;
INSERT INTO bigpart SELECT noise(g, 2600), g, g FROM generate_series(1, 10) g;
SQL
my %toast = (
	big     => q{SELECT json_build_object('_id', id, 'v', v, 'n', n, 'j', j) FROM big},
	bigkey  => q{SELECT json_build_object('_id', k, 'v', v, 'n', n) FROM bigkey},
	bigfull => q{SELECT json_build_object('_id', json_build_object('k', k, 'part', part), 'v', v, 'n', n) FROM bigfull},
	bigpart => q{SELECT json_build_object('_id', json_build_object('k', k, 'part', part), 'n', n) FROM bigpart});
cmp_ok(sql(q{SELECT pg_total_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'bigkey'}), '>', 20000, 'keys are toasted');
arrives('toasted rows and keys', %toast);
sql(<<'SQL');
UPDATE big SET n = n + 1 WHERE id < 5;
UPDATE big SET id = id + 100 WHERE id = 6;
UPDATE big SET v = 'small' WHERE id = 7;
UPDATE bigkey SET n = n + 100 WHERE n < 4;
UPDATE bigkey SET k = noise(500, 2600) WHERE n = 5;
UPDATE bigkey SET k = 'short' WHERE n = 6;
DELETE FROM bigkey WHERE n = 7;
UPDATE bigfull SET n = n + 100 WHERE n < 4;
UPDATE bigfull SET part = part + 100 WHERE n = 5;
DELETE FROM bigfull WHERE n = 6;
UPDATE bigpart SET n = n + 100 WHERE n < 4;
UPDATE bigpart SET part = part + 100 WHERE n = 5;
DELETE FROM bigpart WHERE n = 6;
SQL
arrives('what is toasted and unchanged', %toast);

# ---------------------------------------------------------------------------
# Replica identities.
my $word = 'text';
SKIP:
{
	skip 'this PostgreSQL comes without citext: text keys stand in', 1
	  unless $node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'});
	$word = 'citext';
	sql('CREATE EXTENSION citext SCHEMA public');
	pass('citext');
}
sql("CREATE TABLE words (w $word PRIMARY KEY, n int)");
sql(<<'SQL');
CREATE TABLE decimals (d numeric PRIMARY KEY, n int);
CREATE TABLE other_key (id int PRIMARY KEY, code text NOT NULL UNIQUE, n int);
ALTER TABLE other_key REPLICA IDENTITY USING INDEX other_key_code_key;
CREATE TABLE fullid (id int PRIMARY KEY, v text);
ALTER TABLE fullid REPLICA IDENTITY FULL;
CREATE TABLE moody (id int PRIMARY KEY, code int NOT NULL UNIQUE, v text);
INSERT INTO words VALUES ('apple', 1), ('Pear', 2);
INSERT INTO decimals VALUES (1.0, 1), (2.50, 2);
INSERT INTO other_key SELECT g, 'c' || g, g FROM generate_series(1, 10) g;
INSERT INTO fullid SELECT g, 'v' FROM generate_series(1, 10) g;
INSERT INTO moody SELECT g, g, 'v' FROM generate_series(1, 30) g;
SELECT plinth.sync_table(c::regclass, 'docs') FROM unnest('{words,decimals,other_key,fullid,moody}'::text[]) c;
SQL
my %identity = (
	words     => q{SELECT json_build_object('_id', w, 'n', n) FROM words},
	decimals  => q{SELECT json_build_object('_id', trim_scale(d)::text, 'n', n) FROM decimals},
	other_key => q{SELECT json_build_object('_id', code, 'id', id, 'n', n) FROM other_key},
	fullid    => q{SELECT json_build_object('_id', id, 'v', v) FROM fullid},
	moody     => q{SELECT json_build_object('_id', id, 'code', code, 'v', v) FROM moody});
arrives('identities', %identity);
sql(<<'SQL');
UPDATE words SET w = 'APPLE' WHERE w = 'apple';
UPDATE words SET w = 'plum', n = 3 WHERE w = 'pear';
INSERT INTO words VALUES ('Fig', 4);
DELETE FROM words WHERE w = 'fig'; INSERT INTO words VALUES ('fIg', 5);
UPDATE decimals SET d = 1.000 WHERE d = 1;
UPDATE decimals SET n = 7 WHERE d = 2.5;
UPDATE other_key SET code = 'new' WHERE id = 1;
UPDATE other_key SET id = 100 WHERE id = 2;
DELETE FROM other_key WHERE id = 3;
UPDATE fullid SET v = 'w' WHERE id < 3;
UPDATE fullid SET id = id + 100 WHERE id = 4;
DELETE FROM fullid WHERE id = 5;
SQL
arrives('citext and numeric keys that look different, USING INDEX, FULL', %identity);

sql('ALTER TABLE moody REPLICA IDENTITY USING INDEX moody_code_key');
sql('DELETE FROM moody WHERE id = 1');
arrives('DELETE under another replica identity', %identity);
sql('UPDATE moody SET id = 102 WHERE id = 2');
arrives('key changed under another replica identity', %identity);
sql('ALTER TABLE moody REPLICA IDENTITY NOTHING; DELETE FROM moody WHERE id = 3; UPDATE moody SET id = 104 WHERE id = 4');
arrives('DELETE and key change under REPLICA IDENTITY NOTHING', %identity);
sql('ALTER TABLE moody REPLICA IDENTITY FULL; DELETE FROM moody WHERE id = 5; UPDATE moody SET id = 106 WHERE id = 6');
arrives('and under FULL', %identity);
sql('ALTER TABLE moody REPLICA IDENTITY DEFAULT; DELETE FROM moody WHERE id = 7; UPDATE moody SET id = 108 WHERE id = 8');
arrives('and under DEFAULT again', %identity);
PlinthTest::psql_fails_like($node, 'postgres', 'UPDATE t SET id = NULL', qr/null value in column "id"/, 'a key never becomes NULL');

# ---------------------------------------------------------------------------
# Filters, names, casts, _ids.
sql(<<'SQL');
CREATE TABLE shown (id int PRIMARY KEY, visible boolean, d int NOT NULL, v text);
INSERT INTO shown VALUES (1, true, 1, 'a'), (2, false, 1, 'b'), (3, true, 0, 'poison'), (4, NULL, 1, 'c');
INSERT INTO shown SELECT g, true, 1, 'many' FROM generate_series(10, 1500) g;
SELECT plinth.sync_table('shown', 'docs', filter => 'visible AND 10 / d > 0');
CREATE TABLE camel (thread_id text PRIMARY KEY, created_at timestamptz, author_id text, view_count bigint, a_b_c int);
INSERT INTO camel VALUES ('507f1f77bcf86cd799439011', '1960-02-29 00:00:00.123+00', '507f1f77bcf86cd799439012', 1, 1);
SELECT plinth.sync_table('camel', 'docs', field_names => 'camelCase', id_cast => 'objectId', casts => '{"author_id": "objectId"}');
CREATE TABLE prefixed (id bigint PRIMARY KEY, title text, body text, secret text);
INSERT INTO prefixed VALUES (9007199254740993, 't', 'b', 's');
SELECT plinth.sync_table('prefixed', 'docs', id_prefix => 'post_', columns => '{id,title,body}', fields => '{"title": "headline"}');
SQL
my %shaped = (
	shown => q{SELECT json_build_object('_id', id, 'visible', visible, 'd', d, 'v', v) FROM shown WHERE visible AND d > 0 AND d <= 10},
	camel => q{SELECT json_build_object('_id', thread_id, 'createdAt', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS'),
		'authorId', author_id, 'viewCount', view_count, 'aBC', a_b_c) FROM camel},
	prefixed => q{SELECT json_build_object('_id', 'post_' || id, 'id', id, 'headline', title, 'body', body) FROM prefixed});
arrives('filter, camelCase, casts, ObjectId, prefix: snapshot', %shaped);
is(dead(), '{"3"} 22012', 'the row that divides by zero is a dead letter, the others passed');
sql(<<'SQL');
UPDATE shown SET visible = NOT visible WHERE id IN (1, 2);
UPDATE shown SET d = 11 WHERE id = 10;
UPDATE shown SET id = 5000 WHERE id = 11;
INSERT INTO shown VALUES (6000, true, 0, 'poison'), (6001, true, 1, 'good');
DELETE FROM shown WHERE id = 12;
INSERT INTO camel VALUES ('507f1f77bcf86cd799439013', NULL, NULL, 2, 2);
UPDATE camel SET thread_id = '507f1f77bcf86cd799439014' WHERE thread_id LIKE '%11';
UPDATE prefixed SET id = 1, secret = 'changed'; INSERT INTO prefixed VALUES (2, NULL, NULL, NULL);
SQL
arrives('rows that begin and stop to match', %shaped);
is(dead(), '{"3"} 22012 {"6000"} 22012', 'two dead letters');
sql('UPDATE shown SET d = 5 WHERE id = 3');
arrives('a later change of a dead letter', %shaped);
is(dead(), '{"6000"} 22012', 'it lives again');
sql('DELETE FROM shown WHERE id = 6000');
arrives('a dead letter whose row goes', %shaped);
is(dead(), '', 'is none any more');
sql(q{INSERT INTO camel VALUES ('no object id', NULL, NULL, 2, 2), ('507f1f77bcf86cd799439015', NULL, NULL, 2, 2)});
sql(q{SELECT plinth.sync_wait('180s')});
like(dead(), qr/^\{"no object id"\} \w+$/, 'an _id that cannot be made is a dead letter');
is($mongo->count('app', 'camel'), 3, 'and others pass it');
sql(q{DELETE FROM camel WHERE thread_id = 'no object id'});
arrives('it goes', %shaped);
is(dead(), '', 'without a trace');


# What is mended without a change of the row is tried again on demand.
sql(<<'SQL');
CREATE FUNCTION judge(n int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN IF n = 2 THEN RAISE EXCEPTION 'cannot judge %', n; END IF; RETURN n < 4; END $$;
CREATE TABLE judged (id int PRIMARY KEY, n int);
INSERT INTO judged VALUES (1, 1), (2, 2), (3, 3), (4, 4);
SELECT plinth.sync_table('judged', 'docs', filter => 'judge(n)');
SQL
my %judged = (judged => q{SELECT json_build_object('_id', id, 'n', n) FROM judged WHERE n <> 2 AND judge(n)});
arrives('a filter that raises', %judged);
is(sql('SELECT reason FROM plinth.sync_dead_letters'), 'cannot judge 2', 'a dead letter tells why');
sql(q{SELECT plinth.sync_retry(id) FROM plinth.sync_dead_letters});
arrives('tried again in vain', %judged);
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 1, 'it is one again');
sql(q{CREATE OR REPLACE FUNCTION judge(n int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n < 4'});
sql(q{SELECT plinth.sync_retry(id) FROM plinth.sync_dead_letters});
arrives('tried again when it is mended', judged => q{SELECT json_build_object('_id', id, 'n', n) FROM judged WHERE n < 4});
is(dead(), '', 'no dead letters are left');

ok(wait_until(sub { sql('SELECT count(*) FROM plinth.stat_sync WHERE state <> \'streaming\' OR keys_owed > 0') == 0 }), 'nothing is left to do');
$node->stop;
done_testing();
