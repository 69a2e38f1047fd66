# The ground: what CREATE EXTENSION refuses, what ends with a transaction, and
# what a crash leaves.
use strict;
use warnings;

use PlinthTest qw(psql_ok psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $cheap = "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\n";

# ---- without shared_preload_libraries ----------------------------------------
my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init;
$bare->start;
psql_fails_like($bare, 'postgres', 'CREATE EXTENSION plinth',
	qr/plinth must be loaded via "shared_preload_libraries".*HINT:  Add plinth to "shared_preload_libraries"/s,
	'CREATE EXTENSION without preloading');
is($bare->safe_psql('postgres', "SELECT count(*) FROM pg_roles WHERE rolname ~ 'plinth|anon|authen'"), 0, 'which leaves no role');
$bare->stop;

# ---- the schema and the roles ---------------------------------------------------
my $node = PlinthTest::node('main', extension => 0, conf => "${cheap}plinth.max_databases = 2\n");
my $create = 'CREATE EXTENSION plinth';

foreach my $case (
	[ 'a function', 'CREATE SCHEMA plinth; CREATE FUNCTION plinth.sign_in() RETURNS int LANGUAGE sql RETURN 1', qr/not empty: it has function "sign_in"/ ],
	[ 'a table', 'CREATE SCHEMA plinth; CREATE TABLE plinth.users ()', qr/not empty: it has (relation|type) / ],
	[ 'a type', "CREATE SCHEMA plinth; CREATE TYPE plinth.t AS ENUM ('a')", qr/not empty: it has type / ],
	[ 'an operator', 'CREATE SCHEMA plinth; CREATE OPERATOR plinth.= (LEFTARG = xid, RIGHTARG = xid, FUNCTION = xideq)', qr/not empty: it has operator "="/ ],
	[ 'default privileges', 'CREATE SCHEMA plinth; ALTER DEFAULT PRIVILEGES IN SCHEMA plinth GRANT SELECT ON TABLES TO PUBLIC', qr/it has default privileges/ ],
	[ 'CREATE for others', 'CREATE SCHEMA plinth; GRANT CREATE ON SCHEMA plinth TO PUBLIC', qr/privilege CREATE of others/ ],
	[ 'another owner', 'CREATE ROLE mallory; CREATE SCHEMA plinth AUTHORIZATION mallory', qr/belongs to "mallory", who is no superuser/ ])
{
	my ($what, $before, $error) = @$case;
	psql_fails_like($node, 'postgres', "BEGIN; $before; $create", $error, "a schema with $what");
}

foreach my $case (
	(map { [ "CREATE ROLE plinth_owner $_", qr/role "plinth_owner" exists with $_/ ] } qw(LOGIN SUPERUSER CREATEROLE CREATEDB REPLICATION BYPASSRLS)),
	[ 'CREATE ROLE plinth_owner; CREATE ROLE m ROLE plinth_owner', qr/role "plinth_owner" is a member of "m"/ ],
	[ 'CREATE ROLE plinth_owner; CREATE ROLE m IN ROLE plinth_owner', qr/role "m" is a member of "plinth_owner"/ ],
	(map { my $role = $_; map { [ "CREATE ROLE $role $_", qr/role "$role" exists with $_/ ] } qw(SUPERUSER BYPASSRLS) } qw(anon authenticated authenticator plinth_admin)),
	[ 'CREATE ROLE authenticator LOGIN INHERIT', qr/role "authenticator" exists with INHERIT/ ])
{
	psql_fails_like($node, 'postgres', "BEGIN; $case->[0]; $create", $case->[1], $case->[0]);
}

psql_ok($node, 'postgres', "CREATE ROLE anon LOGIN; CREATE ROLE authenticator LOGIN NOINHERIT; $create", 'existing roles are used');
$node->safe_psql('postgres', 'ALTER ROLE anon NOLOGIN');
psql_ok($node, 'postgres', "DROP EXTENSION plinth; $create", 'created again');
$node->safe_psql('postgres', 'CREATE DATABASE second');
psql_ok($node, 'second', $create, 'in a second database, with the roles of the first');
psql_ok($node, 'second', 'DROP EXTENSION plinth; DROP SCHEMA plinth', 'nothing is left in the schema');
psql_ok($node, 'second', "$create; DROP EXTENSION plinth", 'created and dropped');
psql_fails_like($node, 'postgres', 'CREATE ROLE ordinary; SET ROLE ordinary; DROP EXTENSION plinth', qr/must be owner of extension/, 'DROP EXTENSION by others');

# ---- settings --------------------------------------------------------------------
psql_fails_like($node, 'postgres', "SET plinth.max_database = 1", qr/invalid configuration parameter name/, 'a setting that does not exist');
foreach my $setting (split /\n/, $node->safe_psql('postgres', "SELECT name FROM pg_settings WHERE name ~ '^plinth\\.'"))
{
	my ($rc, undef, $err) = $node->psql('postgres', "SET ROLE authenticated; SELECT set_config('$setting', setting, false) FROM pg_settings WHERE name = '$setting'; RESET $setting");
	like($err, qr/cannot be (changed|set)|permission denied|must be superuser/, "$setting is not a session's to set");
}
psql_fails_like($node, 'postgres', "ALTER SYSTEM SET $_->[0] = $_->[1]", $_->[2], "$_->[0] = $_->[1]") foreach (
	[ 'plinth.trusted_proxies', "'10.0.0.0/33'", qr/"10.0.0.0\/33" is neither an address nor a network/ ],
	[ 'plinth.trusted_proxies', "'proxy.example'", qr/is neither an address nor a network/ ],
	[ 'plinth.trusted_authenticators', "'a,,b'", qr/List syntax is invalid/ ],
	[ 'plinth.allowed_origins', "'https://app.test/'", qr/"https:\/\/app.test\/" is no origin/ ],
	[ 'plinth.allowed_origins', "'*'", qr/"\*" is no origin/ ],
	[ 'plinth.session_cookie', "'a;b'", qr/It has 1 to 100 letters/ ],
	[ 'plinth.role_anon', "''", qr/A role name has 1 to 63 bytes/ ],
	[ 'plinth.argon2_memory', "'1MB'", qr/outside the valid range/ ]);

# ---- transactions ------------------------------------------------------------------
my $sign_in = "SELECT token FROM plinth.sign_in('a\@test.test', 'as password')";
$node->safe_psql('postgres', "SELECT plinth.sign_up('a\@test.test', 'as password')");
my $token = $node->safe_psql('postgres', $sign_in);
my $begin = "SELECT plinth.context_begin('$token');";
psql_fails_like($node, 'postgres', "BEGIN; $begin SELECT plinth.session_revoke(); PREPARE TRANSACTION 'p'",
	qr/cannot PREPARE a transaction that changed plinth's shared state/, 'PREPARE TRANSACTION with a revocation');
psql_ok($node, 'postgres', "BEGIN; SAVEPOINT a; $begin SELECT plinth.session_revoke(); ROLLBACK TO a; CREATE TABLE t (); PREPARE TRANSACTION 'p'",
	'PREPARE TRANSACTION after the savepoint was rolled back');
psql_ok($node, 'postgres', "COMMIT PREPARED 'p'", 'and COMMIT PREPARED');
is($node->safe_psql('postgres', "SELECT (plinth.session_verify('$token')).user_id IS NOT NULL"), 't', 'the session was not revoked');

# ---- more databases than places -------------------------------------------------------
$node->safe_psql('postgres', 'CREATE DATABASE third');
my ($rc, undef, $err) = $node->psql('second', $create);
diag($err) if $rc != 0;
psql_fails_like($node, 'third', $create, qr/"?plinth\.max_databases"?/, 'more databases than plinth.max_databases');
psql_ok($node, 'postgres', 'DROP DATABASE second', 'a database goes');
ok(wait_until(sub { $node->psql('third', $create) == 0 }), 'and another has its place');

# ---- a crash -----------------------------------------------------------------------------
$token = $node->safe_psql('postgres', $sign_in);
my $log_offset = -s $node->logfile;
my $victim = $node->background_psql('postgres', on_error_die => 0);
my $pid = $victim->query('SELECT pg_backend_pid()');
kill 'KILL', $pid;
ok(wait_until(sub { slurp_file($node->logfile, $log_offset) =~ /database system is ready to accept connections/ }), 'PostgreSQL restarts after a kill -9');
ok(wait_until(sub { PlinthTest::answers($node) }), 'and answers');
is($node->safe_psql('postgres', "SELECT (plinth.session_verify('$token')).user_id IS NOT NULL"), 't', 'sessions are still there');
psql_ok($node, 'postgres', "BEGIN; SELECT plinth.context_begin('$token'); SELECT plinth.session_revoke(); COMMIT", 'shared memory works');
is($node->safe_psql('postgres', "SELECT (plinth.session_verify('$token')).user_id IS NULL"), 't', 'as before');
eval { $victim->quit };

done_testing();
