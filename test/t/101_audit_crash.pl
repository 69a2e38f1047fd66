# Audit events through kill -9 of the decoder and of the server at any moment:
# none that was flushed is lost, none is stored twice; and of what was not
# flushed, no more than the WAL writer leaves behind.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AuditTest;
use IPC::Run;
use PlinthTest qw(node wait_until within_ok);
use PostgreSQL::Test::Utils;
use Test::More;
use WorkerTest;

my $rounds = $ENV{PLINTH_LONG} ? 30 : 1;
my $node = node('crash', conf => "plinth.worker_restart_delay = '50ms'");
my $file = PostgreSQL::Test::Utils::tempdir() . '/called';

sub sql { return $node->safe_psql('postgres', $_[0]); }

ok(AuditTest::enable($node), 'events');
sql('CREATE TABLE called (n int, id uuid)');

# Waits until the server that a killed process took along answers again.
sub answers_again
{
	return wait_until(sub { PlinthTest::answers($node) });
}

# Calls flushed events, as many as there is time for; what returned is in $file.
sub begin_calls
{
	my ($action) = @_;
	return IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
			"COPY (SELECT i, plinth.audit_event('$action', i::text, flush => true) FROM generate_series(1, 300000) i) TO STDOUT" ],
		'<', '/dev/null', '>', $file, '2>', '/dev/null');
}

# What returned is stored, once; what did not return, at most once.
sub check_calls
{
	my ($action, $name) = @_;
	# The last line may be cut.
	my $called = slurp_file($file);
	$called =~ s/[^\n]*\z//;
	open my $fh, '>', $file or die "$file: $!";
	print $fh $called;
	close $fh;
	chmod 0644, $file;
	sql('TRUNCATE called');
	$node->command_ok([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "\\copy called FROM '$file'" ], "$name: what returned is read");
	ok(wait_until(sub { sql("SELECT count(*) FROM called c LEFT JOIN plinth.audit_entries e ON e.id = c.id AND e.resource = c.n::text AND e.action = '$action' WHERE e.id IS NULL") == 0 }),
		"$name: every event that returned is stored") or diag(sql("SELECT count(*) FROM called"));
	ok(AuditTest::caught_up($node), "$name: the rest is decoded");
	is(sql("SELECT count(*) - count(DISTINCT resource) FROM plinth.audit_entries WHERE action = '$action'"), 0, "$name: none is stored twice");
	is(sql("SELECT count(*) - count(DISTINCT id) FROM plinth.audit_entries"), 0, "$name: no id is there twice");
	note("$name: " . sql('SELECT count(*) FROM called') . ' returned, ' . AuditTest::stored($node, $action) . ' stored');
	return;
}

foreach my $round (1 .. $rounds)
{
	foreach my $victim ('decoder', 'postmaster', 'decoder, quietly')
	{
		(my $action = "$victim $round") =~ s/, quietly/ stopped/;
		my $calls = begin_calls($action);
		my $some = 200 + int rand 1500;
		ok(wait_until(sub { AuditTest::stored($node, $action) >= $some }), "$action: at least $some are stored");
		if ($victim eq 'postmaster')
		{
			# With all its children at once, or the one that calls would go on.
			my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
			kill 'KILL', $postmaster, split /\n/, sql('SELECT pid FROM pg_stat_activity');
			$calls->finish;
			ok(PlinthTest::start_again($node), "$action: started again");
		}
		elsif ($victim eq 'decoder')
		{
			kill 'KILL', WorkerTest::wait_for_worker($node, 'postgres', 'decoder');
			$calls->finish;
			ok(answers_again(), "$action: the server is back");
		}
		else
		{
			# Only the decoder ends, in the middle of whatever it does; the calls go on.
			my $pid = WorkerTest::wait_for_worker($node, 'postgres', 'decoder');
			sql("SELECT pg_terminate_backend($pid)");
			ok(wait_until(sub { AuditTest::stored($node, $action) >= $some + 2000 }), "$action: the next one goes on");
			$calls->kill_kill;
		}
		check_calls($action, $action);
	}
}

#
# What was stored but not confirmed is told again: the same entries, not more.
#
sql("ALTER SYSTEM SET plinth.sync_checkpoint_interval = '10s'");
sql('SELECT pg_reload_conf()');
sql("SELECT count(plinth.audit_event('again', i::text)) FROM generate_series(1, 1000) i");
ok(AuditTest::wait_stored($node, 'again', 1000), 'stored');
my $stored = sql("SELECT max(source_lsn) FROM plinth.audit_entries WHERE action = 'again'");
# Once the commit that stored them is on disk they cannot be stored anew.
sql("SELECT pg_logical_emit_message(true, 'mark', ''); INSERT INTO called VALUES (0, NULL)");
kill 'KILL', WorkerTest::wait_for_worker($node, 'postgres', 'decoder');
ok(answers_again(), 'the decoder was killed');
ok(wait_until(sub { (PlinthTest::ask($node, 'postgres', "SELECT decoded > '$stored' FROM plinth.stat_decode") // '') eq 't' }), 'it reads on');
is(AuditTest::stored($node, 'again'), 1000, 'nothing is stored twice');
sql("ALTER SYSTEM RESET plinth.sync_checkpoint_interval");

#
# The bound of what may be lost: a WAL writer that does nothing by itself.
#
sql("ALTER SYSTEM SET wal_writer_delay = '10s'");
sql('SELECT pg_reload_conf()');
foreach my $round (1 .. $rounds)
{
	# Into memory only, by transactions that roll back; then one that is flushed takes those before it along.
	sql("BEGIN; SELECT count(plinth.audit_event('bound $round', 'before')) FROM generate_series(1, 100); ROLLBACK");
	sql("BEGIN READ ONLY; SELECT plinth.audit_event('bound $round', 'flushed', flush => true); ROLLBACK");
	kill 'KILL', WorkerTest::wait_for_worker($node, 'postgres', 'decoder');
	ok(answers_again(), 'killed at once');
	ok(AuditTest::wait_stored($node, "bound $round", 101), 'what was flushed is not lost, nor what came before it');
}
sql("ALTER SYSTEM SET wal_writer_delay = '50ms'");
sql('SELECT pg_reload_conf()');
foreach my $round (1 .. $rounds)
{
	# Nobody else has anything to flush meanwhile.
	my @still = (WorkerTest::freeze($node, 'postgres', 'decoder'), sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'"));
	kill 'STOP', @still;
	my $lsn = sql("BEGIN READ ONLY; SELECT plinth.audit_event('later $round'); SELECT pg_current_wal_insert_lsn(); ROLLBACK");
	$lsn =~ s/.*\n//s;
	within_ok(2, 'without being asked to, the WAL writer flushes', sub {
		wait_until(sub { sql("SELECT pg_current_wal_flush_lsn() >= '$lsn'") eq 't' });
	});
	kill 'KILL', $still[0];
	kill 'CONT', @still;
	ok(answers_again(), 'killed then');
	ok(AuditTest::wait_stored($node, "later $round", 1), 'it is not lost');
}

is(sql("SELECT count(*) FROM plinth.audit_entries WHERE action LIKE 'plinth.audit_event%'"), 0, 'nothing was refused, nothing lost');
is(sql('SELECT pending_entries FROM plinth.stat_audit'), 0, 'nothing waits');
$node->stop;
done_testing();
