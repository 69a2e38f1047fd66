
# Several lanes of one mapping: each key has one writer, whatever crosses from
# one lane to another.

use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use Test::More;
use WorkerTest;

my $node = PlinthTest::node('main',
	conf => "plinth.sync_zombie_window = 300\nplinth.sync_checkpoint_interval = 200\nplinth.sync_retry_max = 500\n"
	  . "plinth.sync_batch_rows = 50\nplinth.worker_restart_delay = '200ms'");
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'forum');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered"); }
sub equal
{
	my ($table, $name, $fields) = @_;
	$fields ||= "'_id', id, 'body', body";
	return PlinthTest::equal_ok($node, 'postgres', "SELECT json_build_object($fields) FROM $table", $mongo, 'forum', $table, "$name: equal");
}
sub lanes_running { return sql("SELECT count(*) FROM plinth.stat_workers WHERE service = 'lane' AND pid > 0"); }
sub counts_of
{
	my ($table) = @_;
	return map { sql("SELECT count(*) FROM $table WHERE plinth._sync_lane('{\"' || id || '\"}', 3) = $_") } 0 .. 2;
}

# ---- a snapshot and a stream by three lanes ----
sql(q{CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes SELECT i, 'first' FROM generate_series(1, 1000) i;
	CREATE TABLE other (id int PRIMARY KEY, body text); INSERT INTO other SELECT i, 'first' FROM generate_series(1, 100) i;
	SELECT plinth.sync_table('other', 'docs');
	SELECT plinth.sync_table('notes', 'docs', lanes => 3)});
delivered('a snapshot');
equal($_, 'a snapshot') for qw(notes other);
is(lanes_running(), 3, 'three lanes');
my @share = counts_of('notes');
cmp_ok($_, '>', 200, 'a share for each') for @share;
is(sql("SELECT documents_replaced FROM plinth.stat_sync WHERE name = 'notes'"), 1000, 'every row was sent once, and stat_sync adds up')
  or diag(sql('SELECT * FROM plinth.stat_sync'));
sql("UPDATE notes SET body = 'second' WHERE id <= 600; DELETE FROM notes WHERE id > 900; INSERT INTO notes SELECT i, 'new' FROM generate_series(2001, 2300) i; UPDATE other SET body = 'second'");
delivered('a stream');
equal($_, 'a stream') for qw(notes other);
ok(PlinthTest::wait_until(sub { sql('SELECT count(*) FROM plinth.sync_lanes') == 2 }), 'each further lane has a place in the fence');

# ---- rows pass unique values on, across lanes ----
$mongo->eval("client['forum']['seats'].create_index('place', unique=True); result = 1", statements => 1);
sql(q{CREATE TABLE seats (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED);
	INSERT INTO seats SELECT i, i FROM generate_series(1, 24) i; SELECT plinth.sync_table('seats', 'docs', lanes => 3)});
delivered('unique values');
sql("UPDATE seats SET place = CASE place % 2 WHEN 0 THEN place - 1 ELSE place + 1 END");
delivered('swapped in pairs');
equal('seats', 'swapped in pairs', "'_id', id, 'place', place");
sql("UPDATE seats SET place = place % 24 + 1");
delivered('passed on in a circle');
equal('seats', 'passed on in a circle', "'_id', id, 'place', place");
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'no dead letters');
# A lane that takes its time to let go of a value makes no dead letter of who waits for it.
my ($waits, $holds) = map { sql("SELECT min(id) FROM seats WHERE plinth._sync_lane('{\"' || id || '\"}', 3) = $_") } 1, 2;
$node->safe_psql('postgres', 'ALTER SYSTEM SET plinth.sync_retry_max = 100');
$node->reload;
my $slow = WorkerTest::freeze($node, 'postgres', 'lane', 2);
sql("BEGIN; UPDATE seats SET place = (SELECT place FROM seats WHERE id = $holds) WHERE id = $waits; UPDATE seats SET place = 1000 WHERE id = $holds; COMMIT");
ok(PlinthTest::wait_until(sub { sql("SELECT max(attempts) >= 15 FROM plinth.sync_dirty WHERE key = '{\"$waits\"}'") eq 't' || sql('SELECT count(*) FROM plinth.sync_dead_letters') > 0 }), 'it is waited for');
kill 'CONT', $slow;
delivered('and lets go');
equal('seats', 'a value let go late', "'_id', id, 'place', place");
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'and no dead letter of it');
# Two documents really have it.
sql("ALTER TABLE seats DROP CONSTRAINT seats_place_key; INSERT INTO seats SELECT i, 5 FROM generate_series(101, 106) i");
delivered('a value that several rows have');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 6, 'is a dead letter for each but one');
sql("DELETE FROM seats WHERE id > 100");
delivered('and no row has it twice any more');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'none is left');
equal('seats', 'then', "'_id', id, 'place', place");

