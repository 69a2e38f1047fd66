# Meters, leases and limits beside what changes under them: an extension that is
# made anew and rolled back, DROP EXTENSION and DROP DATABASE under load, quotas
# that change in a transaction, a promotion, and a server without the library.
use strict;
use warnings;

use PlinthTest qw(psql_ok psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', conf => "plinth.limits_memory = '2MB'\nplinth.meter_flush_interval = '1h'\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub load_start
{
	my ($dbname) = @_;
	my $script = $node->basedir . "/load.$dbname.sql";
	unlink $script;
	append_to_file($script, <<'SQL');
\set k random(1, 50)
SELECT plinth.meter_add('m', 1, 'k' || :k, 'd'), (plinth.meter_check('q', 1, 'k' || :k)).allowed, plinth.meter_read('m', 'k' || :k);
SELECT plinth.lease_release(plinth.lease_acquire('l', 'k' || :k, 3)), plinth.lease_acquire('t', 'k', 5, NULL, 'transaction') IS NULL, plinth.lease_acquire('s', 'k', 5) IS NULL;
SELECT plinth.lease_acquire('n', 'k' || :k, 5, '1 hour', 'none') IS NULL WHERE :k = 1;
SELECT CASE WHEN :k < 5 THEN plinth.meter_flush() END, plinth.rate_limit_allow('come', 'k' || :k);
SELECT count(*) FROM plinth.stat_meters, plinth.stat_leases;
SQL
	my ($out, $err) = ('', '');
	return IPC::Run::start(
		[ 'pgbench', '-n', '-c', 8, '-j', 1, '-T', 3600, '-f', $script, '-h', $node->host, '-p', $node->port, $dbname ],
		'>', \$out, '2>', \$err);
}

my $things = <<'SQL';
SELECT plinth.rate_limit_create('keep', 10, '300 days', scope => 'key'), plinth.rate_limit_create('come', 1000, '1 s', scope => 'key'),
    plinth.meter_create('m', scale => 0, on_error => 'allow'), plinth.meter_create('q', scale => 0, on_error => 'allow', hard_quota => '{"month": 100}');
SQL
sql($things);

# ---- an extension that never was -------------------------------------------------------
my $held = $node->background_psql('postgres');
$held->query_safe("SELECT plinth.lease_acquire('l', 'held', 1)");
my $seen = "SELECT a.remaining, b.remaining, plinth.meter_read('m', 'a'), s.adds, l.allowed > 0, plinth.lease_acquire('l', 'held', 1) IS NULL"
  . " FROM plinth.rate_limit_check('keep', 'a', 0) a, plinth.rate_limit_check_adhoc('a', 10, '300 days', cost => 0) b, plinth.stat_meters s, plinth.stat_limits l WHERE s.name = 'm' AND l.policy = 'keep'";
sql("SELECT plinth.rate_limit_check('keep', 'a', 4), plinth.rate_limit_check_adhoc('a', 10, '300 days', cost => 3), plinth.meter_add('m', 5, 'a')");
is(sql($seen), '6|7|5|1|t|t', 'what limits, meters and leases have');
my $other = $node->background_psql('postgres');
$other->query_safe(<<"SQL");
BEGIN;
DROP EXTENSION plinth;
CREATE EXTENSION plinth;
$things
SELECT plinth.rate_limit_check('keep', 'a', 1), plinth.rate_limit_check_adhoc('a', 10, '300 days', cost => 1), plinth.meter_add('m', 1, 'a'), plinth.meter_flush();
SELECT * FROM plinth.stat_meters, plinth.stat_limits;
DO \$\$
BEGIN
    FOR i IN 1 .. 1000 LOOP
        PERFORM plinth.lease_acquire('fill', i::text, 1, NULL, 'transaction');
    END LOOP;
    RAISE 'there is no end of memory';
EXCEPTION WHEN configuration_limit_exceeded THEN
    NULL;
END
\$\$;
ROLLBACK;
SQL
$other->quit;
is(sql($seen), '6|7|5|1|t|t', 'an extension that is made anew takes none of it until it commits');
$held->quit;

# ---- quotas that change in a transaction ------------------------------------------------
my $changes = $node->background_psql('postgres');
$changes->query_safe("BEGIN; SELECT plinth.meter_quota('q', 'month', soft => 50, hard => 100)");
is($changes->query_safe("SELECT allowed, status FROM plinth.meter_check('q', 60, 'k')"), 't|soft', 'who changes a quota goes by it at once');
is(sql("SELECT allowed, status, used FROM plinth.meter_check('q', 60, 'k')"), 'f|hard|60', 'what he was given nobody else is');
is(sql("SELECT allowed, status, used FROM plinth.meter_check('q', 40, 'k')"), 't|ok|100', 'only the rest');
is($changes->query_safe("SELECT allowed, used FROM plinth.meter_check('q', 1, 'k')"), 'f|100', 'nor he that');
$changes->query_safe('ROLLBACK');
$changes->quit;
is(sql("SELECT plinth.meter_flush() > 0, plinth.meter_read('q', 'k')"), 't|100', 'and it stays given');

# ---- DROP EXTENSION under load ------------------------------------------------------------
my $load = load_start('postgres');
ok(wait_until(sub { (PlinthTest::ask($node, 'postgres', "SELECT adds > 500 FROM plinth.stat_meters WHERE name = 'm'") // '') eq 't' }), 'a load');
# Who reads two views at once may meet it half-way: then one of them is told of a deadlock, as with any DROP.
ok(wait_until(sub { ($node->psql('postgres', 'DROP EXTENSION plinth'))[0] == 0 }), 'DROP EXTENSION');
$load->finish;
psql_ok($node, 'postgres', "CREATE EXTENSION plinth; $things", 'CREATE EXTENSION');
sql('SELECT plinth.meter_flush()');
is( sql("SELECT (SELECT count(*) FROM plinth.meter_usage), (SELECT count(*) FROM plinth.stat_leases), sum(pending), sum(adds), sum(keys_in_memory) FROM plinth.stat_meters"),
	'0|0|0|0|0', 'knows nothing of the old one');
my $room = <<'SQL';
DO $$
BEGIN
    FOR i IN 1 .. 2000 LOOP
        PERFORM plinth.lease_release(plinth.lease_acquire('probe', i::text, 1, '1 hour', 'none'));
    END LOOP;
END
$$;
UPDATE plinth.meters SET on_error = 'deny';
DO $$ BEGIN FOR i IN 1 .. 100 LOOP PERFORM plinth.meter_add('m', 1, 'room-' || i); COMMIT; PERFORM plinth.meter_flush(); COMMIT; END LOOP; END $$;
UPDATE plinth.meters SET on_error = 'allow';
SQL
psql_ok($node, 'postgres', $room, 'and has all of its memory');

# ---- DROP DATABASE under load ---------------------------------------------------------------
for my $round (1 .. 2)
{
	sql('CREATE DATABASE other');
	$node->safe_psql('other', "CREATE EXTENSION plinth; $things");
	$load = load_start('other');
	ok(wait_until(sub { (PlinthTest::ask($node, 'other', "SELECT adds > 500 FROM plinth.stat_meters WHERE name = 'm'") // '') eq 't' }), 'a load in another database');
	psql_ok($node, 'postgres', 'DROP DATABASE other WITH (FORCE)', 'DROP DATABASE');
	$load->finish;
	psql_ok($node, 'postgres', $room, 'what it had is free');
}
is(sql("SELECT sum(plinth.meter_read('m', 'room-' || i)) FROM generate_series(1, 100) i"), '300', 'the others keep what they have');

# ---- a promotion --------------------------------------------------------------------------------
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
my $holder = $standby->background_psql('postgres');
my $lease = $holder->query_safe("SELECT plinth.lease_acquire('l', 'k', 1)");
$node->stop('fast');
$standby->promote;
is( $standby->safe_psql('postgres', "SELECT plinth.lease_acquire('l', 'k', 1) IS NULL, plinth.rate_limit_allow('keep', 'p'), plinth.meter_add('m', 1, 'room-1'), plinth.meter_read('m', 'room-1')"),
	't|t||4', 'a lease taken before a promotion is held after it; limits and meters go on');
is($holder->query_safe("SELECT plinth.lease_release('$lease')"), 't', 'and is given back');
$holder->quit;
is($standby->safe_psql('postgres', "SELECT plinth.lease_acquire('l', 'k', 1) IS NOT NULL"), 't', 'for the next');
$standby->stop('fast');

# ---- a server that does not load it ----------------------------------------------------------------
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->start;
psql_fails_like($node, 'postgres', "SELECT $_", qr/plinth must be loaded via "shared_preload_libraries"/, $_)
  foreach "plinth.rate_limit_allow('keep', 'a')", "plinth.rate_limit_require('keep', 'a')", "allowed FROM plinth.rate_limit_check_adhoc('a', 1, '1 s')",
  "plinth.meter_add('m', 1, 'a')", "allowed FROM plinth.meter_check('q', 1, 'a')", "plinth.lease_acquire('l', 'k', 1)";
$node->stop('fast');
unlike(slurp_file($_->logfile), qr/PANIC|TRAP:|stuck spinlock|signal 11/, 'nothing went wrong that should not') foreach $node, $standby;

done_testing();
