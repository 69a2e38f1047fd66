# Rate limits under many clients: what is admitted is what the algorithm
# promises, exactly where nothing comes back meanwhile; a lone client at the
# allowed rate is never denied; tables that are full, restarts, standbys, dumps.
use strict;
use warnings;

use PlinthTest qw(psql_ok wait_until);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# Nothing is saved but at the end.
# And it is copied from by logical replication, besides.
my $plugins = PlinthTest::knows_setting('output_plugin_libraries') ? "output_plugin_libraries = 'plinth, pgoutput'\n" : '';
my $node = PlinthTest::node("main", conf => "plinth.limits_save_interval = 1h\n$plugins");
my $standby;

sub ask
{
	my ($server, $arguments) = @_;
	return $server->safe_psql('postgres', "SELECT allowed, remaining FROM plinth.rate_limit_check($arguments)");
}

# Runs a script by 16 clients, so many times each.
sub clients
{
	my ($server, $times, $script, $name) = @_;
	my $file = $server->basedir . "/$name.sql";
	append_to_file($file, $script);
	my $started = time();
	$server->command_ok(
		[ 'pgbench', '-n', '-c', 16, '-j', 2, '-t', $times, '-M', 'prepared', '-f', $file, 'postgres' ],
		"16 clients: $name");
	return time() - $started;
}

$node->safe_psql('postgres', <<'SQL');
SELECT plinth.rate_limit_create('hot', 200, '1 second', burst => 50, scope => 'key');
SELECT plinth.rate_limit_create('bucket', 20000, '366 days', scope => 'key');
SELECT plinth.rate_limit_create('limit', 20000, '366 days', algorithm => 'fixed_window', scope => 'key');
SELECT plinth.rate_limit_create('many', 5, '100 days', scope => 'key');
SELECT plinth.rate_limit_create('window', 5, '366 days', algorithm => 'fixed_window', scope => 'key');
SELECT plinth.rate_limit_create('wide', 5, '100 days', scope => 'key');
SELECT plinth.rate_limit_create('narrow', 3, '100 days', scope => 'key');
SELECT plinth.rate_limit_create('lone', 100, '1 second', burst => 1, scope => 'key');
CREATE UNLOGGED TABLE asked (policy text, key int, allowed boolean);
SQL

# ---- one key ----------------------------------------------------------------------
my $elapsed = clients($node, 300, <<'SQL', 'hot');
INSERT INTO asked SELECT 'hot', 0, (plinth.rate_limit_check('hot', 'one')).allowed FROM generate_series(1, 10);
SQL
my $admitted = $node->safe_psql('postgres', "SELECT count(*) FROM asked WHERE policy = 'hot' AND allowed");
cmp_ok($admitted, '<=', 50 + 200 * $elapsed, 'one key: no more is admitted than burst + rate * window');
cmp_ok($admitted, '>=', 50, 'and no less than the burst');
is( $node->safe_psql('postgres', "SELECT allowed = $admitted AND allowed + denied = 48000 FROM plinth.stat_limits WHERE policy = 'hot'"),
	't', 'stat_limits has counted them');

# With nothing that comes back: exactly so many, though all swap one word.
clients($node, 10, <<'SQL', 'exact');
INSERT INTO asked SELECT p, 0, (plinth.rate_limit_check(p, 'one')).allowed FROM generate_series(1, 500), unnest('{bucket,limit}'::text[]) p;
SQL
is( $node->safe_psql('postgres', "SELECT policy, count(*), count(*) FILTER (WHERE allowed) FROM asked WHERE policy IN ('bucket', 'limit') GROUP BY 1 ORDER BY 1"),
	"bucket|80000|20000\nlimit|80000|20000", 'one key: what there is, and not one more');

# ---- ten thousand keys ------------------------------------------------------------
# What is exact, with nothing that comes back: each key gets what it asks for, up to its limit.
clients($node, 150, <<'SQL', 'many');
INSERT INTO asked SELECT p, k, (plinth.rate_limit_check(p, 'k' || k)).allowed
    FROM (SELECT (random() * 9999)::int AS k, CASE n % 2 WHEN 0 THEN 'many' ELSE 'window' END AS p FROM generate_series(1, 40) n OFFSET 0) s;
