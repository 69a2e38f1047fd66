# What a role with little rights must not get by way of code that workers and administrators run.
use strict;
use warnings;

use PlinthTest qw(psql_ok psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $node  = PlinthTest::node('main', conf => "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\nlog_statement = all\nplinth.sync_connect_timeout = '60s'");
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'review');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub as { my ($role, $sql) = @_; return sql("SET SESSION AUTHORIZATION $role; $sql"); }
sub is_superuser { return sql("SELECT rolsuper FROM pg_roles WHERE rolname = '$_[0]'"); }

# mallory owns tables and may sync them, no more.  What her code is run by is
# in mallory.seen; where that is a superuser, she becomes one.
sql(<<'SQL');
CREATE ROLE mallory LOGIN;
GRANT USAGE ON SCHEMA plinth TO mallory;
GRANT USAGE ON FOREIGN SERVER docs TO mallory;
CREATE SCHEMA mallory AUTHORIZATION mallory;
SQL
as('mallory', <<'SQL');
CREATE FUNCTION mallory.grab() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user) THEN
		EXECUTE 'ALTER ROLE mallory SUPERUSER';
	END IF;
END $$;
CREATE FUNCTION mallory.eq(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mallory.grab();
	RETURN $1 OPERATOR(pg_catalog.=) $2;
END $$;
CREATE OPERATOR mallory.= (FUNCTION = mallory.eq, LEFTARG = bigint, RIGHTARG = bigint);
CREATE FUNCTION mallory.poison_path(value int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'mallory, pg_catalog', false);
	RETURN true;
END $$;
SQL

# ---- settings that a filter leaves behind --------------------------------------------
as('mallory', <<'SQL');
CREATE TABLE mallory.settings (id int PRIMARY KEY, value int);
INSERT INTO mallory.settings SELECT g, g FROM generate_series(1, 10) g;
SELECT plinth.sync_table('mallory.settings', 'docs', filter => 'mallory.poison_path(value)');
SQL
ok(wait_until(sub { $mongo->count('review', 'settings') == 10 }), 'a filter with code of its owner is applied');
as('mallory', 'INSERT INTO mallory.settings VALUES (11, 11)');
ok(wait_until(sub { $mongo->count('review', 'settings') == 11 }), 'and again');
as('mallory', "SELECT plinth.sync_resync('settings')");
is(as('mallory', "SELECT count(*) FROM plinth.sync_verify('settings')"), 0, 'and when both sides are compared');
is(is_superuser('mallory'), 'f', 'settings that it leaves behind do not make its owner a superuser');
sql("ALTER ROLE mallory NOSUPERUSER");

# ---- the key's own input functions ---------------------------------------------------
as('mallory', <<'SQL');
CREATE FUNCTION mallory.check_part(part int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mallory.grab();
	RETURN true;
END $$;
CREATE DOMAIN mallory.part AS int CHECK (mallory.check_part(VALUE));
CREATE TYPE mallory.whole AS (a mallory.part, b int);
CREATE TABLE mallory.keys (id mallory.whole PRIMARY KEY, value int);
INSERT INTO mallory.keys VALUES ((1, 1), 1), ((2, 2), 0);
SELECT plinth.sync_table('mallory.keys', 'docs', filter => '10 / value > 0');
SQL
ok(wait_until(sub { as('mallory', 'SELECT count(*) FROM plinth.sync_dead_letters') == 1 }), 'a row that cannot be read');
as('mallory', "SELECT count(*) FROM plinth.sync_verify('keys')");
is(is_superuser('mallory'), 'f', 'the check of a domain within the key does not make its owner a superuser');
sql("ALTER ROLE mallory NOSUPERUSER");

# ---- an administrator's session ------------------------------------------------------
as('mallory', <<'SQL');
CREATE FUNCTION mallory.check_key(value int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'mallory, pg_catalog', false);
	PERFORM mallory.grab();
	RETURN true;
END $$;
CREATE DOMAIN mallory.key AS int CHECK (mallory.check_key(VALUE));
CREATE TABLE mallory.domain (id mallory.key PRIMARY KEY);
INSERT INTO mallory.domain VALUES (1);
SELECT plinth.sync_table('mallory.domain', 'docs');
SQL
is(sql("SET search_path = public; SELECT plinth.sync_resync('domain', '{1}'); SHOW search_path"), "\npublic",
	'the check of a domain leaves no setting in the session of an administrator');
is(is_superuser('mallory'), 'f', 'nor is it run as one');

# ---- the state of others' mappings ---------------------------------------------------
sql(<<'SQL');
CREATE TABLE other (id int PRIMARY KEY);
SELECT plinth.sync_table('other', 'docs');
CREATE FUNCTION mallory.always(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
DROP OPERATOR mallory.= (bigint, bigint);
CREATE OPERATOR mallory.= (FUNCTION = mallory.always, LEFTARG = bigint, RIGHTARG = bigint);
SQL
my $other = sql("SELECT id FROM plinth.sync_mappings WHERE name = 'other'");
ok(wait_until(sub { sql("SELECT state IS NOT NULL FROM plinth._sync_stat($other)") eq 't' }), 'another mapping has a state');
is(as('mallory', "SET search_path = mallory, pg_catalog; SELECT state IS NULL FROM plinth._sync_stat($other)"), 't',
	'which an operator in the search_path does not show');

# ---- what others' hashes may cost ------------------------------------------------------
my $expensive = '$argon2id$v=19$m=1048576,t=100,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3uR9/jaeci4uDtE0BmLj8upc8GqbW7Dibg0sN+5M';
my $foreign   = '$argon2id$v=19$m=16384,t=2,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3uR9/jaeci4uDtE0BmLj8upc8GqbW7Dibg0sN+5M';
my $longer    = '$argon2id$v=19$m=16384,t=3,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3uR9/jaeci4uDtE0BmLj8upc8GqbW7Dibg0sN+5M';
foreach my $hash ($expensive, $longer)
{
	psql_fails_like($node, 'postgres', "SET ROLE authenticated; SELECT plinth.secret_verify('pw', '$hash')", qr/costs .* is refused.*plinth_admin/s,
		'a hash that would hold its place for long');
}
is(sql("SET ROLE authenticated; SELECT plinth.secret_verify('pw', '$foreign')"), 'f', 'one that costs four times what ours do');
is(sql("SET ROLE plinth_admin; SELECT plinth.secret_verify('pw', '$longer')"), 't', 'or any, for an administrator');

# ---- credentials of servers in the log ---------------------------------------------------
my $start = -s $node->logfile;
$node->append_conf('postgresql.conf', "log_statement = none\nlog_min_duration_statement = -1\n");
$node->reload;
ok(wait_until(sub { sql('SHOW log_statement') eq 'none' }), 'statements are logged only with errors');
psql_fails_like($node, 'postgres', $_->[0], $_->[1], $_->[2]) foreach (
	[ "CREATE USER MAPPING FOR mallory SERVER docs OPTIONS (username 'u', password 'S3cretPw', bogus 'x')", qr/invalid option "bogus"/, 'a mapping with another option' ],
	[ "CREATE USER MAPPING FOR mallory SERVER docs OPTIONS (username 'u', password 'S3cretPw', password_file '/x')", qr/exclude each other/, 'a mapping with two passwords' ],
	[ "CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (database 'd', uri 'mongodb://u:S3cretPw\@localhost/')", qr/not allowed in uri/, 'a uri with a password' ]);
my $log = slurp_file($node->logfile, $start);
like($log, qr/ERROR:  invalid option "bogus"/, 'the error is logged');
unlike($log, qr/S3cretPw/, 'but not the statement');

# ---- entries that look like plinth's own -------------------------------------------------
psql_fails_like($node, 'postgres', "SET ROLE authenticated; SELECT plinth.audit_record('$_')", qr/are reserved/, "action '$_'")
	foreach ('plinth.sign_in', 'Plinth.sign_in', ' plinth.sign_in');

# ---- places of workers ---------------------------------------------------------------------
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'slow', $proxy->uri, 'review');
sql('GRANT USAGE ON FOREIGN SERVER slow TO mallory');
as('mallory', 'CREATE TABLE mallory.slow (id int PRIMARY KEY); INSERT INTO mallory.slow VALUES (1)');
as('mallory', "SELECT plinth.sync_table('mallory.slow', 'slow')");
ok(wait_until(sub { $mongo->count('review', 'slow') == 1 }), 'a mapping that is compared');
$proxy->blackhole;
my @verifying = map { $node->background_psql('postgres', on_error_die => 0, on_error_stop => 0) } 1 .. 4;
$_->query_until(qr/started/, "\\echo started\nSELECT * FROM plinth.sync_verify('slow');\n") foreach @verifying;
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sync_verify(''slow'')%' AND wait_event_type = 'Lock'") >= 1
		|| sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth verify'") > 1 }), 'by several at a time');
cmp_ok(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth verify'"), '<=', 1, 'is compared by one worker');
sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%sync_verify(''slow'')%' AND pid <> pg_backend_pid()");
eval { $_->quit } foreach @verifying;

done_testing();
