# What cannot start says so by name, and starts when there is room.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use Test::More;
use WorkerTest;

my $begin = time;

# The launcher of logical replication and ours take both.
my $node = PlinthTest::node('main', conf => "max_worker_processes = 2\n");

ok(PlinthTest::wait_until(
		sub {
			WorkerTest::state_of($node, 'postgres', 'coordinator') eq
			  'no worker slot free: Raise max_worker_processes (now 2).';
		}),
	'stat_workers names the setting') or diag(WorkerTest::state_of($node, 'postgres', 'coordinator'));
sleep 8;
my $log   = PostgreSQL::Test::Utils::slurp_file($node->logfile);
my @lines = $log =~ /plinth could not start its coordinator for database \d+: no worker slot free/g;
cmp_ok(scalar @lines, '>=', 1, 'so does the log');
cmp_ok(scalar @lines, '<=', 1 + (time - $begin) / 60, 'once a minute');
like($log, qr/HINT:  Raise max_worker_processes \(now 2\) and restart the server\./, 'with a hint');
$node->append_conf('postgresql.conf', "max_worker_processes = 8\n");
$node->restart;
ok(WorkerTest::wait_for_worker($node, 'postgres', 'coordinator'), 'with more there is a coordinator');

$node->append_conf('postgresql.conf', "max_worker_processes = 1\n");
$node->restart;
is($node->safe_psql('postgres', "SELECT service, pid IS NULL, state FROM plinth.stat_workers"),
	'launcher|t|not started', 'not even the launcher has room');

$node->append_conf('postgresql.conf', "max_worker_processes = 16\nplinth.max_workers = 1\n");
$node->restart;
ok(WorkerTest::wait_for_worker($node, 'postgres', 'coordinator'), 'one place is enough for one');
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION plinth');
ok(PlinthTest::wait_until(sub { $node->log_contains(qr/all 1 places of "plinth.max_workers" are taken/) }),
	'no place for another is said in the log');

$node->safe_psql('postgres', 'DROP DATABASE second');

# sync_table says it too: it needs a decoder and a lane.
PlinthTest::sync_server($node, 'away', 'mongodb://127.0.0.1:1/', 'nowhere');
$node->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)');
my $sync = "SELECT plinth.sync_table('t', 'away')";
PlinthTest::psql_fails_like($node, 'postgres', $sync,
	qr/all 1 places of "plinth.max_workers" are taken\nDETAIL:  2 more are needed.\nHINT:  Raise "plinth.max_workers" and restart the server/,
	'sync_table without places');
$node->append_conf('postgresql.conf', "max_worker_processes = 4\nplinth.max_workers = 8\n");
$node->restart;
ok(WorkerTest::wait_for_worker($node, 'postgres', 'coordinator'), 'one process is left');
PlinthTest::psql_fails_like($node, 'postgres', $sync,
	qr/no background worker is free\nDETAIL:  1 more is needed.\nHINT:  Raise "max_worker_processes" \(now 4\) and restart the server/,
	'sync_table without processes');
is($node->safe_psql('postgres', 'SELECT count(*) FROM plinth.sync_mappings'), 0, 'nothing is left of it');
$node->append_conf('postgresql.conf', "max_worker_processes = 5\n");
$node->restart;
ok(WorkerTest::wait_for_worker($node, 'postgres', 'coordinator'), 'two are left');
$node->safe_psql('postgres', $sync);
ok(WorkerTest::wait_for_worker($node, 'postgres', 'lane'), 'enough for a decoder and a lane');
$node->safe_psql('postgres', "SELECT plinth.sync_table('u', 'away')");
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/plinth probe|start its (decoder|lane)/, 'looking took no place and left no line');
$node->safe_psql('postgres', "SELECT plinth.sync_drop('t'), plinth.sync_drop('u')");
$node->append_conf('postgresql.conf', "max_worker_processes = 16\n");

# A worker that crashes as soon as it starts must leave the server usable.
$node->append_conf('postgresql.conf', "plinth.worker_restart_delay = '12s'
");
$node->restart;

# Crashes count as in a row when there are less than 10 s between them, which a slow machine may miss.
my $state = '';
for my $crash (1 .. 10)
{
	my $old = WorkerTest::signal_worker('KILL', $node, 'postgres', 'coordinator');
	ok(PlinthTest::wait_until(
			sub {
				my ($rc, $out) = $node->psql('postgres', 'SELECT count(*) FROM pg_stat_activity'
					  . " WHERE pid = $old");
				return $rc == 0 && $out eq '0';
			}),
		"the server is back after crash $crash");
	PlinthTest::wait_until(
		sub {
			$state = $node->safe_psql('postgres', "SELECT state, message FROM plinth.stat_workers WHERE service = 'launcher' AND pid > 0");
			$state =~ /^(waiting|running)/;
		});
	last if $state =~ /^waiting/;
}
like($state, qr/^waiting\|The server crashed \([2-9] in a row\); workers start in a moment\.$/, 'after the second, workers wait');
is(WorkerTest::pid($node, 'postgres', 'coordinator'), '', 'all of them');
ok(WorkerTest::wait_for_worker($node, 'postgres', 'coordinator'), 'for a while');

done_testing();
