# The launcher finds the databases that have the extension, keeps a
# coordinator in each, and finds them again after whatever ended them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;
use WorkerTest;

my $node = PlinthTest::node('main', extension => 0, conf => "log_min_messages = debug1\n");

# -- discovery
$node->safe_psql('postgres', 'CREATE DATABASE plain');
my $plain = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'plain'");
$node->safe_psql('postgres', 'CREATE EXTENSION plinth');
my $coordinator = WorkerTest::wait_for_worker($node, 'postgres', 'coordinator');
ok($coordinator, 'CREATE EXTENSION brings a coordinator');
is($node->safe_psql('postgres',
		"SELECT datname, backend_type FROM pg_stat_activity WHERE pid = $coordinator"),
	'postgres|plinth coordinator', 'pg_stat_activity names it');
my $launcher = WorkerTest::pid($node, '', 'launcher');
is($node->safe_psql('postgres',
		"SELECT datname IS NULL, backend_type FROM pg_stat_activity WHERE pid = $launcher"),
	't|plinth launcher', 'and the launcher, connected to no database');

$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'BEGIN; CREATE EXTENSION plinth; ROLLBACK');
$node->safe_psql('second', 'BEGIN; SAVEPOINT s; CREATE EXTENSION plinth; ROLLBACK TO s; COMMIT');
sleep 2;
is(WorkerTest::pid($node, 'second', 'coordinator'), '', 'rolled back, it brings none');
$node->safe_psql('second', 'CREATE EXTENSION plinth');
ok(WorkerTest::wait_for_worker($node, 'second', 'coordinator'), 'a second database has its own');
my ($rc, $out, $err) =
  $node->psql('second', "BEGIN; DROP EXTENSION plinth CASCADE; PREPARE TRANSACTION 'p'");
like($err, qr/cannot PREPARE a transaction that changed plinth's shared state/,
	'what workers must be told of cannot be prepared');

# -- processes that end
$node->safe_psql('postgres', "SELECT pg_terminate_backend($coordinator)");
my $next = WorkerTest::wait_for_worker($node, 'postgres', 'coordinator', $coordinator);
ok($next, 'a coordinator that was terminated comes back');
is($node->safe_psql('postgres',
		"SELECT restarts FROM plinth.stat_workers WHERE database = 'postgres'"),
	'1', 'which is counted');

$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
ok(WorkerTest::wait_for_worker($node, '', 'launcher', $launcher), 'so does the launcher');
is(WorkerTest::pid($node, 'postgres', 'coordinator'), $next, 'which takes over coordinators');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($next)");
ok(WorkerTest::wait_for_worker($node, 'postgres', 'coordinator', $next),
	'and notices the end of one that it did not start');

WorkerTest::signal_worker('KILL', $node, 'second', 'coordinator');
ok(PlinthTest::wait_until(
		sub { $node->log_contains('reinitializing') && PlinthTest::answers($node) }
	),
	'kill -9 of a worker restarts the cluster');
ok(WorkerTest::wait_for_worker($node, 'postgres', 'coordinator'), 'which finds the first database');
ok(WorkerTest::wait_for_worker($node, 'second', 'coordinator'), 'and the second');

# -- DROP EXTENSION
my $oid = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'second'");
my $slot = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'plinth_$oid'";
WorkerTest::deliver($node, 'second');
is($node->safe_psql('postgres',
		"SELECT string_agg(backend_type, ',' ORDER BY backend_type) FROM pg_stat_activity"
		  . " WHERE datname = 'second' AND backend_type LIKE 'plinth %'"),
	'plinth coordinator,plinth decoder,plinth lane 0', 'pg_stat_activity names services');
