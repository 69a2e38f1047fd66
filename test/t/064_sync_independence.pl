# Nothing waits for what it has nothing to do with: the slot moves on whoever
# writes and whatever is away, and one mapping never delays another.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use IPC::Run;
use Test::More;

my $node = PlinthTest::node('independence', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_zombie_window = '100ms'
plinth.sync_retry_max = '1s'
plinth.sync_connect_timeout = '1s'
min_wal_size = 32MB
max_wal_size = 64MB
CONF
my $mongo = PlinthTest::mongo_start();
my $second = PlinthTest::mongo_start(embedded => 1);
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');
PlinthTest::sync_server($node, 'more', $second->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub stat_of { return sql("SELECT $_[1] FROM plinth.stat_sync WHERE name = '$_[0]'"); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered"); }
sub same
{
	my ($name, $table, $where) = @_;
	return equal_ok($node, 'postgres', "SELECT json_build_object('_id', id, 'v', v) FROM $table", $where || $mongo, 'app', $table, $name);
}
sub lsn { return sql('SELECT pg_current_wal_flush_lsn()'); }
sub confirmed
{
	my ($lsn) = @_;
	return wait_until(sub { sql("SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots") eq 't' });
}
# Is a row written to a table in its collection within seconds, whatever else waits?
my $next = 1_000_000;
sub arrives_soon
{
	my ($name, $table, $where) = @_;
	my $id = $next++;
	PlinthTest::within_ok(8, $name, sub {
		sql("INSERT INTO $table VALUES ($id, 'soon')");
		wait_until(sub { PlinthTest::value($where || $mongo, "client['app']['$table'].count_documents({'_id': $id})") == 1 }) });
	return;
}

sql(<<'SQL');
CREATE TABLE a (id int PRIMARY KEY, v text);
CREATE TABLE b (id int PRIMARY KEY, v text);
CREATE TABLE c (id int PRIMARY KEY, v text);
CREATE TABLE unsynced (id int, v text);
INSERT INTO a SELECT g, 'a' FROM generate_series(1, 100) g;
SELECT plinth.sync_table('a', 'docs'), plinth.sync_table('b', 'docs'), plinth.sync_table('c', 'more');
SQL
delivered('started');

# ---------------------------------------------------------------------------
# The slot, while others write.
sql("INSERT INTO unsynced SELECT g, 'x' FROM generate_series(1, 10000) g");
ok(confirmed(lsn()), 'the slot moves on while only an unsynced table is written');
sql('CREATE DATABASE elsewhere');
$node->safe_psql('elsewhere', 'CREATE TABLE e AS SELECT generate_series(1, 10000)');
ok(confirmed(lsn()), 'and while only another database is');

# ---------------------------------------------------------------------------
# MongoDB away: keys are kept, not the WAL; the other server goes on.
$proxy->refuse;
sql("UPDATE a SET v = 'away' WHERE id <= 50; DELETE FROM a WHERE id > 90; INSERT INTO b SELECT g, 'b' FROM generate_series(1, 50) g");
ok(wait_until(sub { stat_of('a', 'state') eq 'unreachable' }), 'unreachable');
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dirty') == 110 }), 'what is owed stands in sync_dirty')
  or diag(sql('SELECT count(*) FROM plinth.sync_dirty'));
ok(confirmed(lsn()), 'the slot moves on');
my $file = sql('SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots');
for my $i (1 .. 12)
{
	sql("INSERT INTO unsynced SELECT g, repeat('x', 1000) FROM generate_series(1, 10000) g; UPDATE a SET v = 'round $i' WHERE id <= 10; SELECT pg_switch_wal()");
}
ok( wait_until(
		sub {
			sql("CHECKPOINT; INSERT INTO unsynced VALUES (1)");
			sql("SELECT count(*) FROM pg_ls_waldir() WHERE name = '$file'") == 0;
		}), 'WAL from before is removed while MongoDB is away');
cmp_ok(sql('SELECT count(*) FROM plinth.sync_dirty'), '<=', 110, 'however often they change: keys, not changes');
arrives_soon('the other server goes on', 'c', $second);
is(PlinthTest::value($mongo, "client['app']['a'].count_documents({'v': 'a'})"), 100, 'nothing arrived here');
$proxy->pass;
delivered('back again');
same('caught up', $_) for qw(a b);
same('the other server', 'c', $second);
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dirty') == 0 }), 'nothing is owed, nothing to be written once more');

# ---------------------------------------------------------------------------
# Pause.
sql("SELECT plinth.sync_pause('a')");
ok(wait_until(sub { stat_of('a', 'state') eq 'paused' }), 'paused');
sql("UPDATE a SET v = 'paused' WHERE id < 20; DELETE FROM a WHERE id = 20; INSERT INTO a VALUES (200, 'paused')");
arrives_soon('others go on', 'b');
ok(confirmed(lsn()), 'so does the slot');
is(PlinthTest::value($mongo, "client['app']['a'].count_documents({'v': 'paused'})"), 0, 'nothing is written');
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'nobody waits for it');
$node->stop('immediate');
$node->start;
is(sql("SELECT paused FROM plinth.sync_mappings WHERE name = 'a'"), 't', 'paused after a crash');
sql("TRUNCATE b; SELECT plinth.sync_resume('a')");
delivered('resumed');
same('with what changed meanwhile', $_) for qw(a b);

# ---------------------------------------------------------------------------
# sync_resync, of keys and of everything.  (What is written once more after the
# crash would mend what is broken here.)
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dirty') == 0 }), 'nothing is to be written once more');
$mongo->eval(<<'PY', statements => 1);
a = client['app']['a']
a.delete_one({'_id': 1})
a.update_one({'_id': 2}, {'$set': {'v': 'broken'}})
a.insert_one({'_id': 7000, 'v': 'nobody'})
a.update_one({'_id': 3}, {'$set': {'v': 'broken'}})
a.insert_one({'_id': 'another type', 'v': 'nobody'})
PY
sql("SELECT plinth.sync_resync('a', '{1,2,7000}')");
delivered('sync_resync of keys');
my @differences = sort(PlinthTest::differences($node, 'postgres', "SELECT json_build_object('_id', id, 'v', v) FROM a", $mongo, 'app', 'a'));
is(scalar(@differences), 2, 'those keys, and no others') or diag(join "\n", @differences);
sql("SELECT plinth.sync_resync('a')");
delivered('sync_resync of everything');
same('and both sides are equal', 'a');
PlinthTest::psql_fails_like($node, 'postgres', "SELECT plinth.sync_resync('a', '{one}')", qr/invalid input syntax for type integer/, 'no key');

# ---------------------------------------------------------------------------
# One mapping that fails does not delay another of the same server.
sql(<<'SQL');
CREATE FUNCTION broken(id int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN RAISE EXCEPTION USING ERRCODE = 'insufficient_resources', MESSAGE = 'no'; END $$;
CREATE TABLE f (id int PRIMARY KEY, v text);
INSERT INTO f SELECT g, 'f' FROM generate_series(1, 5000) g;
SELECT plinth.sync_table('f', 'docs', filter => 'broken(id)');
SQL
ok(wait_until(sub { stat_of('f', 'state') eq 'retrying' }), 'one mapping fails') or diag(stat_of('f', 'state'));
arrives_soon('another goes on', 'b') for 1 .. 3;
sql("UPDATE f SET v = 'g' WHERE id < 100");
ok(confirmed(lsn()), 'and the slot moves on');
like(stat_of('f', 'last_error'), qr/no$/, 'stat_sync says why');
sql(q{CREATE OR REPLACE FUNCTION broken(id int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'});
delivered('mended');
same('it is equal', 'f');

# Tables come and go while another streams.
my $lane = sql("SELECT string_agg(pid::text, ' ' ORDER BY instance) FROM plinth.stat_workers WHERE service = 'lane'");
my $decoder = sql("SELECT pid FROM plinth.stat_workers WHERE service = 'decoder'");
my $writer = IPC::Run::start([ 'psql', '-qX', '-d', $node->connstr('postgres'), '-c',
		'DO $$ BEGIN FOR i IN 1..3000 LOOP INSERT INTO b VALUES (2000000 + i, clock_timestamp()::text); COMMIT; PERFORM pg_sleep(0.002); END LOOP; END $$' ]);
for my $i (1 .. 5)
{
	sql("CREATE TABLE x$i (id int PRIMARY KEY, v text); INSERT INTO x$i SELECT g, 'x' FROM generate_series(1, 2000) g;"
		  . "SELECT plinth.sync_table('x$i', '" . ($i % 2 ? 'docs' : 'more') . "'); UPDATE x$i SET v = 'y' WHERE id % 2 = 0");
	arrives_soon("the other streams while table $i is added", 'b');
	sql("UPDATE x$i SET v = 'dropped meanwhile'; SELECT plinth.sync_drop('x$i')") if $i > 3;
	sql("DROP TABLE x$i") if $i > 4;
}
$writer->finish;
delivered('all');
same('streamed', 'b');
same('added', 'x1');
same('added', 'x2', $second);
same('added', 'x3');
is(sql("SELECT string_agg(pid::text, ' ' ORDER BY instance) FROM plinth.stat_workers WHERE service = 'lane'"), $lane, 'by the same lanes');
is(sql("SELECT pid FROM plinth.stat_workers WHERE service = 'decoder'"), $decoder, 'and the same decoder');

# The last mapping of a server goes, and it comes back: nobody else notices.
sql("SELECT plinth.sync_drop('c'), plinth.sync_drop('x2')");
arrives_soon('the other goes on', 'b');
sql("SELECT plinth.sync_table('c', 'more', on_existing => 'replace')");
delivered('and comes back');
same('equal', 'c', $second);
is(sql("SELECT string_agg(pid::text, ' ' ORDER BY instance) FROM plinth.stat_workers WHERE service = 'lane'"), $lane, 'still by the same lanes');
is(sql("SELECT count(*) FROM plinth.sync_dead_letters"), 0, 'no dead letters');

$node->stop;
done_testing();