# ---- TRUNCATE, among writers ----
for my $round (1 .. 3)
{
	sql("BEGIN; TRUNCATE notes; INSERT INTO notes SELECT i, 'round $round' FROM generate_series(1, 500, $round) i; COMMIT; UPDATE notes SET body = body || '!' WHERE id % 2 = 1");
}
delivered('truncated and filled again');
equal('notes', 'truncated and filled again');

# ---- keys of another spelling ----
sql(q{CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE words (id text COLLATE nocase PRIMARY KEY, body text);
	INSERT INTO words SELECT 'word' || i, 'first' FROM generate_series(1, 60) i;
	SELECT plinth.sync_table('words', 'docs', lanes => 3)});
delivered('words');
sql("UPDATE words SET id = upper(id), body = 'loud'");
delivered('spelled anew');
equal('words', 'spelled anew');
sql("SELECT plinth.sync_resync('words', ARRAY(SELECT lower(id) FROM words))");
delivered('asked for by the old spelling');
equal('words', 'asked for by the old spelling');
sql("DELETE FROM words WHERE id > 'word3'");
delivered('and removed');
equal('words', 'and removed');

# ---- keys that cannot be shared out ----
sql('CREATE TABLE amounts (id numeric PRIMARY KEY, body text)');
PlinthTest::psql_fails_like($node, 'postgres', "SELECT plinth.sync_table('amounts', 'docs', lanes => 3)", qr/cannot be shared out among lanes/, 'numbers that are written in several ways');
PlinthTest::psql_fails_like($node, 'postgres', "SELECT plinth.sync_table('amounts', 'docs', lanes => 17)", qr/lanes must be between 1 and 16/, 'too many lanes');

# ---- a changed definition ----
sql("ALTER TABLE notes ADD COLUMN more text NOT NULL DEFAULT 'more'; UPDATE notes SET body = 'altered' WHERE id % 3 = 0");
delivered('a column more');
equal('notes', 'a column more', "'_id', id, 'body', body, 'more', more");
sql("ALTER TABLE notes ALTER COLUMN id TYPE text USING 'n' || id");
delivered('a key of another type');
equal('notes', 'a key of another type', "'_id', id, 'body', body, 'more', more");

# ---- sync_verify, repair ----
is(sql("SELECT count(*) FROM plinth.sync_verify('notes')"), 0, 'sync_verify finds nothing');
$mongo->eval("client['forum']['notes'].delete_many({'_id': {'\$regex': '1\$'}}); client['forum']['notes'].insert_one({'_id': 'nobody'}); result = 1", statements => 1);
cmp_ok(sql("SELECT count(*) FROM plinth.sync_verify('notes', repair => true)"), '>', 10, 'what is wrong it finds');
delivered('repaired');
equal('notes', 'repaired', "'_id', id, 'body', body, 'more', more");

# ---- pause, drop ----
sql("SELECT plinth.sync_pause('notes'); UPDATE notes SET body = 'paused'; UPDATE other SET body = 'goes on'");
delivered('others go on');
equal('other', 'others go on');
ok(PlinthTest::wait_until(sub { sql("SELECT count(*) = (SELECT count(*) FROM notes) FROM plinth.sync_dirty d JOIN plinth.sync_mappings m ON m.id = d.mapping_id WHERE m.name = 'notes' AND d.zombie_stage = 0") eq 't' }),
	'what is owed stands in the table');
sql("SELECT plinth.sync_resume('notes')");
delivered('resumed');
equal('notes', 'resumed', "'_id', id, 'body', body, 'more', more");
sql("SELECT plinth.sync_drop('seats'); DROP TABLE seats; UPDATE notes SET body = 'after a drop'");
delivered('one mapping less');
equal('notes', 'one mapping less', "'_id', id, 'body', body, 'more', more");

$node->stop;
done_testing();
