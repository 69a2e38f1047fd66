
=pod

=head1 NAME

WorkerTest - what the tests of room worker look at

=cut

package WorkerTest;

use strict;
use warnings;

use PlinthTest;

# Pid of a worker of a database, '' while it does not run.  database '' is the launcher's.
sub pid
{
	my ($node, $database, $service, $instance) = @_;
	$instance ||= 0;
	return $node->safe_psql('postgres',
		"SELECT pid FROM plinth.stat_workers WHERE coalesce(database, '') = '$database'"
		  . " AND service = '$service' AND instance = $instance AND state <> 'starting'");
}

# Waits until a worker runs (another process than old, when given); its pid.
sub wait_for_worker
{
	my ($node, $database, $service, $old) = @_;
	return PlinthTest::wait_until(
		sub {
			my $pid = pid($node, $database, $service);
			return $pid if $pid ne '' && $pid ne ($old || '');
			return 0;
		});
}

# Waits until no process of ours is connected to a database.
sub wait_for_none
{
	my ($node, $database) = @_;
	return PlinthTest::wait_until(
		sub {
			$node->safe_psql('postgres',
				"SELECT count(*) = 0 FROM pg_stat_activity"
				  . " WHERE datname = '$database' AND backend_type LIKE 'plinth %'") eq 't';
		});
}

# "state: message" of a worker.
sub state_of
{
	my ($node, $database, $service) = @_;
	return $node->safe_psql('postgres',
		"SELECT concat_ws(': ', state, message) FROM plinth.stat_workers"
		  . " WHERE database = '$database' AND service = '$service'");
}

# Signals a worker (where there are several of the service, the one of that
# instance); returns its pid.
sub signal_worker
{
	my ($signal, $node, $database, $service, $instance) = @_;
	my $pid = wait_for_worker($node, $database, $service);
	$pid = $node->safe_psql('postgres',
		"SELECT pid FROM plinth.stat_workers WHERE database = '$database' AND service = '$service' AND instance = $instance")
	  if defined $instance;
	die "no $service in $database" unless $pid =~ /^[1-9]\d*$/;
	kill $signal, $pid;
	return $pid;
}

# Stops a worker by a signal that it cannot answer, while it waits with no lock
# in its hands, so that nobody waits for it; returns its pid.
sub freeze
{
	my ($node, $database, $service, $instance) = @_;
	my $frozen = PlinthTest::wait_until(
		sub {
			my $pid = signal_worker('STOP', $node, $database, $service, $instance);
			my $late;
			my ($rc, $waits) = $node->psql('postgres',
				"SELECT count(*) FROM pg_stat_activity a WHERE pid = $pid AND wait_event_type = 'Extension'"
				  . ' AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid)',
				timeout => 10, timed_out => \$late);
			return $pid if !$late && $waits eq '1';
			kill 'CONT', $pid;
			return 0;
		});
	return $frozen || die "the $service of $database never waits";
}

# Gives a database something to deliver, to a MongoDB that is not there: a
# decoder with its slot, and a lane.  Waits for them.
sub deliver
{
	my ($node, $database) = @_;
	$node->safe_psql($database, 'DROP TABLE IF EXISTS things; DROP SERVER IF EXISTS docs CASCADE');
	PlinthTest::sync_server($node, 'docs', 'mongodb://127.0.0.1:9', 'nowhere', dbname => $database);
	$node->safe_psql($database,
		"CREATE TABLE things (id int PRIMARY KEY); SELECT plinth.sync_table('things', 'docs')");
	wait_for_worker($node, $database, 'lane') or die "no lane in $database";
	return wait_for_slot($node, $database, 1);
}

# Waits until a database has so many slots that are in use.
sub wait_for_slot
{
	my ($node, $database, $count) = @_;
	return PlinthTest::wait_until(
		sub {
			$node->safe_psql('postgres',
				"SELECT count(*) FROM pg_replication_slots WHERE database = '$database' AND active") eq $count;
		}) || die "no slot of $database is in use";
}

# kB of memory that a process has had at most and shares with nobody: everything
# but the shared memory and the files that it has in memory now; 0 once it is gone.
sub peak
{
	my ($pid) = @_;
	my %size;
	open my $fh, '<', "/proc/$pid/status" or return 0;
	while (<$fh>) { $size{$1} = $2 if /^(\w+):\s+(\d+) kB/; }
	return ($size{VmHWM} // 0) - ($size{RssShmem} // 0) - ($size{RssFile} // 0);
}

1;
