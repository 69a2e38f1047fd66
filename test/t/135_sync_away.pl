# MongoDB is away while much WAL is written: none of it is kept, sync_status()
# tells honestly what waits, and what waits is caught up with in bounded memory.
# With PLINTH_LONG 5 GB, else a fiftieth of that.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use WorkerTest;
use Test::More;

my $long = $ENV{PLINTH_LONG};
my $keys = $long ? 200_000 : 8_000;
my $goal = ($long ? 5_000 : 100) * 1024 * 1024;
my $patience = $long ? 3600 : 300;
my $memory = 8 * 1024;     # plinth.sync_memory in kB
my $beside = 48 * 1024;    # what a process takes besides: docs/sync.md

my $node = PlinthTest::node('away', conf => <<"CONF");
plinth.sync_memory = '${memory}kB'
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_zombie_window = '100ms'
plinth.sync_retry_max = '1s'
min_wal_size = 32MB
max_wal_size = 64MB
CONF
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub status { return sql("SELECT concat_ws('|', ok, status, action) FROM plinth.sync_status()"); }
sub status_like
{
	my ($pattern, $test) = @_;
	return ok(wait_until(sub { status() =~ $pattern }), $test) || diag(status());
}
sub pid { return sql("SELECT pid FROM plinth.stat_workers WHERE service = '$_[0]'"); }

# Away from the start: nobody knows how fast it will be.
$proxy->refuse;
sql("CREATE TABLE t (id int PRIMARY KEY, v text) WITH (fillfactor = 50);"
	  . "INSERT INTO t SELECT g, repeat('v', 100) FROM generate_series(1, $keys) g; ANALYZE t; SELECT plinth.sync_table('t', 'docs')");
my $text = $keys =~ s/(\d)(?=(\d{3})+$)/$1,/gr;
status_like(qr/^f\|.*MongoDB is away for .*; 0 changed keys and about $text rows wait, for how long is unknown: nothing has been measured yet;/, 'what it never saw it does not guess');
$proxy->pass;
# Not so fast that there is nothing to measure.
$proxy->delay(100) unless $long;
is(sql("SELECT plinth.sync_wait('${patience}s')"), 't', 'copied');
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_tasks') == 0 }), 'and a fence has covered it');
$proxy->pass;
ok(wait_until(sub { sql('SELECT documents_per_second > 0 FROM plinth.stat_sync') eq 't' }), 'and how fast that went is known');

my %process = map { $_ => pid($_) } qw(lane decoder);
$proxy->refuse;
sql("UPDATE t SET v = 'gone' WHERE id = 1");
status_like(qr/MongoDB is away/, 'away');
my $start = sql('SELECT pg_current_wal_insert_lsn()');
my $written = 0;
my $round = 0;
my $most = 0;
while ($written < $goal)
{
	# Every key, more than once; and some that come and go.
	$round++;
	sql("UPDATE t SET v = repeat(md5(id || '$round'), 10) WHERE id % 2 = $round % 2; INSERT INTO t SELECT -g, 'new' FROM generate_series(1, 100) g ON CONFLICT DO NOTHING;"
		  . "DELETE FROM t WHERE id BETWEEN -50 AND -1");
	$written = sql("SELECT pg_current_wal_insert_lsn() - '$start'");
	my $kept = sql("SELECT pg_current_wal_insert_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name LIKE 'plinth_%'");
	$most = $kept if $kept > $most;
}
diag(sprintf '%d MB of WAL in %d rounds, at most %d MB kept at a time', $written >> 20, $round, $most >> 20);
my $end = sql('SELECT pg_current_wal_flush_lsn()');
ok(wait_until(sub { sql("SELECT confirmed_flush_lsn >= '$end' FROM pg_replication_slots WHERE slot_name LIKE 'plinth_%'") eq 't' }, $patience), 'the slot has passed all of it');
# A restart point moves with running-transactions records.
ok(wait_until(sub { sql('CHECKPOINT'); sql("SELECT pg_current_wal_insert_lsn() - restart_lsn < 48 * 1024 * 1024 FROM pg_replication_slots WHERE slot_name LIKE 'plinth_%'") eq 't' }),
	'no WAL is kept');
my $owed = $keys + 100;
ok(wait_until(sub { sql("SELECT keys_owed FROM plinth.stat_sync") == $owed }), 'each changed key is owed once');
$text = $owed =~ s/(\d)(?=(\d{3})+$)/$1,/gr;
status_like(qr/^f\|public.t to docs\/t: MongoDB is away for .*; $text changed keys wait, about .* at the [\d,]+ documents a second measured; tries again in .*; behind by .* and \d+ (MB|GB) of WAL\|Mend MongoDB/,
	'sync_status tells how much waits, and how long it will take');
my $left = sql("SELECT keys_owed / documents_per_second FROM plinth.stat_sync");
$proxy->pass;
my $begun = time();
status_like(qr/catches up: [\d,]+ changed keys wait, about .* measured|follows, nothing waits/, 'it comes back: catching up');
is($node->safe_psql('postgres', "SELECT plinth.sync_wait('${patience}s')", timeout => $patience + 60), 't', 'caught up');
diag(sprintf 'foretold %.1f s, took %d s', $left, time() - $begun);
equal_ok($node, 'postgres', q{SELECT json_build_object('_id', id, 'v', v) FROM t}, $mongo, 'app', 't', 'both sides are equal', 0);
status_like(qr/^t\|public.t to docs\/t: follows, nothing waits$/, 'and nothing waits');
foreach my $name (qw(lane decoder))
{
	is(pid($name), $process{$name}, "the $name went on");
	my $peak = WorkerTest::peak($process{$name});
	cmp_ok($peak, '<', $memory + $beside, "in bounded memory ($peak kB)");
}
$node->stop;
done_testing();
