# Meters: every amount exactly once, under load, through flushes that fail,
# crashes and restarts; what a crash may forget, full memory, and a standby.
use strict;
use warnings;

use PlinthTest qw(psql_ok psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', conf => "plinth.meter_flush_interval = '10ms'\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub flusher { return sql("SELECT pid FROM plinth.stat_workers WHERE service = 'meter' AND database = 'postgres' AND pid IS NOT NULL"); }
my $in_table = "SELECT trim_scale(coalesce(sum(u.amount), 0)) FROM plinth.meter_usage u JOIN plinth.meters m ON m.id = u.meter_id AND u.period = 'total' AND u.dimension = '' AND m.name = ";

# Kills a backend with -9, and waits until the server has come back from that.
sub crash
{
	my ($session) = @_;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $offset = -s $node->logfile;
	kill 'KILL', $pid;
	eval { $session->quit };
	return wait_until(sub { substr(slurp_file($node->logfile), $offset) =~ /reinitializing.*database system is ready to accept connections/s });
}

# ---- exactly, while flushes come and go ------------------------------------------
sql("SELECT plinth.meter_create('m', periods => '{minute,month}'), plinth.meter_create('q', scale => 0, hard_quota => '{\"total\": 700}'),"
	  . " plinth.meter_create('d', scale => 0, hard_quota => '{\"total\": 100}', durable => true)");
ok(wait_until(\&flusher), 'a service flushes');
my $script = PostgreSQL::Test::Utils::tempdir() . '/load.sql';
append_to_file($script, <<'SQL');
\set k random(1, 5)
BEGIN;
SELECT plinth.meter_add('m', 0.1, 'k' || :k, 'd' || :k), plinth.meter_add('m', 0.000001, 'one'), plinth.meter_check('q', 1, 'one');
ROLLBACK;
SELECT plinth.meter_check('d', 1, 'one');
SQL
# Beside it: one alone, who knows what he must read, and one who reads what the others count.
my $alone = $node->background_psql('postgres');
$alone->query_until(qr/started/, <<'SQL');
\echo started
DO $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        PERFORM plinth.meter_add('m', 1, 'alone');
        IF plinth.meter_read('m', 'alone') <> i THEN
            RAISE EXCEPTION 'read %, not %', plinth.meter_read('m', 'alone'), i;
        END IF;
        IF (plinth.meter_check('q', 0, 'alone')).used <> (i - 1) / 100 THEN
            RAISE EXCEPTION 'checked %, not %', (plinth.meter_check('q', 0, 'alone')).used, (i - 1) / 100;
        END IF;
        IF i % 100 = 0 THEN
            PERFORM plinth.meter_check('q', 1, 'alone');
        END IF;
    END LOOP;
END
$$;
SQL
my $watcher = $node->background_psql('postgres');
$watcher->query_until(qr/started/, <<'SQL');
\echo started
DO $$
DECLARE
    last numeric := 0;
    now numeric;
BEGIN
    FOR i IN 1 .. 3000 LOOP
        now := plinth.meter_read('m', 'one');
        IF now < last THEN
            RAISE EXCEPTION 'read % after %', now, last;
        END IF;
        last := now;
    END LOOP;
END
$$;
SQL
$node->command_ok([ 'pgbench', '-n', '-c', '16', '-j', '2', '-t', '100', '-f', $script, 'postgres' ], '16 clients');
is($alone->query_safe('SELECT 1'), '1', 'one alone always read what he had counted');
is($watcher->query_safe('SELECT 1'), '1', 'nobody read less than before');
unlike($_->{stderr} || '', qr/ERROR/, 'without an error') foreach $alone, $watcher;
$alone->quit;
$watcher->quit;
is(sql("SELECT plinth.meter_read('m', 'one'), trim_scale(sum(plinth.meter_read('m', 'k' || i))), trim_scale(sum(plinth.meter_read('m', 'k' || i, dimension => 'd' || i))) FROM generate_series(1, 5) i"),
	'0.0016|160|160', 'all of it was counted, once');
is(sql("SELECT plinth.meter_read('m', 'alone'), plinth.meter_read('q', 'alone')"), '3000|30', 'so for the one alone');
is(sql("SELECT plinth.meter_read('q', 'one'), plinth.meter_read('d', 'one')"), '700|100', 'quotas were used to the last unit, and no further');
is(sql("SELECT denied FROM plinth.stat_meters WHERE name IN ('q', 'd') ORDER BY name"), "1500\n900", 'and refused the rest');
ok(wait_until(sub { sql("$in_table 'm'") eq '3160.0016' }), 'it arrives in the table');
is(sql("SELECT plinth.meter_flush() * 0, (SELECT pending FROM plinth.stat_meters WHERE name = 'm')"), '0|0', 'and nothing is pending');
is(sql("SELECT trim_scale(sum(amount)) FROM plinth.meter_export WHERE meter = 'm' AND period = 'minute' AND dimension IS NULL"), '3160.0016', 'the minutes have the same sum');

# ---- flushes that do not succeed -----------------------------------------------------
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT amount FROM plinth.meter_usage WHERE key = 'alone' FOR UPDATE");
sql("SELECT plinth.meter_add('m', 5, 'alone'), plinth.meter_add('m', 5, 'other')");
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_workers WHERE service = 'meter'") eq 'retrying' }), 'a flush that cannot lock a row gives up, and says so');
is(sql("SELECT plinth.meter_read('m', 'alone'), plinth.meter_read('m', 'other')"), '3005|5', 'reading does not wait for it');
sql("SELECT plinth.meter_add('m', 1, 'alone')");
my $pid = flusher();
ok(wait_until(sub { sql("SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted") ne '0' }), 'it tries again');
sql("SELECT pg_terminate_backend($pid)");
ok(wait_until(sub { my $new = flusher(); $new && $new ne $pid }), 'terminated meanwhile, it is started again');
is(sql("SELECT plinth.meter_read('m', 'alone'), plinth.meter_read('m', 'other')"), '3006|5', 'and nothing is lost by it');
$holder->query_safe("COMMIT; BEGIN; SELECT plinth.meter_reset('m', 'nobody')");
sql("SELECT plinth.meter_add('m', 1, 'other')");
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_workers WHERE service = 'meter'") eq 'waiting' }), 'it waits for a transaction that flushes itself');
is(sql("SELECT plinth.meter_read('m', 'alone'), plinth.meter_read('m', 'other')"), '3006|6', 'whose amounts are read meanwhile, and new ones too');
$holder->query_safe('ROLLBACK');
$holder->quit;
ok(wait_until(sub { sql("SELECT amount FROM plinth.meter_export WHERE key = 'alone' AND meter = 'm' AND period = 'total'") eq '3006' }), 'once the row is free it is written');
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_workers WHERE service = 'meter'") eq 'running' }), 'and that is shown');

# ---- stops and crashes ----------------------------------------------------------------
# A flush takes place once an hour, so not in this test.
$node->append_conf('postgresql.conf', "plinth.meter_flush_interval = '1h'\n");
$node->restart;
sql('SELECT plinth.meter_flush()');
sql("SELECT plinth.meter_add('m', 7, 'stop', 'x'), plinth.meter_add('m', 0.5, 'alone')");
$node->restart;
is(sql("SELECT plinth.meter_read('m', 'stop'), plinth.meter_read('m', 'stop', 'month', dimension => 'x'), plinth.meter_read('m', 'alone')"), '7|7|3006.5', 'a restart loses nothing');
is(sql("SELECT count(*) FROM plinth.meter_usage WHERE key = 'stop'"), '0', 'of what was only in memory');
ok(!-e $node->data_dir . '/pg_stat/plinth_meters.stat', 'the file is gone');
$node->restart;
is(sql("SELECT plinth.meter_read('m', 'stop'), plinth.meter_read('m', 'alone')"), '7|3006.5', 'nor does one more');
sql('SELECT plinth.meter_flush()');
sql("SELECT plinth.meter_add('m', 100, 'stop')");
$node->stop('immediate');
$node->start;
is(sql("SELECT plinth.meter_read('m', 'stop'), plinth.meter_read('m', 'alone')"), '7|3006.5', 'an immediate stop forgets what was not flushed, and nothing else');
sql("SELECT plinth.meter_add('m', 100, 'stop')");
ok(crash($node->background_psql('postgres')), 'kill -9 of a backend: it comes back');
is(sql("SELECT plinth.meter_read('m', 'stop')"), '7', 'so does a crash');
# Killed with a flush in flight: it is in the table, or lost, never half or twice.
sql("SELECT plinth.meter_add('m', 1, 'flight-' || i) FROM generate_series(1, 500) i");
my $victim = $node->background_psql('postgres');
$victim->query_safe('BEGIN; SELECT plinth.meter_flush()');
crash($victim);
is(sql("SELECT sum(plinth.meter_read('m', 'flight-' || i)) FROM generate_series(1, 500) i"), '0', 'kill -9 before the commit of a flush');
sql("SELECT plinth.meter_add('m', 1, 'flight-' || i) FROM generate_series(1, 500) i");
$victim = $node->background_psql('postgres');
$victim->query_safe('SELECT plinth.meter_flush()');
crash($victim);
is(sql("SELECT sum(plinth.meter_read('m', 'flight-' || i)), count(*) FROM generate_series(1, 500) i WHERE plinth.meter_read('m', 'flight-' || i) = 1"), '500|500', 'and after it');
# A file that is not whole.
sql("SELECT plinth.meter_add('m', 100, 'stop')");
$node->stop;
my $file = $node->data_dir . '/pg_stat/plinth_meters.stat';
truncate $file, (-s $file) - 1;
my $log = -s $node->logfile;
$node->start;
is(sql("SELECT plinth.meter_read('m', 'stop')"), '7', 'a broken file is not believed');
like(substr(slurp_file($node->logfile), $log), qr/ignoring file "pg_stat\/plinth_meters.stat"/, 'which the log tells');

# ---- retention -----------------------------------------------------------------------
sql("UPDATE plinth.meters SET retention = '2 days' WHERE name = 'm'; UPDATE plinth.meters SET periods = '{minute}' WHERE name = 'q'");
sql("INSERT INTO plinth.meter_usage (meter_id, key, period, period_start, amount) SELECT m.id, 'old', p, now() - d * interval '1 day', 1"
	  . " FROM plinth.meters m, unnest('{minute,hour,day,month}'::text[]) p, unnest('{1,3}'::int[]) d WHERE m.name IN ('m', 'q')");
$node->restart;
my $kept = "SELECT m.name, u.period, count(*) FROM plinth.meter_usage u JOIN plinth.meters m ON m.id = u.meter_id WHERE u.key = 'old' GROUP BY 1, 2 ORDER BY 1, 2";
ok(wait_until(sub { sql($kept) eq "m|day|1\nm|hour|1\nm|minute|1\nm|month|2\nq|day|2\nq|hour|2\nq|minute|2\nq|month|2" }), 'minutes, hours and days go with their time, if a meter says so') or diag(sql($kept));

# ---- full memory ---------------------------------------------------------------------
$node->append_conf('postgresql.conf', "plinth.limits_memory = '256kB'\n");
$node->restart;
sql("SELECT plinth.meter_create('allow', on_error => 'allow'), plinth.meter_create('deny')");
# Full it stays only while no flush is possible.
$holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; SELECT plinth.meter_flush()');
my $fill = "SELECT count(plinth.meter_add('%s', 1, 'full-' || i)) FROM generate_series(1, 2000) i";
psql_fails_like($node, 'postgres', sprintf($fill, 'deny'), qr/no memory is left for meter "deny".*HINT:  Raise "plinth.limits_memory"/s, 'full memory is an error');
psql_fails_like($node, 'postgres', sprintf($fill, 'deny'), qr/no memory is left for meter "deny"/, 'and stays one');
psql_ok($node, 'postgres', "SELECT plinth.meter_add('deny', 1, 'full-1')", 'a key that has its place still counts');
psql_ok($node, 'postgres', sprintf($fill, 'allow'), 'a meter that allows goes on');
cmp_ok(sql("SELECT full_memory FROM plinth.stat_meters WHERE name = 'allow'"), '>', 1000, 'and tells how often');
$holder->query_safe('COMMIT');
$holder->quit;
my $counted = sql("SELECT adds FROM plinth.stat_meters WHERE name = 'allow'");
sql('SELECT plinth.meter_flush()');
is(sql("$in_table 'allow'"), $counted, 'what it says it has counted is there');
psql_ok($node, 'postgres', sprintf($fill, 'deny'), 'with flushes, counting waits for room, whatever their interval');
is(sql("SELECT sum(plinth.meter_read('deny', 'full-' || i)) > 2000 FROM generate_series(1, 2000) i"), 't', 'and nothing is lost');
my $room = "DO \$\$ BEGIN FOR i IN 1 .. 200 LOOP PERFORM plinth.meter_add('%s', 1, 'room-' || i); COMMIT; PERFORM plinth.meter_flush(); COMMIT; END LOOP; END \$\$";
psql_ok($node, 'postgres', sprintf($room, 'deny'), 'what is flushed gives its room to others');
is(sql("SELECT sum(plinth.meter_read('deny', 'room-' || i)) FROM generate_series(1, 200) i"), '200', 'and is still there');

# ---- what goes -------------------------------------------------------------------------
sql("SELECT plinth.meter_add('deny', 5, 'gone')");
psql_ok($node, 'postgres', 'DROP EXTENSION plinth; CREATE EXTENSION plinth', 'the extension created anew');
sql("SELECT plinth.meter_create('a'), plinth.meter_create('b'), plinth.meter_create('c'), plinth.meter_create('d'), plinth.meter_create('e'), plinth.meter_create('f')");
sql('SELECT plinth.meter_flush()');
is(sql("SELECT sum(plinth.meter_read(m.name, 'gone')) FROM plinth.meters m"), '0', 'has none of the old amounts');
is(sql('SELECT count(*) FROM plinth.meter_usage'), '0', 'none at all');
sql('CREATE DATABASE second');
$node->safe_psql('second', "CREATE EXTENSION plinth; SELECT plinth.meter_create('a', on_error => 'allow')");
$holder = $node->background_psql('second');
$holder->query_safe('BEGIN; SELECT plinth.meter_flush()');
$node->safe_psql('second', sprintf($fill, 'a'));
psql_fails_like($node, 'postgres', sprintf($room, 'a'), qr/no memory is left/, 'another database can take all memory');
$holder->quit;
sql('DROP DATABASE second');
psql_ok($node, 'postgres', sprintf($room, 'a'), 'which comes back with DROP DATABASE');

# ---- a standby ---------------------------------------------------------------------------
sql("SELECT plinth.meter_add('a', 3, 'replayed')");
sql('SELECT plinth.meter_flush()');
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
psql_fails_like($standby, 'postgres', "SELECT plinth.meter_add('a', 1, 'replayed')", qr/meters do not count during recovery/, 'a standby does not count');
is($standby->safe_psql('postgres', "SELECT plinth.meter_read('a', 'replayed'), count(*) FROM plinth.meter_history('a', 'replayed')"), '3|1', 'but reads what is replayed');
$standby->promote;
is($standby->safe_psql('postgres', "SELECT plinth.meter_add('a', 1, 'replayed'); SELECT plinth.meter_read('a', 'replayed')"), "\n4", 'promoted, it counts');
ok(wait_until(sub { $standby->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_workers WHERE service = 'meter' AND pid IS NOT NULL") eq '1' }), 'and flushes');
$standby->stop;

# ---- a dump --------------------------------------------------------------------------------
sql("SELECT plinth.meter_quota('a', 'month', hard => 5, key => 'replayed')");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'restored');
is($node->safe_psql('restored', "SELECT plinth.meter_read('a', 'replayed'), allowed, used, hard_quota FROM plinth.meter_check('a', 3, 'replayed')"), '3|f|3|5', 'with what was used, and its quotas');
psql_ok($node, 'restored', "SELECT plinth.meter_create('another')", 'and its sequences');
$node->stop;
done_testing();
