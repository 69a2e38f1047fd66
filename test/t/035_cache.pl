# Caches over restarts, crashes, dumps, standbys and DROP; their worker; memory that nobody can use.
use strict;
use warnings;

use PlinthTest;
use Test::More;

my $node = PlinthTest::node('cache', conf => "plinth.worker_restart_delay = '100ms'");

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }
sub workers { return sql("SELECT count(*) FROM plinth.stat_workers WHERE service = 'cache' AND pid IS NOT NULL"); }

sql('CREATE TABLE things (id int PRIMARY KEY, name text); INSERT INTO things SELECT n, n::text FROM generate_series(1, 100) n');
sql("SELECT plinth.cache_create('memory', per_user => false)");
sql("SELECT plinth.cache_watch('memory', 'things', \$\$'k' || id\$\$)");
is(workers(), 0, 'a cache in memory needs no worker');
sql("SELECT plinth.cache_create('durable', per_user => false, durable => true), plinth.cache_create('overflow', per_user => false, overflow => true)");
sql("SELECT plinth.cache_watch('durable', 'things', \$\$'k' || id\$\$)");
ok(PlinthTest::wait_until(sub { workers() == 1 }), 'one with a table has one');

my @caches = qw(memory durable overflow);
sub fill { sql("SELECT plinth.cache_set('$_', '$_[0]', '1'), plinth.cache_get('$_', '$_[0]')") for @caches; return; }
sub held
{
	my ($key) = @_;
	return join ' ', grep { sql("SELECT plinth.cache_get('$_', '$key')") ne '' } @caches;
}

# Restart and crash.
fill('k1');
is(held('k1'), 'memory durable overflow', 'what was set is there');
$node->restart;
is(held('k1'), 'durable overflow', 'a clean restart empties memory only');
fill('k2');
my $writer = $node->background_psql('postgres');
$writer->query_safe("BEGIN; SELECT plinth.cache_set('durable', 'k3', '1'), plinth.cache_delete('durable', 'k2')");
$node->stop('immediate');
$writer->{run}->finish;
$node->start;
is(held('k2'), 'durable', 'a crash leaves durable entries only, and a transaction that was open invalidates nothing');
is(held('k3'), '', 'nor does it leave anything');
is(sql('SELECT count(*) FROM plinth.cache_entries'), 0, 'the unlogged table is empty');
fill('k2');
is(held('k2'), 'memory durable overflow', 'all can be set again');

