# The life of a database's slot: created, refused to others, lost, asked for
# again, dropped.  No MongoDB is needed: the target is never reachable.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $node = PlinthTest::node('decode', conf => "plinth.worker_restart_delay = '100ms'");
$node->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY, v text)');
PlinthTest::sync_server($node, 'away', 'mongodb://127.0.0.1:1/', 'nowhere');

my $slot = 'plinth_' . sql("SELECT oid FROM pg_database WHERE datname = 'postgres'");

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub want { return sql("SELECT plinth.sync_table('t', 'away')"); }
sub state { return sql('SELECT state FROM plinth.decode_state'); }
sub generation { return sql('SELECT slot_generation FROM plinth.decode_state') || 0; }
sub slots { return sql('SELECT count(*) FROM pg_replication_slots'); }
sub streaming
{
	return wait_until(sub { sql("SELECT count(*) FROM plinth.stat_decode d JOIN pg_replication_slots r USING (slot_name)"
		  . " WHERE d.state = 'ready' AND d.pid = r.active_pid") });
}
sub decoder { return sql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '$slot'"); }

# Stops the decoder, as often as it takes, and drops its slot before it is back.
sub drop_behind
{
	sql(<<"SQL");
DO \$\$
BEGIN
	FOR i IN 1..100000 LOOP
		PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '$slot';
		BEGIN
			PERFORM pg_drop_replication_slot('$slot');
			RETURN;
		EXCEPTION WHEN object_in_use THEN
			PERFORM pg_sleep(0.001);
		END;
	END LOOP;
	RAISE 'the slot stayed in use';
END \$\$
SQL
	return;
}

#
# No slot before anybody wants one.
#
is(slots(), 0, 'no slot before anything is synced');
is(sql('SELECT count(*) FROM plinth.stat_decode'), 0, 'nothing in stat_decode');

want();
ok(streaming(), 'sync_table brings a slot, and a decoder on it');
is(sql("SELECT plugin || ' ' || temporary || ' ' || two_phase FROM pg_replication_slots"), 'plinth false false', 'its kind');
my $first = generation();
is(sql("SET ROLE pg_monitor; SELECT slot_name FROM plinth.stat_decode"), $slot, 'pg_monitor sees it in stat_decode');
PlinthTest::psql_fails_like($node, 'postgres', "SET ROLE authenticated; SELECT * FROM plinth.stat_decode",
	qr/permission denied/, 'a user of the application does not');
PlinthTest::psql_fails_like($node, 'postgres', "SET ROLE plinth_admin; SELECT plinth._decode_request_slot()",
	qr/permission denied/, 'nor does an administrator ask for a slot but by resync and adopt');
cmp_ok($first, '>', 1_600_000_000_000, 'its generation follows the clock');

#
# Nobody else can use the plugin.
#
my $refused = qr/output plugin "plinth" serves only plinth's own decoder/;
PlinthTest::psql_fails_like($node, 'postgres', "SELECT pg_create_logical_replication_slot('x', 'plinth')",
	$refused, 'a slot by SQL');
PlinthTest::psql_fails_like($node, 'postgres', "SELECT pg_copy_logical_replication_slot('$slot', 'x')",
	$refused, 'a copy of our slot');
PlinthTest::psql_fails_like($node, 'postgres', "SELECT * FROM pg_logical_slot_peek_changes('$slot', NULL, NULL)",
	qr/is active for PID/, 'a peek at our slot');
command_fails_like([ 'pg_recvlogical', '-d', $node->connstr('postgres'), '--slot', 'x', '--create-slot', '-P', 'plinth' ],
	$refused, 'pg_recvlogical');
is(slots(), 1, 'and no slot is left of it');

#
# Killed, the decoder comes back to the same slot.
#
my $pid = decoder();
sql("SELECT pg_terminate_backend($pid)");
ok(wait_until(sub { my $now = decoder(); $now ne '' && $now ne $pid }), 'a decoder that was stopped is started again');
is(generation(), $first, 'with the same slot');
$pid = decoder();
kill 'KILL', $pid;
ok(wait_until(sub { my $out = PlinthTest::ask($node, 'postgres', 'SELECT active_pid FROM pg_replication_slots') // ''; $out ne '' && $out ne $pid }),
	'and after kill -9, which restarts the server');
is(generation(), $first, 'with the same slot');
is(state(), 'ready', 'nothing is lost');

#
# Dropped behind our back: lost, said, and not replaced by itself.
#
my $log = -s $node->logfile;
my $lost_at = time();
drop_behind();
ok(wait_until(sub { state() eq 'lost' }), 'a dropped slot is noticed');
is(sql("SELECT lost_reason FROM plinth.stat_decode"), "replication slot \"$slot\" does not exist", 'with the reason');
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_workers WHERE service = 'decoder'") eq 'slot lost' }), 'shown in stat_workers');
sleep 3;
is(slots(), 0, 'no slot is created behind the mappings\' back');
my $warnings = () = slurp_file($node->logfile, $log) =~ /WARNING:  plinth's decoder of database \d+ cannot go on: replication slot/g;
cmp_ok($warnings, '>=', 1, 'a line in the log');
cmp_ok($warnings, '<=', 1 + (time() - $lost_at) / 60, 'and one a minute');
sql("SELECT plinth.sync_resync('t')");
ok(streaming(), 'sync_resync brings a new one');
my $second = generation();
cmp_ok($second, '>', $first, 'of a later generation');
is(sql('SELECT plinth._decode_request_slot()'), 'f', 'a slot that is there is not made anew');

# The request comes before the decoder has noticed: rolled back, it changes nothing.
$node->stop;
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir . "/pg_replslot/$slot");
$node->start;
ok(wait_until(sub { state() eq 'lost' }), 'a slot that was not restored is noticed');
sql("BEGIN; SELECT plinth._decode_request_slot(); ROLLBACK");
sleep 2;
is(state(), 'lost', 'a request that is rolled back is none');
is(sql('SELECT plinth._decode_request_slot()'), 't', 'a request');
ok(streaming(), 'is served');
cmp_ok(generation(), '>', $second, 'with a later generation');

#
# Somebody else's slot under our name.
#
drop_behind();
sql("SELECT pg_create_physical_replication_slot('$slot')");
ok(wait_until(sub { state() eq 'lost' }), 'another slot under our name is not ours');
sql('SELECT plinth._decode_request_slot()');
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_workers WHERE service = 'decoder'") eq 'misconfigured' }), 'and is in the way');
PlinthTest::psql_fails_like($node, 'postgres', 'SELECT plinth._decode_require()', qr/exists but is not plinth's.*pg_drop_replication_slot/s,
	'which the check says, with the hint');
sql("SELECT pg_drop_replication_slot('$slot')");
ok(streaming(), 'dropped, it makes room');

#
# Beyond max_slot_wal_keep_size.
#
{
	my $before = generation();
	sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	sql('SELECT pg_reload_conf()');
	wait_until(sub { sql('SHOW max_slot_wal_keep_size') eq '1MB' });
	$pid = decoder();
	kill 'STOP', $pid;
	for (1 .. 4) { sql("SELECT pg_logical_emit_message(false, 'other', 'x'); SELECT pg_switch_wal()"); }
	my $checkpoint = $node->background_psql('postgres');
	$checkpoint->query_until(qr/go/, "\\echo go\nCHECKPOINT;\n");
	ok(wait_until(sub { slurp_file($node->logfile) =~ /terminating process $pid to release replication slot/ }), 'the server wants the slot\'s WAL back');
	kill 'CONT', $pid;
	$checkpoint->quit;
	ok(wait_until(sub { state() eq 'lost' }), 'an invalidated slot is lost');
	is(sql("SELECT lost_reason FROM plinth.stat_decode"), "replication slot \"$slot\" was invalidated", 'with the reason');
	sql("ALTER SYSTEM RESET max_slot_wal_keep_size");
	sql('SELECT pg_reload_conf()');
	sql("SELECT plinth.sync_resync('t')");
	ok(streaming(), 'sync_resync replaces it');
	cmp_ok(generation(), '>', $before, 'with a later generation');
}

#
# The last mapping goes, and with it the slot; a new one later.
#
my $third = generation();
sql("SELECT plinth.sync_drop('t')");
ok(wait_until(sub { slots() == 0 }), 'without a mapping there is no slot');
ok(wait_until(sub { state() eq 'none' }), 'nor is it lost');

# While it is created: it waits for whoever runs, and a stop does not wait.
my $running = $node->background_psql('postgres');
$running->query_safe('BEGIN');
$running->query_safe("INSERT INTO t VALUES (-1, 'x')");
want();
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_workers WHERE service = 'decoder'") eq 'creating slot' }), 'creation waits for running transactions');
ok(wait_until(sub { state() eq 'creating' }), 'and says so');
PlinthTest::within_ok(3, 'a fast stop is fast meanwhile', sub { $node->stop('fast') });
eval { $running->quit };
$node->start;
ok(streaming(), 'then it is created');
cmp_ok(generation(), '>', $third, 'with a later generation');

# A crash while it is created.
sql("SELECT plinth.sync_drop('t')");
ok(wait_until(sub { slots() == 0 }), 'dropped');
$running = $node->background_psql('postgres');
$running->query_safe('BEGIN');
$running->query_safe("INSERT INTO t VALUES (-2, 'x')");
want();
ok(wait_until(sub { slots() == 1 && state() eq 'creating' }), 'being created');
$node->stop('immediate');
eval { $running->quit };
$node->start;
ok(streaming(), 'created after a crash');
is(slots(), 1, 'once');

#
# DROP EXTENSION: rolled back, done, and followed by a crash.
#
my $fourth = generation();
sql('BEGIN; DROP EXTENSION plinth CASCADE; ROLLBACK');
ok(streaming(), 'DROP EXTENSION rolled back');
is(generation(), $fourth, 'leaves the slot');
sql('DROP EXTENSION plinth CASCADE');
ok(wait_until(sub { slots() == 0 }), 'DROP EXTENSION leaves no slot');
sql('CREATE EXTENSION plinth');
PlinthTest::sync_server($node, 'away', 'mongodb://127.0.0.1:1/', 'nowhere');
want();
ok(streaming(), 'created anew');
cmp_ok(generation(), '>', $fourth, 'its generation goes on');
sql('DROP EXTENSION plinth CASCADE');
$node->stop('immediate');
$node->start;
ok(wait_until(sub { slots() == 0 }), 'nor does one that is followed by a crash');

$node->stop;
done_testing();
