
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
	my ($node, $database, $service, $old, $timeout) = @_;
	return PlinthTest::wait_until(
		sub {
			my $pid = pid($node, $database, $service);
			return $pid if $pid ne '' && $pid ne ($old || '');
			return 0;
		},
		$timeout || 20);
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
		},
		20);
}

# "state: message" of a worker.
sub state_of
{
	my ($node, $database, $service) = @_;
	return $node->safe_psql('postgres',
		"SELECT concat_ws(': ', state, message) FROM plinth.stat_workers"
		  . " WHERE database = '$database' AND service = '$service'");
}

1;