SQL
foreach my $policy ('many', 'window')
{
	is( $node->safe_psql('postgres', <<"SQL"), '', "$policy: of 10,000 keys each is admitted exactly what it may be");
SELECT key, count(*), count(*) FILTER (WHERE allowed) FROM asked WHERE policy = '$policy' GROUP BY key
    HAVING count(*) FILTER (WHERE allowed) <> least(count(*), 5) LIMIT 5
SQL
	is( $node->safe_psql('postgres', "SELECT entries = (SELECT count(DISTINCT key) FROM asked WHERE policy = '$policy') FROM plinth.stat_limits WHERE policy = '$policy'"),
		't', "$policy: entries in use");
}

# ---- several at once --------------------------------------------------------------
clients($node, 150, <<'SQL', 'all');
INSERT INTO asked SELECT 'all', k, (plinth.rate_limit_check_all(CASE n % 2 WHEN 0 THEN '{wide,narrow}' ELSE '{narrow,wide}' END::text[], 'k' || k)).allowed
    FROM (SELECT (random() * 99)::int AS k, n FROM generate_series(1, 40) n OFFSET 0) s;
SQL
is( $node->safe_psql('postgres', <<'SQL'), '', 'all or nothing: nobody denied what there was, nothing consumed where denied');
SELECT a.key, a.admitted, w.remaining, n.remaining
    FROM (SELECT key, count(*) FILTER (WHERE allowed) AS admitted FROM asked WHERE policy = 'all' GROUP BY key) a,
    LATERAL plinth.rate_limit_check('wide', 'k' || key, 0) w, LATERAL plinth.rate_limit_check('narrow', 'k' || key, 0) n
    WHERE a.admitted <> 3 OR w.remaining <> 2 OR n.remaining <> 0 LIMIT 5
SQL

# ---- a lone client -----------------------------------------------------------------
# It sleeps at least an interval between two questions, while others ask for other keys.
my $file = $node->basedir . '/others.sql';
append_to_file($file, "SELECT count((plinth.rate_limit_check('lone', 'other' || n)).allowed) FROM generate_series(1, 50) n;\n");
my $others = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 15, '-j', 1, '-T', 600, '-f', $file, '-h', $node->host, '-p', $node->port, 'postgres' ],
	'>', \my $out, '2>', \my $err);
ok(wait_until(sub { $node->safe_psql('postgres', "SELECT denied > 1000 FROM plinth.stat_limits WHERE policy = 'lone'") eq 't' }),
	'others are being denied');
is( $node->safe_psql('postgres', <<'SQL'), '', 'a lone client at the allowed rate is never denied');
DO $$
DECLARE
    denied int := 0;
BEGIN
    FOR n IN 1..200 LOOP
        denied := denied + (NOT (plinth.rate_limit_check('lone', 'me')).allowed)::int;
        PERFORM pg_catalog.pg_sleep(0.0105);
    END LOOP;
    IF denied > 0 THEN
        RAISE EXCEPTION '% denied', denied;
    END IF;
END
$$
SQL
$others->signal('INT');
$others->finish;

# ---- in a parallel plan, in a function that only reads ------------------------------
is( $node->safe_psql('postgres', <<'SQL'), "4\n3", 'beside parallel workers');
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SELECT (plinth.rate_limit_check('wide', 'parallel', 1)).remaining FROM (SELECT count(*) FROM asked) s WHERE count > 0;
SELECT remaining FROM (SELECT count(*) FROM asked) s, plinth.rate_limit_check('wide', 'parallel', least(count, 1));
SQL

# ---- a clean restart ----------------------------------------------------------------
$node->restart;
is( $node->safe_psql('postgres', <<'SQL'), '', 'a clean restart forgets nothing');
SELECT policy, key, admitted, remaining
    FROM (SELECT policy, key, count(*) FILTER (WHERE allowed) AS admitted FROM asked WHERE policy IN ('many', 'window') GROUP BY 1, 2) a,
    LATERAL plinth.rate_limit_check(policy, 'k' || key, 0) d WHERE remaining <> 5 - admitted LIMIT 5
SQL
ok(wait_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_workers WHERE service = 'launcher' AND state = 'running'") eq '1' }),
	'the launcher is there again');

