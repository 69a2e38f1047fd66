# What cannot start says so by name, and starts when there is room.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use Test::More;
use Time::HiRes qw(sleep);
use WorkerTest;

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
is(scalar @lines, 1, 'so does the log, once a minute');
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

done_testing();
