
=pod

=head1 NAME

AuditTest - what the tests of audit events share

=cut

package AuditTest;

use strict;
use warnings;

use PlinthTest;

# Enables audit events in a database and waits until they can be recorded.
sub enable
{
	my ($node, $dbname) = @_;
	$dbname ||= 'postgres';
	$node->safe_psql($dbname, 'SELECT plinth.audit_event_enable()');
	return ready($node, $dbname);
}

# Waits until they can be recorded; false when they never can.
sub ready
{
	my ($node, $dbname) = @_;
	return PlinthTest::wait_until(
		sub { (PlinthTest::ask($node, $dbname || 'postgres', 'SELECT ready FROM plinth.stat_audit') // '') eq 't' });
}

# How many entries of an action are stored.
sub stored
{
	my ($node, $action, $dbname) = @_;
	return PlinthTest::ask($node, $dbname || 'postgres', "SELECT count(*) FROM plinth.audit_entries WHERE action = '$action'") // -1;
}

# Waits until there are so many; false when there never are, or more.
sub wait_stored
{
	my ($node, $action, $count, $dbname) = @_;
	return PlinthTest::wait_until(sub { stored($node, $action, $dbname) >= $count }) && stored($node, $action, $dbname) == $count;
}

# Waits until the decoder has stored all that is in the WAL now.
sub caught_up
{
	my ($node, $dbname) = @_;
	$dbname ||= 'postgres';
	my $lsn = $node->safe_psql($dbname, "SELECT pg_logical_emit_message(true, 'mark', '')");
	return PlinthTest::wait_until(
		sub { (PlinthTest::ask($node, $dbname, "SELECT decoded >= '$lsn' FROM plinth.stat_decode") // '') eq 't' });
}

1;
