# Limits, leases, meters and caches for a long time: nothing grows, nothing
# fails, nothing is lost.  Clients keep their connections all the while.
#
# PLINTH_SOAK_SECONDS: how long (default 20, with PLINTH_LONG an hour).
use strict;
use warnings;

use IPC::Run;
use PlinthTest qw(node wait_until);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{PLINTH_SOAK_SECONDS} || ($ENV{PLINTH_LONG} ? 3600 : 20);
my $clients = 4;
my $node    = node('soak', conf => "plinth.cache_memory = '4MB'\nplinth.limits_memory = '2MB'\nlog_min_messages = warning\n");

$node->safe_psql('postgres', <<'SQL');
SELECT plinth.rate_limit_create('soak', 1000, '1 second');
SELECT plinth.meter_create('soak', scale => 3, periods => '{minute,hour}');
SELECT plinth.cache_create('soak', ttl => '3 s', per_user => false, max_bytes => 1000000);
SELECT plinth.cache_create('kept', ttl => '3 s', per_user => false, durable => true, max_bytes => 1000000);
CREATE TABLE source (k int PRIMARY KEY, v int NOT NULL);
INSERT INTO source SELECT i, 0 FROM generate_series(1, 500) i;
SELECT plinth.cache_watch('soak', 'source', key_expression => 'k::text');
CREATE TABLE metered (n numeric NOT NULL);
-- One turn: sizes from nothing to larger than what is kept, keys few and many.
CREATE PROCEDURE turn() LANGUAGE plpgsql AS $$
DECLARE
	n int := 1 + floor(random() ^ 3 * 500);
	many text := 'k' || floor(random() * 2000);
	amount numeric := round((random() * 10)::numeric, 3);
	lease uuid;
BEGIN
	CASE floor(random() * 10)
		WHEN 0, 1 THEN PERFORM plinth.cache_fetch('soak', n::text, 'SELECT v FROM source WHERE k = $1::int', ARRAY[n::text]);
		WHEN 2 THEN PERFORM plinth.cache_set_text('soak', many, repeat('x', (random() ^ 6 * 300000)::int), tags => ARRAY['t' || n]);
		WHEN 3 THEN PERFORM plinth.cache_get_text('soak', many);
		WHEN 4 THEN UPDATE source s SET v = s.v + 1 WHERE s.k = n;
		WHEN 5 THEN PERFORM plinth.cache_invalidate_tag('soak', 't' || n);
		WHEN 6 THEN PERFORM plinth.cache_set('kept', n::text, to_jsonb(random()));
		WHEN 7 THEN
			PERFORM plinth.rate_limit_check('soak', many);
			PERFORM plinth.rate_limit_check_adhoc('adhoc:' || many, 10, '1 second');
		WHEN 8 THEN
			PERFORM plinth.meter_add('soak', amount, 'm' || n);
			INSERT INTO metered VALUES (amount);
		ELSE
			lease := plinth.lease_acquire('soak', 'l' || n % 10, 2, '10 s');
			IF random() < 0.9 THEN
				PERFORM plinth.lease_release(lease) WHERE lease IS NOT NULL;
			END IF;
	END CASE;
END $$;
SQL

# Private memory of the clients' backends and of our workers, in kB.
sub memory
{
	my %kb;
	foreach my $row (split /\n/, $node->safe_psql('postgres', q{SELECT pid, backend_type, application_name FROM pg_stat_activity
		WHERE application_name = 'soaking' OR backend_type LIKE 'plinth%'}))
	{
		my ($pid, $type) = split /\|/, $row;
		my $status = eval { slurp_file("/proc/$pid/status") } // next;
		my ($private) = $status =~ /^RssAnon:\s+(\d+) kB/m;
		$kb{"$type $pid"} = $private;
	}
	return %kb;
}

my $script = PostgreSQL::Test::Utils::tempdir() . '/turn.sql';
append_to_file($script, "CALL turn();\n");
my ($out, $err) = ('', '');
my $bench = IPC::Run::start(
	[ 'pgbench', '-n', '-M', 'prepared', '-c', $clients, '-T', $seconds, '-f', $script, '-d', $node->connstr('postgres') . ' application_name=soaking' ],
	'>', \$out, '2>', \$err);
ok(wait_until(sub { grep(/^client/, keys %{ { memory() } }) == $clients }), 'clients work');

# What is kept for good is there after the first third.
my $begin = time;
sleep(1) while time < $begin + $seconds / 3;
my %early = memory();
sleep(1) while time < $begin + $seconds * 0.9 - 2;
my %late = memory();
$bench->finish;
is($bench->result(0), 0, 'no client met an error') or diag $err;
my ($turns) = $out =~ /actually processed: (\d+)/;
cmp_ok($turns // 0, '>', $seconds, 'many turns were made');

my @both = grep { exists $late{$_} } keys %early;
cmp_ok(scalar @both, '>=', $clients, 'the same processes were looked at twice');
my @grown = map { "$_: $early{$_} kB, then $late{$_}" } grep { $late{$_} > $early{$_} * 1.1 + 1024 } @both;
is("@grown", '', 'no process grew');

# The caches account for all of their memory, and hold no more than they may.
is($node->safe_psql('postgres', 'SELECT in_flux FROM plinth._cache_check()'), '0', 'every block is accounted for, nothing in flux');
my $bytes = $node->safe_psql('postgres', q{SELECT bytes FROM plinth.stat_cache WHERE name = 'soak'});
cmp_ok($bytes, '<=', 1_000_000, 'a cache holds what it may at most');
cmp_ok($node->safe_psql('postgres', q{SELECT evictions + expirations FROM plinth.stat_cache WHERE name = 'soak'}), '>', 0, 'entries made place');
ok(wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM plinth.cache_durable_entries WHERE expires_at < now()}) == 0 }),
	'what expired was purged from the table');

# Not a thousandth of the usage was lost or counted twice.
is($node->safe_psql('postgres', q{SELECT sum(plinth.meter_read('soak', 'm' || k)) = (SELECT sum(n) FROM metered) FROM generate_series(1, 500) k}),
	't', 'usage is what was metered');
ok(wait_until(sub { $node->safe_psql('postgres', q{SELECT pending = 0 FROM plinth.stat_meters WHERE name = 'soak'}) eq 't' }), 'usage was flushed');

my $log = slurp_file($node->logfile);
my @bad = grep { !/FATAL:  terminating/ } $log =~ /^.*(?:ERROR|FATAL|PANIC|WARNING):.*$/mg;
is("@bad[0 .. ($#bad > 4 ? 4 : $#bad)]", '', 'nothing in the log');

$node->stop;
done_testing();
