# Transactions whose keys are many times what a lane keeps in memory: their keys
# wait in the decoder's spool while MongoDB takes them, and go to sync_dirty when
# it does not, or when too much WAL would be kept.  Whatever happens meanwhile,
# nothing is lost.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use Test::More;

# Half of sync_memory holds some 4,000 keys.
my $rows = 20_000;
my $node = PlinthTest::node('spill', conf => <<'CONF');
plinth.sync_memory = '1MB'
plinth.sync_batch_rows = 200
plinth.sync_checkpoint_interval = '100ms'
plinth.sync_zombie_window = '100ms'
plinth.sync_retry_max = '1s'
CONF
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub delivered { return is($node->safe_psql('postgres', "SELECT plinth.sync_wait('180s')", timeout => 240), 't', "$_[0]: delivered"); }
sub same { return equal_ok($node, 'postgres', q{SELECT json_build_object('_id', id, 'v', v) FROM t}, $mongo, 'app', 't', $_[0], 0); }
sub arrived { return PlinthTest::value($mongo, "client['app']['t'].count_documents({'v': '$_[0]'})"); }
sub passed { return sql("SELECT confirmed_flush_lsn >= '$_[0]' FROM pg_replication_slots") eq 't'; }
sub owed { return sql('SELECT count(*) FROM plinth.sync_dirty WHERE zombie_stage = 0'); }
# Every row in one transaction; returns where the WAL was flushed to after its commit.
sub all_become
{
	sql("UPDATE t SET v = '$_[0]'");
	return sql('SELECT pg_current_wal_flush_lsn()');
}

sql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE unsynced (v text); SELECT plinth.sync_table('t', 'docs')");
delivered('nothing yet');

# ---- MongoDB takes what comes ----
sql("INSERT INTO t SELECT g, 'new' FROM generate_series(1, $rows) g");
delivered('one transaction');
same('all of it');
is(sql("SELECT pg_relation_size('plinth.sync_dirty')"), 0, 'and no key went through sync_dirty');
my $end = sql('SELECT pg_current_wal_flush_lsn()');
ok(wait_until(sub { passed($end) }), 'the slot has passed it');

# ---- kill -9 in the middle ----
$proxy->delay(100);
$end = all_become('killed');
ok(wait_until(sub { arrived('killed') > 6_000 }), 'more has arrived than is kept in memory');
# However long the next questions take, the rest does not arrive meanwhile.
$proxy->delay(20_000);
cmp_ok(arrived('killed'), '<', $rows, 'but not all');
ok(!passed($end), 'the slot stands before the transaction');
is(sql("SELECT pg_relation_size('plinth.sync_dirty')"), 0, 'since no key stands in sync_dirty');
$node->kill9;
$proxy->pass;
ok(PlinthTest::start_again($node), 'killed and started');
delivered('what was left');
same('nothing is lost');

# ---- MongoDB goes away in the middle ----
$proxy->delay(100);
$end = all_become('away');
ok(wait_until(sub { arrived('away') > 1_000 }), 'some have arrived');
$proxy->delay(20_000);
ok(!passed($end), 'the slot stands before the transaction');
$proxy->refuse;
ok(wait_until(sub { passed($end) }), 'MongoDB goes away: the slot moves on');
cmp_ok(owed(), '>', 0, 'as what is owed stands in sync_dirty');
cmp_ok(arrived('away') + owed(), '>=', $rows, 'every key that has not arrived does');
my $before = owed();
$proxy->pass;
$proxy->delay(100);
ok(wait_until(sub { owed() < $before }), 'MongoDB is back, and sync_dirty empties');
$node->kill9;
$proxy->pass;
ok(PlinthTest::start_again($node), 'killed in the middle of that');
delivered('what was left');
same('nothing is lost');

# ---- MongoDB is too slow ----
$node->append_conf('postgresql.conf', "plinth.sync_wal_keep = '1MB'");
$node->reload;
delivered('a setting');
$proxy->delay(1000);
all_become('slow');
sql("INSERT INTO unsynced SELECT repeat('x', 1000) FROM generate_series(1, 4000)");
$end = sql('SELECT pg_current_wal_flush_lsn()');
ok(wait_until(sub { passed($end) }), 'a MongoDB that is too slow does not keep the WAL');
# In this order: what leaves sync_dirty in between has arrived.
my $owed = owed();
my $arrived = arrived('slow');
cmp_ok($arrived, '<', $rows, 'though not all has arrived');
cmp_ok($arrived + $owed, '>=', $rows, 'since what has not stands in sync_dirty');
$proxy->pass;
delivered('the rest');
same('nothing is lost');

$node->stop;
done_testing();
