# Definitions that change while rows do: what 062 does not show.  Partitions that
# come, go, move and are renamed; values of an enum; keys that change; constraints,
# generated columns and identities.  Several clients write all the time.
use strict;
use warnings;

use IPC::Run;
use PlinthTest qw(wait_until equal_ok);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('load', conf => "plinth.sync_checkpoint_interval = '200ms'\nplinth.sync_zombie_window = '100ms'");
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(<<'SQL');
CREATE TYPE mood AS ENUM ('sad', 'fine');
CREATE TABLE p (id int NOT NULL, region text NOT NULL, n int NOT NULL DEFAULT 0, m mood, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE p_north PARTITION OF p FOR VALUES IN ('north');
CREATE TABLE p_south PARTITION OF p FOR VALUES IN ('south') PARTITION BY RANGE (id);
CREATE TABLE p_south_1 PARTITION OF p_south FOR VALUES FROM (0) TO (500);
CREATE TABLE p_south_2 PARTITION OF p_south FOR VALUES FROM (500) TO (10000);
CREATE TABLE p_rest PARTITION OF p DEFAULT;
INSERT INTO p SELECT g, (ARRAY['north', 'south', 'east'])[1 + g % 3], g, 'sad' FROM generate_series(1, 900) g;
CREATE TABLE k (id int PRIMARY KEY, code text NOT NULL UNIQUE, n int NOT NULL DEFAULT 0);
INSERT INTO k SELECT g, 'c' || g, g FROM generate_series(1, 300) g;
CREATE TABLE gate (open boolean);
INSERT INTO gate VALUES (true);
CREATE TABLE turns (client int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO turns VALUES (1), (2);
-- One transaction a turn, by names that stay; rows move between partitions and keys change.  A turn that
-- meets a definition on its way to the next is one that failed.
CREATE PROCEDURE write_all_the_time(client int) LANGUAGE plpgsql AS $$
DECLARE
	i int := client * 7;
BEGIN
	WHILE (SELECT open IS NOT NULL FROM gate) LOOP
		i := i + 1;
		BEGIN
			PERFORM FROM gate WHERE open FOR SHARE;
			IF FOUND THEN
				UPDATE p SET n = n + 1 WHERE id = 1 + (i * 37 + client) % 900;
				UPDATE p SET region = CASE region WHEN 'north' THEN 'south' WHEN 'south' THEN 'east' ELSE 'north' END
					WHERE id = 1 + (i * 53 + client) % 900;
				DELETE FROM p WHERE id = 1 + (i * 11 + client) % 900;
				INSERT INTO p (id, region, n) VALUES (1 + (i * 11 + client) % 900, 'north', i) ON CONFLICT DO NOTHING;
				UPDATE k SET id = -id, n = n + 1 WHERE code = 'c' || 1 + (i * 13 + client) % 300;
				UPDATE turns SET n = n + 1 WHERE turns.client = write_all_the_time.client;
			END IF;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
		COMMIT;
		PERFORM pg_sleep(0.005);
	END LOOP;
END $$;
SELECT plinth.sync_table('p', 'docs'), plinth.sync_table('k', 'docs');
SQL
is(sql("SELECT plinth.sync_wait('600s')"), 't', 'started');
my @writers = map { IPC::Run::start([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', "CALL write_all_the_time($_)" ]) } 1 .. 2;

# They have all written some more.
sub they_write
{
	my $before = sql('SELECT min(n) FROM turns');
	return wait_until(sub { sql('SELECT min(n) FROM turns') >= $before + 5 }) || die 'the writers do not write';
}

# Changes a definition while rows are written; then both sides are equal.
sub under_load
{
	my ($name, $ddl, $p, $k) = @_;
	they_write();
	# Those who write may be in its way, in a deadlock or with a row that is moved.
	wait_until(sub { ($node->psql('postgres', "BEGIN; $ddl; COMMIT", on_error_stop => 1))[0] == 0 }) || die "not done: $ddl";
	they_write();
	is(sql("SELECT plinth.sync_wait('600s')"), 't', "$name: delivered");
	# Waits for turns under way; and nobody begins another.
	sql('UPDATE gate SET open = false');
	equal_ok($node, 'postgres', $p || q{SELECT json_build_object('_id', json_build_object('id', id, 'region', region), 'n', n, 'm', m) FROM p}, $mongo, 'app', 'p', $name);
	equal_ok($node, 'postgres', $k || q{SELECT json_build_object('_id', id, 'code', code, 'n', n) FROM k}, $mongo, 'app', 'k', "$name: keys") if $k || $name =~ /key/;
	sql('UPDATE gate SET open = true');
	return;
}

under_load('a new partition', q{CREATE TABLE p_west PARTITION OF p FOR VALUES IN ('west'); INSERT INTO p SELECT g, 'west', g FROM generate_series(2001, 2100) g});
under_load('one that comes with rows', q{CREATE TABLE p_up (LIKE p INCLUDING ALL); INSERT INTO p_up SELECT g, 'up', g FROM generate_series(3001, 3100) g; ALTER TABLE p ATTACH PARTITION p_up FOR VALUES IN ('up')});
under_load('one of a partition', q{CREATE TABLE p_south_3 PARTITION OF p_south FOR VALUES FROM (10000) TO (20000); INSERT INTO p SELECT g, 'south', g FROM generate_series(10001, 10050) g});
under_load('one that goes', 'ALTER TABLE p DETACH PARTITION p_west');
under_load('and comes back changed', q{DELETE FROM p_west WHERE id < 2050; UPDATE p_west SET n = -1; ALTER TABLE p ATTACH PARTITION p_west FOR VALUES IN ('west')});
under_load('one of a partition goes', 'ALTER TABLE p_south DETACH PARTITION p_south_3; DROP TABLE p_south_3');
under_load('one renamed and moved', 'CREATE SCHEMA old; ALTER TABLE p_north RENAME TO p_nord; ALTER TABLE p_nord SET SCHEMA old');
under_load('TRUNCATE of one', 'TRUNCATE p_up');
under_load('DROP of one', 'DROP TABLE p_up');
under_load('a new value of an enum', q{ALTER TYPE mood ADD VALUE 'merry'});
under_load('which is used', q{UPDATE p SET m = 'merry' WHERE id % 5 = 0});
under_load('a value renamed, another before it', q{ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; ALTER TYPE mood ADD VALUE 'low' BEFORE 'blue'});
under_load('which is used too', q{UPDATE p SET m = 'low' WHERE id % 7 = 0});
under_load('a column of all partitions', q{ALTER TABLE p ADD COLUMN extra text NOT NULL DEFAULT 'x'},
	q{SELECT json_build_object('_id', json_build_object('id', id, 'region', region), 'n', n, 'm', m, 'extra', extra) FROM p});
under_load('another type, and away with another', q{ALTER TABLE p DROP COLUMN extra, ALTER n TYPE bigint});
under_load('a generated column', 'ALTER TABLE k ADD COLUMN twice int GENERATED ALWAYS AS (n * 2) STORED', undef, q{SELECT json_build_object('_id', id, 'code', code, 'n', n, 'twice', twice) FROM k});
under_load('away with it', 'ALTER TABLE k DROP COLUMN twice', undef, q{SELECT json_build_object('_id', id, 'code', code, 'n', n) FROM k});
under_load('the key by another index', 'CREATE UNIQUE INDEX k_other ON k (id); ALTER TABLE k DROP CONSTRAINT k_pkey; ALTER TABLE k ADD CONSTRAINT k_pkey PRIMARY KEY USING INDEX k_other');
under_load('a key of another type', 'ALTER TABLE k ALTER id TYPE bigint');
under_load('old values by FULL instead of the key', 'ALTER TABLE k REPLICA IDENTITY FULL');
under_load('another primary key, the old one still unique', 'CREATE UNIQUE INDEX k_id ON k (id); ALTER TABLE k DROP CONSTRAINT k_pkey; ALTER TABLE k ADD PRIMARY KEY (code); ALTER TABLE k ALTER id SET NOT NULL');

sql('UPDATE gate SET open = NULL');
$_->finish foreach @writers;
is(sql("SELECT string_agg(key || reason, ';') FROM plinth.sync_dead_letters"), '', 'no dead letters');
is(sql("SELECT string_agg(name || ': ' || state || coalesce(reason, ''), ';') FROM plinth.stat_sync WHERE state <> 'streaming'"), '', 'nothing is blocked');
is(sql("SELECT count(*) FROM plinth.stat_workers WHERE restarts > 0"), 0, 'no worker ended');
is(sql("SELECT string_agg(t::text, ';') FROM plinth.sync_verify('p') t"), '', 'nor does sync_verify find a difference');
$node->stop;
done_testing();
