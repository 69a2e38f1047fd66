
# Changes go before snapshots, snapshots as fast as they may; and one table to
# two servers, of which one is away.

use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use Test::More;
use Time::HiRes qw(time);

my $node = PlinthTest::node('main',
	conf => "plinth.sync_zombie_window = 300\nplinth.sync_checkpoint_interval = 200\nplinth.sync_retry_max = 500\n"
	  . "plinth.sync_batch_rows = 10\nplinth.sync_connect_timeout = '1s'\nplinth.worker_restart_delay = '200ms'");
my $mongo = PlinthTest::mongo_start();
my $second = PlinthTest::mongo_start(embedded => 1);
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');
PlinthTest::sync_server($node, 'more', $second->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered"); }
sub count_of { return PlinthTest::value($_[1] || $mongo, "client['app']['$_[0]'].count_documents($_[2])"); }
sub arrives { my ($table, $id, $where) = @_; return PlinthTest::wait_until(sub { count_of($table, $where, "{'_id': $id}") == 1 }); }
sub equal
{
	my ($table, $name, $where) = @_;
	return PlinthTest::equal_ok($node, 'postgres', "SELECT json_build_object('_id', id, 'v', v) FROM $table", $where || $mongo, 'app', $table, "$name: equal");
}
sub rate
{
	sql("ALTER SYSTEM SET plinth.sync_snapshot_rate = $_[0]; SELECT pg_reload_conf()");
	return;
}

sql(q{CREATE TABLE live (id int PRIMARY KEY, v text); CREATE TABLE beside (id int PRIMARY KEY, v text);
	CREATE TABLE one (id int PRIMARY KEY, v text); INSERT INTO one SELECT i, 'one' FROM generate_series(1, 400) i;
	CREATE TABLE two (id int PRIMARY KEY, v text); INSERT INTO two SELECT i, 'two' FROM generate_series(1, 400) i;
	SELECT plinth.sync_table('live', 'docs');
	SELECT plinth.sync_table('beside', 'more')});
delivered('begun');

# ---- a change waits for one page of one snapshot ----
$proxy->command('hold one');
sql("SELECT plinth.sync_table('two', 'docs'), plinth.sync_table('one', 'docs')");
ok(PlinthTest::wait_until(sub { $proxy->stats->{holding} == 1 }), 'two snapshots, and a page is under way');
sql("INSERT INTO live VALUES (1, 'now')");
my $lsn = sql('SELECT pg_current_wal_flush_lsn()');
# The decoder sends to lanes in their order: what the other lane has, this one has too.
ok(PlinthTest::wait_until(sub { sql("INSERT INTO beside VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'y'; SELECT delivered_lsn >= '$lsn' FROM plinth.stat_sync WHERE name = 'beside'") eq 't' }),
	'the decoder has sent the change');
$proxy->command("hold $_") for qw(one two);
$proxy->release;
ok(arrives('live', 1), 'the change arrives, though no page after that one does');
cmp_ok(count_of($_, $mongo, '{}'), '<', 400, "the snapshot of $_ is not at its end") for qw(one two);
$proxy->release until PlinthTest::wait_until(sub { $proxy->stats->{holding} == 0 }, 1);
$proxy->pass;
delivered('snapshots');
equal($_, 'snapshots') for qw(one two live);

# ---- a rate ----
rate(200);
my $began = time;
sql("CREATE TABLE slow AS SELECT i AS id, 'slow' AS v FROM generate_series(1, 400) i; ALTER TABLE slow ADD PRIMARY KEY (id);
	SELECT plinth.sync_table('slow', 'docs', lanes => 2)");
delivered('at 200 rows a second');
cmp_ok(time - $began, '>', 1.4, '400 rows take their time');
equal('slow', 'at 200 rows a second');
rate(1);
sql("CREATE TABLE slower AS SELECT i AS id, 'slow' AS v FROM generate_series(1, 1000) i; ALTER TABLE slower ADD PRIMARY KEY (id);
	SELECT plinth.sync_table('slower', 'docs', lanes => 2)");
ok(PlinthTest::wait_until(sub { count_of('slower', $mongo, '{}') > 0 }), 'a snapshot has begun that would take a quarter of an hour');
sql("INSERT INTO slower VALUES (5000, 'now'); INSERT INTO live VALUES (2, 'now')");
ok(arrives('slower', 5000), 'changes of the same table arrive');
ok(arrives('live', 2), 'and of another');
is(sql("SELECT task FROM plinth.stat_sync WHERE name = 'slower'"), 'snapshot', 'meanwhile');
cmp_ok(count_of('slower', $mongo, '{}'), '<', 900, 'it is under way');

# ---- it goes on where it was ----
ok( PlinthTest::wait_until(sub { sql("SELECT count(*) = 2 FROM plinth.sync_tasks WHERE cursor_key IS NOT NULL AND done > 0") eq 't' }),
	'each lane has written down how far it is');
my $done = sql('SELECT sum(done) FROM plinth.sync_tasks');
my $old = sql("SELECT pid FROM plinth.stat_workers WHERE service = 'lane' AND instance = 0");
sql("SELECT pg_terminate_backend($old)");
ok(PlinthTest::wait_until(sub { my $pid = sql("SELECT pid FROM plinth.stat_workers WHERE service = 'lane' AND instance = 0 AND pid > 0"); $pid ne '' && $pid ne $old }), 'lanes started anew');
cmp_ok(sql('SELECT sum(done) FROM plinth.sync_tasks WHERE cursor_key IS NOT NULL'), '>=', $done, 'and go on from there');
sql("SELECT plinth.sync_alter('slower', lanes => 3)");
is(sql('SELECT count(*) FROM plinth.sync_tasks'), 3, 'shared out anew among three');
rate(0);
delivered('without a bound');
equal('slower', 'without a bound');

# ---- one table to two servers ----
sql(q{CREATE TABLE twice (id int PRIMARY KEY, v text); INSERT INTO twice SELECT i, 'twice' FROM generate_series(1, 200) i;
	SELECT plinth.sync_table('twice', 'docs', lanes => 2), plinth.sync_table('twice', 'more', name => 'twice there too')});
delivered('to two servers');
equal('twice', 'one server');
equal('twice', 'the other', $second);
$proxy->refuse;
sql("UPDATE twice SET v = 'away' WHERE id <= 50; DELETE FROM twice WHERE id > 190; INSERT INTO twice VALUES (1000, 'new')");
ok(arrives('twice', 1000, $second), 'one is away, the other goes on');
ok(PlinthTest::wait_until(sub { count_of('twice', $second, "{'v': 'away'}") == 50 && count_of('twice', $second, '{}') == 191 }), 'with all that changed');
is(count_of('twice', $mongo, '{}'), 200, 'nothing arrived at the one that is away');
$proxy->pass;
delivered('back again');
equal('twice', 'one server');
equal('twice', 'the other', $second);
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'no dead letters');

$node->stop;
done_testing();
