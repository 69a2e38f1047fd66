# A partitioned table is one collection, however its rows and partitions move.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use Test::More;

my $node  = PlinthTest::node('partitions', conf => "plinth.sync_checkpoint_interval = '200ms'");
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
my $all = q{SELECT json_build_object('_id', json_build_object('region', region, 'id', id), 'v', v) FROM p};

# What moves rows is delivered by sync_wait; a definition that moved is found within seconds.
sub rows_ok
{
	my ($name) = @_;
	is(sql("SELECT plinth.sync_wait('180s')"), 't', "$name: delivered");
	equal_ok($node, 'postgres', $all, $mongo, 'app', 'p', $name, 0);
	return;
}
sub equal_soon { equal_ok($node, 'postgres', $all, $mongo, 'app', 'p', $_[0]); return; }

sql(<<'SQL');
CREATE TABLE p (region text, id int, v text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu');
CREATE TABLE p_us PARTITION OF p FOR VALUES IN ('us') PARTITION BY RANGE (id);
CREATE TABLE p_us1 PARTITION OF p_us FOR VALUES FROM (0) TO (1000);
CREATE TABLE p_us2 PARTITION OF p_us FOR VALUES FROM (1000) TO (2000);
-- Another order of columns, and a hole.
CREATE TABLE p_as (v text, gone int, id int NOT NULL, region text NOT NULL, PRIMARY KEY (region, id));
ALTER TABLE p_as DROP COLUMN gone;
INSERT INTO p SELECT 'eu', g, 'eu' || g FROM generate_series(1, 30) g;
INSERT INTO p SELECT 'us', g, 'us' || g FROM generate_series(990, 1010) g;
INSERT INTO p_as (region, id, v) SELECT 'as', g, 'as' || g FROM generate_series(1, 20) g;
SELECT plinth.sync_table('p', 'docs');
-- A partition may be a collection of its own besides.
SELECT plinth.sync_table('p_us1', 'docs');
SQL
my $us1 = q{SELECT json_build_object('_id', json_build_object('region', region, 'id', id), 'v', v) FROM p_us1};
rows_ok('snapshot');
equal_ok($node, 'postgres', $us1, $mongo, 'app', 'p_us1', 'a partition by itself', 0);

sql(<<'SQL');
UPDATE p SET region = 'us' WHERE region = 'eu' AND id BETWEEN 1 AND 5;
UPDATE p SET id = id + 100 WHERE region = 'us' AND id BETWEEN 990 AND 994;
BEGIN; UPDATE p SET region = 'us' WHERE id = 6; UPDATE p SET region = 'eu' WHERE id = 6; COMMIT;
BEGIN; UPDATE p SET region = 'us' WHERE id = 7; ROLLBACK;
SQL
rows_ok('rows that move between partitions');
equal_ok($node, 'postgres', $us1, $mongo, 'app', 'p_us1', 'and the partition by itself', 0);

sql(<<'SQL');
INSERT INTO p_us1 VALUES ('us', 100, 'direct');
UPDATE p_us1 SET v = 'direct' WHERE id = 995;
DELETE FROM p_us2 WHERE id = 1003;
INSERT INTO p_us VALUES ('us', 1500, 'middle');
SQL
rows_ok('written by the name of a partition');
equal_ok($node, 'postgres', $us1, $mongo, 'app', 'p_us1', 'and the partition by itself', 0);

sql("ALTER TABLE p ATTACH PARTITION p_as FOR VALUES IN ('as')");
equal_soon('ATTACH of a table with rows and another order of columns');
sql("INSERT INTO p VALUES ('as', 500, 'x'); UPDATE p_as SET v = 'changed' WHERE id = 3; DELETE FROM p WHERE region = 'as' AND id = 4;"
	  . "UPDATE p SET region = 'eu' WHERE region = 'as' AND id = 5; UPDATE p_as SET id = 600 WHERE id = 6");
rows_ok('and changes of it');

sql("BEGIN; CREATE TABLE p_af PARTITION OF p FOR VALUES IN ('af'); INSERT INTO p SELECT 'af', g, 'af' FROM generate_series(1, 5) g; COMMIT;"
	  . "INSERT INTO p VALUES ('af', 6, 'later')");
rows_ok('rows of a new partition');
sql("BEGIN; CREATE TABLE p_oc (LIKE p INCLUDING ALL); INSERT INTO p_oc SELECT 'oc', g, 'before' FROM generate_series(1, 5) g;"
	  . "ALTER TABLE p ATTACH PARTITION p_oc FOR VALUES IN ('oc'); INSERT INTO p_oc VALUES ('oc', 6, 'after'); UPDATE p SET v = 'upd' WHERE region = 'oc' AND id = 1; COMMIT");
equal_soon('created, filled and attached in one transaction');

# A subtree: its leaves learn of it though only its root is attached.
sql(<<'SQL');
CREATE TABLE q (region text, id int, v text, PRIMARY KEY (region, id)) PARTITION BY RANGE (id);
CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (100);
CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (100) TO (200);
INSERT INTO q SELECT 'an', g, 'an' FROM generate_series(50, 150) g;
UPDATE q1 SET v = 'before' WHERE id = 60;
SQL
rows_ok('what is not attached does not arrive');
sql("ALTER TABLE p ATTACH PARTITION q FOR VALUES IN ('an')");
sql("UPDATE q1 SET v = 'after' WHERE id < 60; DELETE FROM q2 WHERE id > 140; INSERT INTO q1 VALUES ('an', 1, 'new')");
equal_soon('ATTACH of a partitioned table');
sql("UPDATE q1 SET v = 'still' WHERE id = 50; DELETE FROM q2 WHERE id = 120");
rows_ok('changes of its leaves');
sql("ALTER TABLE p DETACH PARTITION q");
sql("INSERT INTO q1 VALUES ('an', 2, 'detached'); UPDATE q2 SET v = 'detached'");
equal_soon('DETACH of a partitioned table');

# Away with partitions.
my $before = sql("SELECT documents_replaced FROM plinth.stat_sync WHERE name = 'p'");
sql('TRUNCATE p_as');
rows_ok('TRUNCATE of a partition');
sql("BEGIN; TRUNCATE p_us; INSERT INTO p VALUES ('us', 1, 'only'), ('us', 1999, 'these'); COMMIT");
rows_ok('TRUNCATE of a partitioned partition');
equal_ok($node, 'postgres', $us1, $mongo, 'app', 'p_us1', 'and the partition by itself', 0);
sql('DROP TABLE p_af');
equal_soon('DROP of a partition');
sql('ALTER TABLE p DETACH PARTITION p_oc');
equal_soon('DETACH');
sql("UPDATE p_oc SET v = 'detached'; DELETE FROM p_oc WHERE id = 2; INSERT INTO p_oc VALUES ('oc', 100, 'detached')");
rows_ok('what is written to it then does not arrive');
sql("ALTER TABLE p ATTACH PARTITION p_oc FOR VALUES IN ('oc')");
equal_soon('ATTACH once more');
sql('ALTER TABLE p DETACH PARTITION p_oc CONCURRENTLY');
equal_soon('DETACH CONCURRENTLY');
sql("BEGIN; ALTER TABLE p_oc RENAME TO p_old; CREATE TABLE p_oc PARTITION OF p FOR VALUES IN ('oc'); INSERT INTO p_oc SELECT * FROM p_old WHERE id > 3; COMMIT");
equal_soon('another partition of that name');
is( sql("SELECT documents_replaced - $before < 40 FROM plinth.stat_sync WHERE name = 'p'"),
	't', 'only the documents concerned were written');

# Replica identities are each partition's own.
sql("ALTER TABLE p_eu REPLICA IDENTITY NOTHING; DELETE FROM p WHERE region = 'eu' AND id = 10; UPDATE p SET id = 3000 WHERE region = 'eu' AND id = 11");
rows_ok('a partition without a replica identity');
sql("ALTER TABLE p_eu REPLICA IDENTITY FULL; DELETE FROM p WHERE region = 'eu' AND id = 12; UPDATE p SET id = 3001 WHERE region = 'eu' AND id = 13");
rows_ok('and with a full one');

# While its partition is not in the WAL, the mapping says so and waits.
sql("CREATE UNLOGGED TABLE p_un PARTITION OF p FOR VALUES IN ('un'); INSERT INTO p VALUES ('un', 1, 'unlogged'), ('eu', 4000, 'logged')");
ok(wait_until(sub { sql("SELECT state || ': ' || reason FROM plinth.stat_sync WHERE name = 'p'") =~ /^blocked: .*UNLOGGED/ }),
	'an UNLOGGED partition is told');
sql('ALTER TABLE p_un SET LOGGED');
equal_soon('SET LOGGED sends it');
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_sync WHERE name = 'p'") eq 'streaming' }), 'streaming again');

# New columns reach every partition.
sql("ALTER TABLE p ADD COLUMN w int DEFAULT 7; UPDATE p SET w = 8 WHERE id = 3000");
$all = q{SELECT json_build_object('_id', json_build_object('region', region, 'id', id), 'v', v, 'w', w) FROM p};
equal_soon('ADD COLUMN with a default');
sql("ALTER TABLE p RENAME COLUMN id TO nr; UPDATE p SET w = 9 WHERE nr = 3001; INSERT INTO p VALUES ('eu', 5000, 'x')");
$all = q{SELECT json_build_object('_id', json_build_object('region', region, 'nr', nr), 'v', v, 'w', w) FROM p};
equal_soon('RENAME of a key column');
sql("INSERT INTO p_eu VALUES ('eu', 5001, 'y'); DELETE FROM p WHERE nr = 5000");
rows_ok('and changes after it');

# A partition that goes before the snapshot of it begins.
sql("SELECT plinth.sync_pause('p'); CREATE TABLE p_brief PARTITION OF p FOR VALUES IN ('brief')");
sql(<<'SQL');
INSERT INTO plinth.sync_tasks (mapping_id, kind, relation) SELECT id, 'snapshot', 'p_brief'::regclass FROM plinth.sync_mappings WHERE name = 'p';
DROP TABLE p_brief;
SELECT plinth.sync_alter('p', lanes => 2);
SELECT plinth.sync_resume('p');
SQL
rows_ok('a partition that was dropped before its rows were sent');
# It is written down with the next fence.
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_tasks') == 0 }), 'nothing is left to do for it');

is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'no dead letters');
$node->stop;
done_testing();
