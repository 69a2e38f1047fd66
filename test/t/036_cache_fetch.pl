# cache_fetch by many at once: one computes, nobody waits for ever, nobody fails.
use strict;
use warnings;

use PlinthTest;
use Test::More;

my $node = PlinthTest::node('fetch');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Counts without an xid, so that values are published at once.
sql('CREATE UNLOGGED SEQUENCE computed');
sql(q{CREATE FUNCTION compute(key text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN PERFORM nextval('computed'); PERFORM pg_sleep(0.002); RETURN key; END $$});
sql("SELECT plinth.cache_create('c', per_user => false), plinth.cache_create('s', per_user => false, stale_ttl => '1 h')");

# Every key is computed once, whoever asks for it how often.
my $script = $node->basedir . '/fetch.sql';
PostgreSQL::Test::Utils::append_to_file($script, <<'SQL');
\set k random(1, 100)
SELECT 1 / (plinth.cache_fetch('c', 'k' || :k, 'SELECT compute($1)', ARRAY['k' || :k], wait_timeout => '10 min') #>> '{}' = 'k' || :k)::int;
SQL
$node->command_ok([ 'pgbench', '-n', '-c', 8, '-j', 2, '-t', 200, '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ],
	'8 clients fetch 100 keys');
is(sql('SELECT last_value FROM computed'), sql(q{SELECT count(*) FROM generate_series(1, 100) k WHERE plinth.cache_get('c', 'k' || k) IS NOT NULL}),
	'each key was computed once');

sub session { return $node->background_psql('postgres', on_error_stop => 0, timeout => 180); }
# Sends a statement whose end is not waited for.
sub begin { my ($session, $sql) = @_; $session->query_until(qr/started/, "\\echo started\n$sql;\n"); return; }
sub finish { my ($session) = @_; $session->{stderr} = ''; return $session->query("SELECT 'end'"); }
sub waiting { return sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 20580 AND NOT granted"); }
sub flights { return sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 20580 AND granted"); }

# While one computes a stale value anew, the others get the stale one.
my $holder = session();
$holder->query_safe('SELECT pg_advisory_lock(7)');
sql("SELECT plinth.cache_set('s', 'k', '\"old\"', ttl => '1 ms'), pg_sleep(0.01)");
my $one = session();
begin($one, "SELECT plinth.cache_fetch('s', 'k', 'SELECT pg_advisory_xact_lock_shared(7)::text || ''new''')");
ok(PlinthTest::wait_until(sub { flights() == 1 }), 'one computes');
is(sql("SELECT plinth.cache_fetch('s', 'k', 'SELECT 1/0')"), '"old"', 'another gets the stale value');
$holder->query_safe('SELECT pg_advisory_unlock(7)');
like(finish($one), qr/"new"/, 'the one gets the new value');
is(sql("SELECT plinth.cache_fetch('s', 'k', 'SELECT 1/0')"), '"new"', 'and then the others');

# The one is terminated: a waiter computes.
$holder->query_safe('SELECT pg_advisory_lock(7)');
my $pid = $one->query_safe('SELECT pg_backend_pid()');
begin($one, "SELECT plinth.cache_fetch('c', 'ended', 'SELECT pg_advisory_xact_lock_shared(7)::text')");
ok(PlinthTest::wait_until(sub { flights() == 1 }), 'one computes');
my @others = map { session() } 1 .. 3;
begin($_, "SELECT plinth.cache_fetch('c', 'ended', 'SELECT compute(\$1)', '{by another}', wait_timeout => '10 min')") foreach @others;
ok(PlinthTest::wait_until(sub { waiting() == 3 }), 'three wait');
my $computed = sql('SELECT last_value FROM computed');
sql("SELECT pg_terminate_backend($pid, 60000)");
like(finish($_), qr/by another/, 'a waiter has a value') foreach @others;
is(sql('SELECT last_value FROM computed'), $computed + 1, 'one of them computed it');
is(flights() + waiting(), 0, 'no lock is left');
$one->{run}->finish;

# Patience ends: the caller computes.
$one = session();
begin($one, "SELECT plinth.cache_fetch('c', 'slow', 'SELECT pg_advisory_xact_lock_shared(7)::text || ''slow''')");
ok(PlinthTest::wait_until(sub { flights() == 1 }), 'one computes');
is(sql("SELECT plinth.cache_fetch('c', 'slow', 'SELECT ''fast''::text', wait_timeout => '50 ms')"), '"fast"', 'who waited in vain computes');
is(sql("SELECT plinth.cache_get('c', 'slow')"), '"fast"', 'and publishes');
is(sql("SELECT waits - wait_timeouts > 0, wait_timeouts FROM plinth.cache_stats('c')"), 't|1', 'both are counted');
# Also in a transaction that goes on, with its locks and settings as they were.
is(sql("BEGIN; SET LOCAL lock_timeout = '77s'; CREATE TABLE kept (); SELECT plinth.cache_fetch('c', 'slow2', 'SELECT 1');
	SELECT plinth.cache_fetch('c', 'slow', 'SELECT 2', wait_timeout => '10 ms') IS NOT NULL; SHOW lock_timeout; COMMIT; SELECT to_regclass('kept')"),
	"1\nt\n77s\nkept", 'a transaction outlives its waiting');
$holder->query_safe('SELECT pg_advisory_unlock(7)');
like(finish($one), qr/slow/, 'the slow one comes too');

# Each needs what the other computes: a deadlock, in which one computes for itself, and nobody fails.
$holder->query_safe('SELECT pg_advisory_lock(7)');
my @nested;
foreach my $pair ([ 'a', 'b' ], [ 'b', 'a' ])
{
	my $session = session();
	begin($session, "SELECT 'value ' || (plinth.cache_fetch('c', 'dead $pair->[0]', \$q\$SELECT pg_advisory_xact_lock_shared(7)::text ||
		(plinth.cache_fetch('c', 'dead $pair->[1]', 'SELECT ''inner $pair->[1]''::text', wait_timeout => '10 min') #>> '{}')\$q\$, wait_timeout => '10 min'))::text");
	push @nested, $session;
}
ok(PlinthTest::wait_until(sub { flights() == 2 }), 'two compute');
$holder->query_safe('SELECT pg_advisory_unlock(7)');
foreach my $session (@nested)
{
	like($session->query("SELECT 'end'"), qr/value "inner [ab]"/, 'a deadlock gives values');
	is($session->{stderr}, '', 'and no error');
}
is(flights() + waiting(), 0, 'no lock is left');
$_->quit foreach @nested, @others, $one, $holder;
$node->stop;
done_testing();