# A backend that is killed while it computes, with invalidations pending: everything starts anew, and nobody waits.
my $filler = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $filler->query_safe('SELECT pg_backend_pid()');
$filler->query_safe("BEGIN; UPDATE things SET name = 'x' WHERE id = 2; SELECT plinth.cache_clear('memory')");
$filler->query_until(qr/started/, "\\echo started\nSELECT plinth.cache_fetch('memory', 'slow', 'SELECT pg_sleep(600)::text');\n");
ok(PlinthTest::wait_until(sub { sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 20580") == 1 }), 'a flight is a lock');
kill 'KILL', $pid;
ok(PlinthTest::begun_anew($node, $pid), 'the server is back');
$filler->{run}->finish;
is(sql("SELECT plinth.cache_fetch('memory', 'slow', 'SELECT 1')"), 1, 'the flight is free');
is(sql('SELECT in_flux FROM plinth._cache_check()'), 0, 'no slot is in flux');
is(held('k2'), 'durable', 'the change that was not committed invalidated nothing');
sql("UPDATE things SET name = 'y' WHERE id = 2");
is(held('k2'), '', 'a change that commits does');

# A backend that is ended, rather than killed, takes nothing with it.
fill('k4');
$filler = $node->background_psql('postgres', on_error_stop => 0);
$pid = $filler->query_safe('SELECT pg_backend_pid()');
$filler->query_safe("BEGIN; UPDATE things SET name = 'x' WHERE id = 4");
sql("SELECT pg_terminate_backend($pid, 60000)");
$filler->{run}->finish;
is(held('k4'), 'memory durable overflow', 'what an ended transaction would have invalidated is there');
is(sql('SELECT in_flux FROM plinth._cache_check()'), 0, 'no slot is in flux after it');

# The worker purges, and warms at start.
sql("SELECT plinth.cache_set('durable', 'short', '1', ttl => '1 ms'), plinth.cache_delete('durable', 'k4')");
ok(PlinthTest::wait_until(sub {
	sql("SELECT count(*) FROM plinth.cache_durable_entries WHERE key IN ('short', 'k4')") == 0
		&& sql('SELECT count(*) FROM plinth.cache_invalidations') == 0 }), 'expired and invalidated entries are purged');
is(held('k1'), 'durable', 'others stay');
sql("SELECT plinth.cache_create('warm', per_user => false, warm => 'SELECT ''t'' || id, to_jsonb(name) FROM public.things'),
	plinth.cache_create('broken', per_user => false, warm => 'SELECT 1/0')");
ok(PlinthTest::wait_until(sub { sql("SELECT plinth.cache_get('warm', 't7')") eq '"7"' }), 'a cache is warmed when it was created');
$node->restart;
ok(PlinthTest::wait_until(sub { sql("SELECT plinth.cache_get('warm', 't100')") eq '"100"' }), 'and when the server has started');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/WARNING: .*cache \d+: division by zero/, 'a query that fails is reported');
is(workers(), 1, 'and stops nothing');

# Dump and restore: definitions, watches and their triggers, but no entries.
fill('k5');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
unlike(PostgreSQL::Test::Utils::slurp_file($dump), qr/^COPY plinth\.cache_(durable_)?entries/m, 'no entry is dumped');
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'restore');
is(sql('SELECT string_agg(name, \' \' ORDER BY name) FROM plinth.caches', 'restored'), 'broken durable memory overflow warm', 'definitions are restored');
is(sql("SELECT plinth.cache_get('memory', 'k5')", 'restored'), '', 'with nothing in them');
sql("SELECT plinth.cache_set('memory', 'k5', '2'), plinth.cache_set('durable', 'k5', '2')", 'restored');
sql('UPDATE things SET name = name WHERE id = 5', 'restored');
is(sql("SELECT plinth.cache_get('memory', 'k5') IS NULL AND plinth.cache_get('durable', 'k5') IS NULL", 'restored'), 't', 'watches too');
is(held('k5'), 'memory durable overflow', 'of their own database only');

# DROP DATABASE, and DROP and CREATE EXTENSION, leave nothing behind.
sql("SELECT plinth.cache_set('memory', 'n' || n, '1') FROM generate_series(1, 100) n", 'restored');
my $before = sql('SELECT entries FROM plinth._cache_check()');
sql('DROP DATABASE restored');
ok(PlinthTest::wait_until(sub { sql('SELECT entries FROM plinth._cache_check()') <= $before - 100 }), 'memory forgets a database that is dropped');
my ($rc, undef, $err) = $node->psql('postgres', 'DROP EXTENSION plinth');
like($err, qr/trigger plinth_cache_watch_\d+ on table things depends on function/, 'a watched table keeps the extension');
sql('DROP EXTENSION plinth CASCADE; CREATE EXTENSION plinth');
sql("UPDATE things SET name = 'z'; TRUNCATE things");
sql("SELECT plinth.cache_create('memory', per_user => false)");
is(sql("SELECT plinth.cache_get('memory', 'k5')"), '', 'a new extension knows nothing of the old one');
ok(PlinthTest::wait_until(sub { workers() == 0 }), 'the worker ended');

# A standby reads durable entries, as they are replayed.
sql("SELECT plinth.cache_create('durable', per_user => false, durable => true), plinth.cache_create('overflow', per_user => false, overflow => true)");
fill('k6');
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('cache_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
sub on_standby { return $standby->safe_psql('postgres', $_[0]); }
sql("SELECT plinth.cache_set('durable', 'k7', '7')");
$node->wait_for_catchup($standby);
is(on_standby("SELECT plinth.cache_get('durable', 'k6'), plinth.cache_get('durable', 'k7')"), '1|7', 'a standby reads durable caches');
is(on_standby("SELECT plinth.cache_get('memory', 'k6') IS NULL, plinth.cache_get('overflow', 'k6') IS NULL"), 't|t', 'and no others');
sql("SELECT plinth.cache_delete('durable', 'k7'), plinth.cache_set('durable', 'k6', '66')");
$node->wait_for_catchup($standby);
is(on_standby("SELECT plinth.cache_get('durable', 'k6'), plinth.cache_get('durable', 'k7')"), '66|', 'as of what is replayed');
is(on_standby("SELECT plinth.cache_ticket('memory'), plinth.cache_set('memory', 'x', '1'), plinth.cache_fetch('memory', 'x', 'SELECT 1'), plinth.cache_fetch('durable', 'k6', 'SELECT 1'), plinth.cache_get('memory', 'x')"),
	'0|f|1|66|', 'what is set there is not kept');
PlinthTest::psql_fails_like($standby, 'postgres', "SELECT plinth.cache_set('durable', 'x', '1')", qr/in a read-only transaction/, 'a durable cache cannot be set');
PlinthTest::psql_fails_like($standby, 'postgres', "SELECT plinth.cache_delete('memory', 'x')", qr/during recovery/, 'nothing can be invalidated');
sql("SELECT plinth.cache_create('later', per_user => false)");
$node->wait_for_catchup($standby);
is(on_standby("SELECT plinth.cache_get('later', 'x')"), '', 'a definition is known as soon as it is replayed');
$standby->promote;
is(on_standby("SELECT plinth.cache_get('memory', 'k6') IS NULL, plinth.cache_get('durable', 'k6')"), 't|66', 'promoted: memory is empty, the table is there');
is(on_standby("SELECT plinth.cache_set('memory', 'k6', '1'), plinth.cache_set('durable', 'k6', '2')"), 't|t', 'and both can be set');
is(on_standby("SELECT plinth.cache_get('memory', 'k6'), plinth.cache_get('durable', 'k6')"), '1|2', 'and read');
$standby->stop;
$node->stop;
done_testing();
