# The caches' memory through what goes wrong: transactions that fail, hang or
# are killed between the two halves of their commit, killed backends, immediate
# stops, memory that is full, a database and the extension dropped in use, and
# promotion.  After each the memory must account for every block, nothing may be
# left in flux, and the caches must work.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PlinthTest qw(node wait_until);
use Test::More;
use Time::HiRes qw(sleep);

# Only those that say so wait for a synchronous standby, which never comes.
$ENV{PGOPTIONS} = '-c synchronous_commit=local';

my $rounds = $ENV{PLINTH_LONG} ? 40 : 5;
my $node   = node('crash', conf => "plinth.cache_memory = '1MB'\n");

my $setup = <<'SQL';
SELECT plinth.cache_create('c', per_user => false);
SELECT plinth.cache_create('bounded', max_bytes => 20000, per_user => false);
CREATE TABLE t (k int PRIMARY KEY, v int NOT NULL);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) i;
CREATE PROCEDURE churn(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	ticket_ bigint;
	v_ int;
	k_ int;
BEGIN
	FOR i IN 1 .. rounds LOOP
		k_ := 1 + floor(random() * 20);
		CASE floor(random() * 5)
			WHEN 0 THEN
				ticket_ := plinth.cache_ticket('c');
				SELECT v INTO v_ FROM t WHERE k = k_;
				PERFORM plinth.cache_set('c', 'k' || k_, to_jsonb(v_), ticket => ticket_);
			WHEN 1 THEN
				PERFORM plinth.cache_set('c', 'big' || floor(random() * 10000), to_jsonb(repeat('x', (random() ^ 4 * 100000)::int)));
			WHEN 2 THEN
				PERFORM plinth.cache_set('bounded', 'k' || k_, to_jsonb(repeat('x', (random() * 10000)::int)));
			WHEN 3 THEN
				UPDATE t SET v = v + 1 WHERE k = k_;
				PERFORM plinth.cache_delete('c', 'k' || k_);
			ELSE
				PERFORM plinth.cache_delete_prefix('c', 'big' || floor(random() * 10));
		END CASE;
		COMMIT;
	END LOOP;
END $$;
SQL
$node->safe_psql('postgres', $setup);

sub value
{
	my ($sql, $dbname) = @_;
	return $node->safe_psql($dbname || 'postgres', "SELECT $sql");
}

# Starts SQL in a session of its own.
sub start_sql
{
	my ($dbname, @sql) = @_;
	my %session = (in => '', out => '', err => '');
	$session{run} = IPC::Run::start(
		[ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($dbname), map { ('-c', $_) } @sql ],
		'<', \$session{in}, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

# Is everything as if nothing had happened?
sub sound
{
	my ($name) = @_;
	my $account = $node->safe_psql('postgres', 'SELECT in_flux FROM plinth._cache_check()');
	my $worked = $node->safe_psql('postgres',
		"SELECT plinth.cache_set('c', 'probe', '1'); SELECT plinth.cache_get('c', 'probe');"
		  . "SELECT plinth.cache_delete('c', 'probe'); SELECT coalesce(plinth.cache_get('c', 'probe')::text, 'gone')");
	is("$account $worked", "0 t\n1\n\ngone", "$name: memory accounts for all, nothing is in flux, caches work");
	# No entry that can be read is older than the truth.
	is($node->safe_psql('postgres', "SELECT count(*) FROM t WHERE plinth.cache_get('c', 'k' || k) <> to_jsonb(v)"),
		0, "$name: no value is old");
	return;
}

sub comes_back
{
	my ($killed) = @_;
	return PlinthTest::begun_anew($node, $killed) || BAIL_OUT('the server does not come back');
}

# A transaction whose commit waits after its first half, and its process.
sub start_hanging
{
	my ($sql) = @_;
	my $session = start_sql('postgres', 'SET synchronous_commit = on', $sql);
	my $pid;
	wait_until(sub { $pid = value("pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'") });
	$session->{pid} = $pid;
	return $session;
}

# ---- between the two halves of a commit ----

value(q{plinth.cache_set('c', 'k1', to_jsonb(v), tags => '{a}') FROM t WHERE k = 1});
value(q{plinth.cache_set('c', 'k2', to_jsonb(v)) FROM t WHERE k = 2});
is(value(q{plinth.cache_get('c', 'k1')}), 0, 'a value');
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;

my $change = q{UPDATE t SET v = v + 1 WHERE k = 1; SELECT plinth.cache_invalidate_tag('c', 'a'), plinth.cache_delete('c', 'k1')};
my $hanging = start_hanging("BEGIN; $change; COMMIT");
ok($hanging->{pid}, 'a commit hangs');
is(value('in_flux FROM plinth._cache_check()'), 2, 'its slots are in flux');
is(value(q{coalesce(plinth.cache_get('c', 'k1')::text, 'none')}), 'none', 'what it invalidated is not given out');
value(q{plinth.cache_set('c', 'k1', to_jsonb(v)) FROM t WHERE k = 1});
is(value(q{coalesce(plinth.cache_get('c', 'k1')::text, 'none')}), 'none', 'nor taken from others');
is(value(q{plinth.cache_get('c', 'k2')}), 0, 'another is not touched');
value("pg_terminate_backend($hanging->{pid})");
$hanging->{run}->finish;
ok(wait_until(sub { value('in_flux FROM plinth._cache_check()') eq '0' }), 'terminated, it ends its flux');
is(value('v FROM t WHERE k = 1'), 1, 'and has committed');
sound('terminated between');
is(value(q{plinth.cache_set('c', 'k1', to_jsonb(v)) FROM t WHERE k = 1}), 't', 'the key can be set again');
is(value(q{plinth.cache_get('c', 'k1')}), 1, 'and read');

$hanging = start_hanging("BEGIN; $change; COMMIT");
my $old_ticket = value(q{plinth.cache_ticket('c')});
kill 'KILL', $hanging->{pid};
$hanging->{run}->finish;
comes_back($hanging->{pid});
is(value(q{coalesce(plinth.cache_get('c', 'k2')::text, 'none')}), 'none', 'killed, it takes all memory with it');
sound('killed between');

$hanging = start_hanging("BEGIN; $change; COMMIT");
$node->stop('immediate');
$hanging->{run}->finish;
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->start;
sound('stopped between');

# An error after the first half: both read what the other writes.
value(q{plinth.cache_set('c', 'k3', to_jsonb(v), tags => '{a}') FROM t WHERE k = 3});
my $one = $node->background_psql('postgres', on_error_stop => 0);
my $skew = 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t WHERE k IN (3, 4);';
$one->query_safe($skew . q{UPDATE t SET v = v + 1 WHERE k = 3; SELECT plinth.cache_delete('c', 'k3'), plinth.cache_invalidate_tag('c', 'a')});
my $two = $node->background_psql('postgres');
$two->query($skew . 'UPDATE t SET v = v + 1 WHERE k = 4');
$two->query('COMMIT');
$one->query('COMMIT');
is(value('v FROM t WHERE k = 3'), 0, 'a commit fails');
$one->quit;
$two->quit;
sound('failed between');

# ---- killed at random ----

foreach my $round (1 .. $rounds)
{
	my @clients = map { start_sql('postgres', 'CALL churn(1000000)') } 1 .. 4;
	my @pids;
	wait_until(sub { @pids = split /\n/, value(q{pid FROM pg_stat_activity WHERE query LIKE 'CALL churn%' AND state = 'active'}); @pids == 4 });
	sleep rand 0.3;
	my $victim = $pids[ rand @pids ];
	kill 'KILL', $victim;
	$_->{run}->finish foreach @clients;
	comes_back($victim);
	sound("killed at random, $round");
}

# ---- memory that is full ----

my @clients = map { start_sql('postgres', 'CALL churn(3000)') } 1 .. 4;
ok($_->{run}->finish, 'a client fills the memory') or diag($_->{err}) foreach @clients;
sound('full');
cmp_ok(value(q{sum(evictions) FROM plinth.stat_cache}), '>', 0, 'entries were evicted')
  if value(q{to_regclass('plinth.stat_cache') IS NOT NULL}) eq 't';
value(q{plinth.cache_clear('c'), plinth.cache_clear('bounded')});
is(value('used, entries FROM plinth._cache_check()'), '0|0', 'and all of it comes back');

# ---- databases and the extension, dropped in use ----

$node->safe_psql('postgres', 'CREATE DATABASE doomed');
$node->safe_psql('doomed', "CREATE EXTENSION plinth; $setup");
value(q{plinth.cache_set('c', 'here', '1')});
@clients = map { start_sql('doomed', 'CALL churn(1000000)') } 1 .. 4;
ok(wait_until(sub { value('entries FROM plinth._cache_check()') > 5 }), 'another database is at work');
$node->safe_psql('postgres', 'DROP DATABASE doomed WITH (FORCE)');
$_->{run}->finish foreach @clients;
ok(wait_until(sub { value('used, entries FROM plinth._cache_check()') eq '1|1' }), 'dropped, it gives its memory back');
is(value(q{plinth.cache_get('c', 'here')}), 1, 'and takes nothing of others');
sound('database dropped');

$node->safe_psql('postgres', q{SELECT plinth.cache_set('c', 'old', '"old"'), plinth.cache_set('c', 'old' || i, '"old"') FROM generate_series(1, 50) i});
my $session = $node->background_psql('postgres');
is($session->query_safe(q{SELECT plinth.cache_get('c', 'old')}), '"old"', 'a session that stays');
my $ticket = $session->query_safe(q{SELECT plinth.cache_ticket('c')});
$node->safe_psql('postgres', 'DROP EXTENSION plinth');
$node->safe_psql('postgres', "CREATE EXTENSION plinth; DROP TABLE t; DROP PROCEDURE churn; $setup");
is($session->query_safe(q{SELECT coalesce(plinth.cache_get('c', 'old')::text, 'none')}), 'none',
	'a cache of the same name and number has nothing of the old one');
is($session->query_safe(qq{SELECT plinth.cache_set('c', 'x', '1', ticket => $ticket), coalesce(plinth.cache_get('c', 'x')::text, 'none')}),
	'f|none', 'nor takes a value by its ticket');
is($session->query_safe(qq{SELECT plinth.cache_set('c', 'x', '1', ticket => t) FROM unnest('{$old_ticket,0,-1,1,9223372036854775807}'::bigint[]) t}),
	join("\n", ('f') x 5), 'nor by one from before a restart, or one made up');
$session->quit;
is(value('entries FROM plinth._cache_check()'), 0, 'whose memory came back');
sound('extension dropped');

# ---- a standby, promoted ----

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$session = $standby->background_psql('postgres');
is($session->query_safe(q{SELECT plinth.cache_set('c', 's', '1'), plinth.cache_ticket('c'), coalesce(plinth.cache_get('c', 's')::text, 'none')}),
	'f|0|none', 'a standby keeps nothing in memory');
$standby->promote;
is($session->query_safe(q{SELECT plinth.cache_set('c', 's', '1'); SELECT plinth.cache_get('c', 's')}), "t\n1", 'promoted, it does');
is($session->query_safe('SELECT entries, in_flux FROM plinth._cache_check()'), '1|0', 'from the beginning');
$session->quit;
done_testing();
