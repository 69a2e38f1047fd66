# A backend killed -9 inside each critical section of rate limits, meters and
# leases, by name: stopped at moments that nobody chose until it is found there.
# The server comes back, what was saved or flushed is there, leases are free.
use strict;
use warnings;

use InsideTest qw(stop_inside);
use PlinthTest qw(wait_until);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(stat);

my $node = PlinthTest::node('main', conf => "plinth.limits_save_interval = '100ms'\nplinth.meter_flush_interval = '1h'\nautovacuum = off\n");
my $file = $node->data_dir . '/pg_stat/plinth_limits.stat';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Starts statements in a connection of their own, and tells its process.
sub victim
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ], '<', '/dev/null', '>', \$out, '2>', \$err);
	my $pid;
	wait_until(sub { $pid = sql("SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'") })
	  || die "nobody is at work: $err";
	return ($psql, $pid);
}

# A save that began after this call has ended.
my $saves = 0;
sub saved
{
	foreach my $n (1 .. 2)
	{
		my $before = (stat $file)[9] // 0;
		$saves++;
		sql("SELECT plinth.rate_limit_allow('keep', 'save $saves')");
		return 0 unless wait_until(sub { ((stat $file)[9] // 0) != $before });
	}
	return 1;
}

sub loop { return "DO \$\$ BEGIN FOR i IN 1 .. 100000000 LOOP $_[0] END LOOP; END \$\$" }

sql(<<'SQL');
SELECT plinth.rate_limit_create('keep', 10, '300 days', scope => 'key'), plinth.rate_limit_create('brief', 1000, '1 s', burst => 1, scope => 'key'),
    plinth.rate_limit_create('come', 10, '1 s', scope => 'key'), plinth.meter_create('m', scale => 0), plinth.meter_create('q', scale => 0, hard_quota => '{"month": 1000000000}');
SELECT plinth.rate_limit_check('keep', 'a', 4), plinth.meter_add('m', 5, 'a'), plinth.meter_flush();
SQL
ok(saved(), 'a limit is saved, a meter flushed');

foreach my $case (
	[ 'a new key', 'plinth_limits_table_decide|claim|decide_absent|give_back|is_idle', loop("PERFORM plinth.rate_limit_allow('brief', 'b' || i);") ],
	[ 'a decision without a lock', 'find|decide_found|plinth_limits_table_decide|plinth_rate_decide', loop("PERFORM plinth.rate_limit_allow('come', 'hot');") ],
	[ 'several at once', 'plinth_limits_table_decide_all|take|claim', loop("PERFORM plinth.rate_limit_check_all('{brief,come}', 'b' || i);") ],
	[ 'a reset', 'plinth_limits_table_reset', loop("PERFORM plinth.rate_limit_allow('come', 'r' || i % 10), plinth.rate_limit_reset('come', 'r' || i % 10);") ],
	[ 'forgetting a policy', 'plinth_limits_table_purge', loop("PERFORM plinth.rate_limit_create('gone', 1, '1 s'); COMMIT; PERFORM plinth.rate_limit_drop('gone'); COMMIT;") ],
	[ 'statistics', 'plinth_limits_table_visit|visit_key', loop('PERFORM FROM plinth.stat_limits;') ],
	[ 'saving', 'plinth_limits_table_copy|put_entries|write_file|save', undef ],
	[ 'counting', 'plinth_limits_meter_count|count_locked|ensure_entry|ensure_slot|ensure_room|put_text|find_entry|has_slots|take_cell',
		loop("PERFORM plinth.meter_add('m', 1, 'k' || i % 1000, 'd' || i % 7);") ],
	[ 'deciding by a quota', 'plinth_limits_meter_count|count_locked|know_use|ensure_\w+|find_entry|has_slots', loop("PERFORM plinth.meter_check('q', 1, 'k' || i % 10);") ],
	[ 'evicting', 'plinth_limits_meter_evict|is_clean|free_cells', loop("PERFORM plinth.meter_add('m', 1, repeat('long', 200) || i); IF i % 2000 = 0 THEN PERFORM plinth.meter_flush(); COMMIT; END IF;") ],
	[ 'taking for a flush', 'plinth_limits_meter_take|take_slot|plinth_limits_meter_walk|plinth_limits_meter_text', loop("PERFORM plinth.meter_add('m', 1, 'f' || n) FROM generate_series(1, 50) n; PERFORM plinth.meter_flush(); COMMIT;") ],
	[ 'ending a flush', 'land|plinth_limits_meter_taken_written', loop("PERFORM plinth.meter_add('m', 1, 'f' || n) FROM generate_series(1, 1000) n; PERFORM plinth.meter_flush(); COMMIT;") ],
	[ 'reading', 'plinth_limits_meter_pending|find_entry', loop("PERFORM plinth.meter_read('m', 'a');") ],
	[ 'acquiring a lease', 'take|plinth_limits_lease_take|add_lease|add_group|find_group|remove_useless|remove_expired_of',
		loop("PERFORM plinth.lease_acquire('l', 'k' || i % 100, 1000000, '1 us', 'none');") ],
	[ 'giving one back', 'plinth_limits_lease_give|remove_lease|remove_group|find_lease', loop("PERFORM plinth.lease_release(plinth.lease_acquire('l', 'k', 5));") ])
{
	my ($what, $functions, $sql) = @$case;
	my ($psql, $pid);

	if ($sql)
	{
		($psql, $pid) = victim($sql);
	}
	else
	{
		# The launcher, which has to do as long as something changes.
		($psql) = victim(loop("PERFORM plinth.rate_limit_allow('come', 's' || i % 100);"));
		$pid = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'plinth launcher'");
	}
	my $found = stop_inside($pid, $functions);
	isnt($found, '', "$what: a process is stopped inside" . ($found eq 'somewhere' ? '; where is not to be seen' : ''));
	diag("$what: $found") if $ENV{PLINTH_LONG};
	my $offset = -s $node->logfile;
	kill 'KILL', $pid;
	$psql->finish;
	ok(wait_until(sub { slurp_file($node->logfile, $offset) =~ /reinitializing.*database system is ready to accept connections/s }),
		"$what: killed there, the server comes back");
	is( sql("SELECT d.remaining, plinth.meter_read('m', 'a'), (SELECT count(*) FROM plinth.stat_leases) FROM plinth.rate_limit_check('keep', 'a', 0) d"),
		'6|5|0', "$what: with what was saved and flushed, and all leases free");
	is( sql("SELECT plinth.rate_limit_allow('come', 'after'), plinth.lease_release(plinth.lease_acquire('l', 'k', 1)), plinth.meter_add('m', 1, 'after'), plinth.meter_flush() > 0"),
		't|t||t', "$what: all of them work");
}
is(sql("SELECT plinth.meter_read('m', 'after')"), '15', 'no amount was flushed twice, or lost after it was');
is(sql("SELECT count(*) FROM (SELECT FROM plinth.meter_usage GROUP BY meter_id, key, dimension HAVING sum(amount) FILTER (WHERE period = 'month') <> sum(amount) FILTER (WHERE period = 'total')) s"),
	'0', 'months and totals have the same sums');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP:|stuck spinlock|signal 11/, 'nothing went wrong that should not');
$node->stop('fast');
done_testing();
