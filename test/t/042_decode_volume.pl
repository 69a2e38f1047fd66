# What the decoder must bear: the slot moves on whoever writes, and whatever
# the size of a transaction its memory is bounded.  The target is away the
# whole time, so nothing here depends on what is acknowledged.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use Test::More;
use Time::HiRes qw(sleep);

my $node = PlinthTest::node('volume', conf => "plinth.sync_memory = '16MB'\nplinth.sync_checkpoint_interval = '200ms'");
$node->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE unsynced (id int)');
PlinthTest::sync_server($node, 'away', 'mongodb://127.0.0.1:1/', 'nowhere');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub decoder { return sql('SELECT pid FROM plinth.stat_decode'); }
sub lsn { return $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()'); }
sub confirmed_beyond
{
	my ($lsn) = @_;
	return wait_until(sub { sql("SELECT confirmed_flush_lsn >= '$lsn'::pg_lsn FROM pg_replication_slots") eq 't' }, 800);
}
# Peak of what the decoder had in memory, kB; shared memory aside.
sub peak
{
	my ($pid) = @_;
	my %size;
	open my $fh, '<', "/proc/$pid/status" or return 0;
	while (<$fh>) { $size{$1} = $2 if /^(\w+):\s+(\d+) kB/; }
	return $size{VmHWM} - $size{RssShmem};
}

sql("SELECT plinth.sync_table('t', 'away')");
ok(wait_until(sub { sql("SELECT count(*) FROM pg_replication_slots WHERE active") == 1 }), 'decoding');

# Others write.
sql('INSERT INTO unsynced SELECT generate_series(1, 1000)');
ok(confirmed_beyond(lsn()), 'the slot moves on while only a table that is not synced changes');
sql('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE TABLE o AS SELECT generate_series(1, 1000) g');
ok(confirmed_beyond(lsn()), 'and while only another database changes');
sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g");
ok(confirmed_beyond(lsn()), 'and while MongoDB is away');

# WAL is let go of, too.
sql('SELECT pg_switch_wal()');
my $old = sql('SELECT restart_lsn FROM pg_replication_slots');
ok( wait_until(
		sub {
			sql("SELECT pg_log_standby_snapshot()") if sql("SELECT count(*) FROM pg_proc WHERE proname = 'pg_log_standby_snapshot'");
			sql('CHECKPOINT; INSERT INTO unsynced VALUES (1)');
			sql("SELECT restart_lsn > '$old'::pg_lsn FROM pg_replication_slots") eq 't';
		}), 'WAL is let go of');

# Idle, it costs nothing to speak of.
my $pid = decoder();
sub ticks { open my $fh, '<', "/proc/$_[0]/stat" or die; my @f = split / /, <$fh>; return $f[13] + $f[14]; }
my $ticks;
ok( wait_until(
		sub {
			$ticks = ticks($pid);
			sleep 5;
			$ticks = ticks($pid) - $ticks;
			return $ticks <= 10;
		}), 'an idle decoder takes no CPU to speak of') or diag("$ticks ticks in 5 s");

# 200,000 subtransactions, and a million rows, with 4 MB for decoding.
my $before = peak($pid);
sql(<<'SQL');
DO $$
BEGIN
	FOR i IN 10000..209999 LOOP
		BEGIN
			INSERT INTO t VALUES (i, 'x');
		EXCEPTION WHEN unique_violation THEN
			NULL;
		END;
	END LOOP;
END $$
SQL
ok(confirmed_beyond(lsn()), '200,000 subtransactions are decoded');
my $after = peak($pid);
cmp_ok($after - $before, '<', 200 * 1024, 'in about 0.5 kB each') or diag("$before $after");
sql("BEGIN; INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(1000000, 1999999) g; ROLLBACK");
ok(confirmed_beyond(lsn()), 'a million rows that are rolled back');
sql("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(1000000, 1999999) g");
ok(confirmed_beyond(lsn()), 'a million rows');
my $last = peak($pid);
cmp_ok($last - $after, '<', 64 * 1024, 'take no more memory') or diag("$before $after $last");
is(decoder(), $pid, 'all in one process');

$node->stop;
done_testing();