# ---- a standby, and its promotion ----------------------------------------------------
$node->backup('backup');
$standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is(ask($standby, "'wide', 'standby'"), 't|4', 'a standby decides');
is(ask($node, "'wide', 'standby', 0"), 't|5', 'for itself');
is(ask($standby, "'narrow', 'k1', 0"), 'f|0', 'beginning with what was saved on the primary');
$node->safe_psql('postgres', "SELECT plinth.rate_limit_create('late', 2, '100 days', scope => 'key')");
$node->wait_for_catchup($standby);
my $session = $standby->background_psql('postgres');
is($session->query_safe("SELECT remaining FROM plinth.rate_limit_check('late', 'a')"), '1', 'a policy made meanwhile');
$node->safe_psql('postgres', "SELECT plinth.rate_limit_alter('late', burst => 7)");
$node->wait_for_catchup($standby);
ok(wait_until(sub { $session->query_safe("SELECT remaining FROM plinth.rate_limit_check('late', 'a', 0)") eq '6' }),
	'a change is seen by a session of the standby');
$node->stop('fast');
$standby->promote;
is($session->query_safe("SELECT remaining FROM plinth.rate_limit_check('late', 'a')"), '5', 'and goes on through a promotion');
$standby->safe_psql('postgres', "SELECT plinth.rate_limit_alter('late', burst => 6)");
is($session->query_safe("SELECT remaining FROM plinth.rate_limit_check('late', 'a', 0)"), '4', 'after it a change is seen at its commit');
$session->quit;
is(ask($standby, "'narrow', 'k1', 0"), 'f|0', 'nothing comes back by it');

# ---- dump and restore ------------------------------------------------------------------
$standby->safe_psql('postgres', "INSERT INTO plinth.rate_limit_rules (policy, network, action) VALUES ('late', '10.0.0.0/8', 'deny'), (NULL, '10.1.0.0/16', 'allow')");
my $dump = $standby->basedir . '/dump.sql';
$standby->command_ok([ 'pg_dump', '-f', $dump, '--exclude-table=asked', 'postgres' ], 'pg_dump');
$standby->safe_psql('postgres', 'CREATE DATABASE restored');
$standby->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'restored');
is( $standby->safe_psql('restored', 'SELECT count(*) FROM plinth.rate_limits') . $standby->safe_psql('restored', 'SELECT count(*) FROM plinth.rate_limit_rules'),
	'92', 'policies and rules are there');
is($standby->safe_psql('restored', "SELECT allowed, remaining FROM plinth.rate_limit_check('narrow', 'k1', 0)"), 't|3', 'keys of another database are others');
psql_ok($standby, 'restored', "SELECT plinth.rate_limit_create('next', 1, '1 s'); INSERT INTO plinth.rate_limit_rules (key, action) VALUES ('x', 'deny')",
	'and the next has an id of its own');

# ---- a subscriber ------------------------------------------------------------------------
my $subscriber = PlinthTest::node('subscriber');
$standby->safe_psql('postgres', 'CREATE PUBLICATION limits FOR TABLE plinth.rate_limits, plinth.rate_limit_rules, plinth.meters, plinth.meter_quotas');
$standby->safe_psql('postgres', "SELECT plinth.meter_create('m', scale => 0), plinth.meter_quota('m', 'month', hard => 5)");
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION limits CONNECTION \$\$" . $standby->connstr('postgres') . "\$\$ PUBLICATION limits");
ok(wait_until(sub { $subscriber->safe_psql('postgres', "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'") eq '4' }),
	'a subscriber has the tables');
my $follower = $subscriber->background_psql('postgres');
is($follower->query_safe("SELECT allowed, remaining FROM plinth.rate_limit_check('late', 'a', 0)"), 't|6', 'and the policies');
$standby->safe_psql('postgres', "SELECT plinth.rate_limit_alter('late', burst => 7)");
ok(wait_until(sub { $follower->query_safe("SELECT remaining FROM plinth.rate_limit_check('late', 'a', 0)") eq '7' }),
	'its sessions see a change of a policy that is applied');
$standby->safe_psql('postgres', "INSERT INTO plinth.rate_limit_rules (policy, key, action) VALUES ('late', 'a', 'deny')");
ok(wait_until(sub { $follower->query_safe("SELECT allowed FROM plinth.rate_limit_check('late', 'a', 0)") eq 'f' }), 'and of a rule');
is($follower->query_safe("SELECT hard_quota, periods FROM plinth.meter_check('m', 0, 'a'), plinth.meters"), '5|{month}', 'meters too');
$standby->safe_psql('postgres', "UPDATE plinth.meter_quotas SET hard = 6");
ok(wait_until(sub { $follower->query_safe("SELECT hard_quota FROM plinth.meter_check('m', 0, 'a')") eq '6' }), 'and a change of a quota');
$standby->safe_psql('postgres', "UPDATE plinth.meters SET enabled = false");
ok(wait_until(sub { $follower->query_safe("SELECT status FROM plinth.meter_check('m', 0, 'a')") eq 'disabled' }), 'or of a meter');
$follower->quit;
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION limits');
$subscriber->stop('fast');
$standby->stop('fast');

