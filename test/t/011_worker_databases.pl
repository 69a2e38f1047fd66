# Statements that need a database alone get it from our workers, which come
# back when the statement failed; the clone guard keeps copies quiet.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;
use WorkerTest;

my $node = PlinthTest::node('main');

sub make
{
	my ($name) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION plinth');
	return WorkerTest::wait_for_worker($node, $name, 'coordinator')
	  || die "no coordinator in $name";
}

# Runs a statement that must succeed, within so many seconds.
sub quick_ok
{
	my ($sql, $name, $seconds) = @_;
	PlinthTest::within_ok($seconds || 3, "$name: at once", sub { PlinthTest::psql_ok($node, 'postgres', $sql, $name) });
	return;
}

# -- DROP DATABASE
make('d1');
WorkerTest::deliver($node, 'd1');
quick_ok('DROP DATABASE d1', 'DROP DATABASE');
make('d2');
WorkerTest::deliver($node, 'd2');
quick_ok('DROP DATABASE d2 WITH (FORCE)', 'DROP DATABASE WITH (FORCE)');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots"), '0', 'no slot is left');
ok(PlinthTest::wait_until(
		sub { $node->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_workers WHERE database IS DISTINCT FROM 'postgres'") == 1 }),
	'stat_workers has forgotten them');

# An owner who is no superuser: FORCE could not end a superuser's process.
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN CREATEDB');
make('d4');
WorkerTest::deliver($node, 'd4');
$node->safe_psql('postgres', 'ALTER DATABASE d4 OWNER TO owner');
my ($rc, $out, $err) =
  $node->psql('postgres', 'DROP DATABASE d4 WITH (FORCE)', extra_params => [ '-U', 'owner' ]);
is($rc, 0, 'its owner drops it with FORCE') or diag($err);

# -- a DROP that fails
my $pid = make('busy');
WorkerTest::deliver($node, 'busy');
my $session = $node->background_psql('busy');
$session->query_safe('SELECT 1');
PlinthTest::psql_fails_like($node, 'postgres', 'DROP DATABASE busy',
	qr/is being accessed by other users/, 'DROP DATABASE with another session');
$session->quit;
ok(WorkerTest::wait_for_worker($node, 'busy', 'coordinator', $pid), 'the workers are back');

# -- who may not do it does not disturb
$pid = WorkerTest::pid($node, 'busy', 'coordinator');
for my $sql ('DROP DATABASE busy', 'CREATE DATABASE copy TEMPLATE busy',
	'ALTER DATABASE busy RENAME TO other', 'ALTER DATABASE busy SET TABLESPACE pg_default')
{
	($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'owner' ]);
	like($err, qr/must be owner|permission denied/, "$sql: refused to others");
}
sleep 1;
is(WorkerTest::pid($node, 'busy', 'coordinator'), $pid, 'which stopped nobody');

# -- RENAME, SET TABLESPACE, settings
quick_ok('ALTER DATABASE busy RENAME TO busy2', 'RENAME');
ok(WorkerTest::wait_for_worker($node, 'busy2', 'coordinator'), 'the workers are back under the new name');
$pid = WorkerTest::pid($node, 'busy2', 'coordinator');
my $renaming = $node->background_psql('postgres');
$renaming->query_safe('BEGIN; ALTER DATABASE busy2 RENAME TO busy3');
sleep 2;
is(WorkerTest::pid($node, 'busy2', 'coordinator'), '', 'none while RENAME is not committed');
$renaming->query_safe('ROLLBACK');
ok(WorkerTest::wait_for_worker($node, 'busy2', 'coordinator', $pid), 'and back when it rolls back');
$renaming->quit;

my $folder = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$folder'");
quick_ok('ALTER DATABASE busy2 SET TABLESPACE elsewhere', 'SET TABLESPACE', 10);
ok(WorkerTest::wait_for_worker($node, 'busy2', 'coordinator'), 'the workers are back');
$node->safe_psql('postgres', 'ALTER DATABASE busy2 ALLOW_CONNECTIONS false');
ok(WorkerTest::wait_for_none($node, 'busy2'), 'a closed database has no workers');
$node->safe_psql('postgres', 'ALTER DATABASE busy2 ALLOW_CONNECTIONS true');
ok(WorkerTest::wait_for_worker($node, 'busy2', 'coordinator'), 'opened again, it has');

# Settings of the database that would break a worker.
$node->safe_psql('postgres',
	"ALTER DATABASE busy2 SET default_transaction_read_only = on;"
	  . "ALTER DATABASE busy2 SET lock_timeout = '1ms'; ALTER DATABASE busy2 SET search_path = ''");
$pid = WorkerTest::pid($node, 'busy2', 'coordinator');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$pid = WorkerTest::wait_for_worker($node, 'busy2', 'coordinator', $pid);
my $dropping = $node->background_psql('busy2');
$dropping->query_safe('SET default_transaction_read_only = off; SET lock_timeout = 0; SET client_min_messages = error');
$dropping->query_safe('BEGIN; DROP EXTENSION plinth CASCADE');
sleep 12;
$dropping->query_safe('ROLLBACK');
$dropping->quit;
is(WorkerTest::pid($node, 'busy2', 'coordinator'), $pid, 'settings of the database do not reach a worker');

# -- a template
$node->safe_psql('busy2', 'SET default_transaction_read_only = off; SET lock_timeout = 0; SELECT plinth._bind(false)');
quick_ok('CREATE DATABASE copy TEMPLATE busy2', 'CREATE DATABASE ... TEMPLATE');
ok(WorkerTest::wait_for_worker($node, 'copy', 'coordinator'), 'the copy has its own workers');
ok(WorkerTest::wait_for_worker($node, 'busy2', 'coordinator'), 'and the template again');
PlinthTest::within_ok(3, 'at once too', sub {
	PlinthTest::psql_ok($node, 'busy2',
		'SET default_transaction_read_only = off; CREATE DATABASE copy2 TEMPLATE busy2', 'from a session in the template') });

# -- the clone guard
is($node->safe_psql('busy2', 'SELECT plinth._is_adopted()'), 't', 'the first delivers');
is($node->safe_psql('copy', 'SELECT plinth._is_adopted()'), 'f', 'the copy does not');
is($node->safe_psql('copy', 'SELECT plinth._bind(false), plinth._is_adopted()'), 'f|f', 'nor when it starts to');
is($node->safe_psql('copy', 'SELECT plinth._bind(true)'), 't', 'until it is told to');
is($node->safe_psql('copy', 'SELECT plinth._is_adopted(), plinth._bind(true)'), 't|f', 'which is known then');
is($node->safe_psql('postgres', 'SELECT plinth._is_adopted(), count(*) FROM plinth.bindings'), 't|0',
	'a database that delivered nothing is free');
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('busy2') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
is($node->safe_psql('restored', 'SELECT plinth._is_adopted()'), 'f', 'a restored dump does not deliver');
ok(WorkerTest::wait_for_worker($node, 'restored', 'coordinator'), 'pg_restore brings a coordinator');

# -- another database is none of our business
WorkerTest::deliver($node, 'postgres');
$node->safe_psql('postgres', 'CREATE DATABASE other');
quick_ok('DROP DATABASE other', 'DROP DATABASE of another database');

done_testing();