my $decoder = WorkerTest::pid($node, 'second', 'decoder');
my $lane    = WorkerTest::pid($node, 'second', 'lane');
$node->safe_psql('second', "SELECT pg_terminate_backend($decoder)");
ok(WorkerTest::wait_for_worker($node, 'second', 'decoder', $decoder), 'a decoder that was terminated comes back');
ok(WorkerTest::wait_for_worker($node, 'second', 'lane', $lane), 'and with it the rest of its group');
WorkerTest::wait_for_slot($node, 'second', 1);
my $before = WorkerTest::pid($node, 'second', 'coordinator');
$decoder = WorkerTest::pid($node, 'second', 'decoder');
$lane    = WorkerTest::pid($node, 'second', 'lane');
$node->safe_psql('second', 'BEGIN; DROP EXTENSION plinth CASCADE; SELECT pg_sleep(4); ROLLBACK');
sleep 1;
is(WorkerTest::pid($node, 'second', 'coordinator'), $before, 'a DROP that rolls back ends nobody');
is(WorkerTest::pid($node, 'second', 'decoder'), $decoder, 'not the decoder');
is(WorkerTest::pid($node, 'second', 'lane'), $lane, 'nor the lane');
is($node->safe_psql('postgres', $slot), '1', 'and the slot is still there');

$node->safe_psql('second', 'BEGIN; DROP EXTENSION plinth CASCADE; CREATE EXTENSION plinth; COMMIT');
sleep 1;
is(WorkerTest::pid($node, 'second', 'coordinator'), $before, 'nor the coordinator one that creates it anew');
ok(PlinthTest::wait_until(sub { WorkerTest::pid($node, 'second', 'decoder') eq '' }),
	'but what worked for the one that is gone');

WorkerTest::deliver($node, 'second');
$node->safe_psql('second', 'DROP SCHEMA plinth CASCADE');
ok(WorkerTest::wait_for_none($node, 'second'), 'DROP SCHEMA CASCADE ends the workers');
ok(PlinthTest::wait_until(sub { $node->safe_psql('postgres', $slot) eq '0' }),
	'and leaves no slot');
is($node->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_workers WHERE database = 'second'"),
	'0', 'nor a row in stat_workers');

$node->safe_psql('second', 'CREATE EXTENSION plinth');
ok(WorkerTest::wait_for_worker($node, 'second', 'coordinator'), 'created again, they are back');

# The coordinator is stopped (by a signal it cannot answer) so that the crash comes first.
WorkerTest::deliver($node, 'second');
my $stopped = WorkerTest::freeze($node, 'second', 'coordinator');
$node->safe_psql('second', 'DROP EXTENSION plinth CASCADE');
is($node->safe_psql('postgres', $slot), '1', 'the slot is there when the crash comes');
$node->stop('immediate');
kill 'KILL', $stopped;
$node->start;
ok(PlinthTest::wait_until(sub { $node->safe_psql('postgres', $slot) eq '0' }),
	'no slot is left after a crash right after DROP EXTENSION');
ok(WorkerTest::wait_for_worker($node, 'postgres', 'coordinator'), 'a restart finds the first database');

# -- databases without the extension cost one look a start
sleep 11;
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
my @starts = $log =~ /database system is ready to accept connections/g;
my @looks  = $log =~ /starting background worker process "plinth coordinator for database $plain"/g;
is(scalar @starts, 3, 'the server started three times');
cmp_ok(scalar @looks, '<=', 4, 'a database without the extension was looked at once by each launcher');
cmp_ok(scalar @looks, '>=', 1, 'and it was looked at');

# -- who may look
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_monitor');
($rc, $out, $err) =
  $node->psql('postgres', 'SELECT * FROM plinth.stat_workers', extra_params => [ '-U', 'nobody' ]);
like($err, qr/permission denied/, 'stat_workers is not for everybody');
is($node->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_workers WHERE service = 'launcher'",
		extra_params => [ '-U', 'watcher' ]),
	'1', 'but for pg_monitor');

# -- shutdown
WorkerTest::deliver($node, 'postgres');
PlinthTest::within_ok(3, 'pg_ctl stop -m fast takes less than 3 s', sub { $node->stop('fast') });

done_testing();