# ---- a table that is too small -----------------------------------------------------------
my $small = PlinthTest::node('small', conf => "plinth.limits_memory = '256kB'\n");
$small->safe_psql('postgres', <<'SQL');
SELECT plinth.rate_limit_create('strict', 3, '100 days', scope => 'key');
SELECT plinth.rate_limit_create('brief', 10000, '1 s', burst => 1, scope => 'key');
SELECT plinth.rate_limit_create('fill', 3, '100 days', scope => 'key');
SELECT plinth.rate_limit_create('open', 3, '100 days', scope => 'key', on_error => 'allow');
CREATE UNLOGGED TABLE asked (policy text, key int, allowed boolean);
SQL
# Keys in use keep their places while others come and go around them.
clients($small, 100, <<'SQL', 'churn');
INSERT INTO asked SELECT p, k, (plinth.rate_limit_check(p, 'k' || k)).allowed
    FROM (SELECT CASE n % 4 WHEN 0 THEN 'strict' ELSE 'brief' END AS p, (random() * CASE n % 4 WHEN 0 THEN 99 ELSE 99999 END)::int AS k FROM generate_series(1, 40) n OFFSET 0) s;
SQL
is( $small->safe_psql('postgres', <<'SQL'), '', 'keys in use are exact while idle ones are evicted around them');
SELECT key, count(*), count(*) FILTER (WHERE allowed) FROM asked WHERE policy = 'strict' GROUP BY key
    HAVING count(*) FILTER (WHERE allowed) > 3 OR count(*) FILTER (WHERE allowed) < 3
        AND (SELECT table_full FROM plinth.stat_limits WHERE policy = 'strict') = 0 LIMIT 5
SQL
cmp_ok($small->safe_psql('postgres', "SELECT evicted FROM plinth.stat_limits WHERE policy = 'brief'"), '>', 1000, 'idle ones were evicted');

# Full.
is( $small->safe_psql('postgres', "SELECT count(*) FILTER (WHERE (d).allowed) FROM (SELECT plinth.rate_limit_check('fill', 'f' || n) AS d FROM generate_series(1, 20000) n OFFSET 0) s")
	  + $small->safe_psql('postgres', "SELECT table_full FROM plinth.stat_limits WHERE policy = 'fill'"),
	20000, 'a new key without a place is denied, and counted');
cmp_ok($small->safe_psql('postgres', "SELECT table_full FROM plinth.stat_limits WHERE policy = 'fill'"), '>', 10000, 'the table is full');
cmp_ok($small->safe_psql('postgres', 'SELECT sum(entries) FROM plinth.stat_limits'), '>', 3300, 'and nearly all of it is used');
is( $small->safe_psql('postgres', "SELECT bool_and((d).allowed) FROM (SELECT plinth.rate_limit_check('open', 'o' || n) AS d FROM generate_series(1, 1000) n OFFSET 0) s"),
	't', 'with on_error allow it is allowed');
cmp_ok($small->safe_psql('postgres', "SELECT table_full FROM plinth.stat_limits WHERE policy = 'open'"), '>', 500, 'and counted');
is( $small->safe_psql('postgres', <<'SQL'), '', 'keys that have a place go on');
SELECT key, remaining FROM (SELECT key, count(*) FILTER (WHERE allowed) AS admitted FROM asked WHERE policy = 'strict' GROUP BY 1) a,
    LATERAL plinth.rate_limit_check('strict', 'k' || key, 0) d WHERE remaining <> 3 - admitted LIMIT 5
SQL
is( $small->safe_psql('postgres', "SELECT allowed, remaining, retry_after FROM plinth.rate_limit_check_all('{strict,fill}', 'no place', 1)"),
	'f|0|00:00:01', 'several at once: no place for one');
$small->safe_psql('postgres', "SELECT plinth.rate_limit_drop('fill')");
is($small->safe_psql('postgres', "SELECT entries FROM plinth.stat_limits WHERE policy = 'strict'"), 100, 'those of a dropped policy are gone, the others are not');
$small->stop('fast');

done_testing();
