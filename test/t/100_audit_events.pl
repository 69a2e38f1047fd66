# Audit events: what outlives its transaction, that MongoDB has no say in it, and
# that nobody can forge, copy or break one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AuditTest;
use IO::Socket::INET;
use PlinthTest qw(node wait_until within_ok);
use Test::More;
use Time::HiRes qw(time);
use WorkerTest;

my $listed = PlinthTest::knows_setting('output_plugin_libraries') ? "output_plugin_libraries = 'plinth, pgoutput'" : '';
my $node = node('events', root_key => 1, conf => "$listed\nplinth.worker_restart_delay = '100ms'");

sub sql { my ($sql, $dbname) = @_; return $node->safe_psql($dbname || 'postgres', $sql); }

ok(AuditTest::enable($node), 'events without any sync mapping');
is(sql('SELECT count(*) FROM plinth.sync_mappings'), 0, 'there is none');

#
# Whatever becomes of the transaction.
#
sql(<<'SQL');
CREATE TABLE t (v int);
BEGIN READ ONLY; SELECT plinth.audit_event('kept', 'read only'); COMMIT;
BEGIN READ ONLY; SELECT plinth.audit_event('kept', 'read only, rolled back'); ROLLBACK;
BEGIN; INSERT INTO t VALUES (1); SELECT plinth.audit_event('kept', 'rolled back'); ROLLBACK;
BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1); SELECT plinth.audit_event('kept', 'subtransaction');
ROLLBACK TO s; SAVEPOINT s2; SELECT plinth.audit_event('kept', 'another'); RELEASE s2; COMMIT;
BEGIN; INSERT INTO t VALUES (1); SELECT plinth.audit_event('kept', 'prepared'); PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p';
SQL
PlinthTest::psql_fails_like($node, 'postgres', "DO \$\$ BEGIN PERFORM plinth.audit_event('kept', 'error'); RAISE 'failed'; END \$\$",
	qr/failed/, 'an event, then an error');
my $kept = join "\n", 'another', 'error', 'prepared', 'read only', 'read only, rolled back', 'rolled back', 'subtransaction';
ok(AuditTest::wait_stored($node, 'kept', 7), 'every event is stored');
is(sql("SELECT resource FROM plinth.audit_entries WHERE action = 'kept' ORDER BY resource COLLATE \"C\""), $kept, 'the very same');
is(sql('SELECT count(*) FROM t'), 0, 'and nothing else of those transactions');

# While a transaction is still open.
my $open = $node->background_psql('postgres');
$open->query_safe("BEGIN; SELECT plinth.audit_event('open')");
ok(AuditTest::wait_stored($node, 'open', 1), 'stored before its transaction has ended');
$open->query_safe('ROLLBACK');
$open->quit;

# Nothing else makes the WAL be flushed here: the event itself must.
within_ok(5, 'stored soon after a rollback that writes nothing else', sub {
	sql("BEGIN READ ONLY; SELECT plinth.audit_event('soon'); ROLLBACK");
	AuditTest::wait_stored($node, 'soon', 1);
});

#
# Many at once.
#
my $start = time();
sql("SELECT count(plinth.audit_event('many', i::text, 'success', jsonb_build_object('i', i))) FROM generate_series(1, 10000) i");
my $written = time();
ok(AuditTest::wait_stored($node, 'many', 10000), '10,000 events in one statement');
note(sprintf '10,000 events written in %.2f s, stored %.2f s later', $written - $start, time() - $written);
is(sql("SELECT count(DISTINCT resource) || ' ' || count(DISTINCT source_lsn) || ' ' || count(*) FILTER (WHERE metadata->>'i' = resource)"
	  . " FROM plinth.audit_entries WHERE action = 'many'"), '10000 10000 10000', 'each as it was written');

#
# A copy, in which nothing is done.
#
sql('CREATE DATABASE copy TEMPLATE postgres');
ok(AuditTest::ready($node, 'copy'), 'events in a copy of the database');
is(sql("SELECT count(DISTINCT slot_name) FROM pg_replication_slots WHERE plugin = 'plinth'"), 2, 'by a slot of its own');

#
# Without a worker: kept in the WAL.
#
my $decoder = WorkerTest::freeze($node, 'postgres', 'decoder');
sql("BEGIN READ ONLY; SELECT plinth.audit_event('frozen'); COMMIT");
is(AuditTest::stored($node, 'frozen'), 0, 'not stored while the decoder stands still');
sql("SELECT pg_terminate_backend($decoder)");
kill 'CONT', $decoder;
ok(AuditTest::wait_stored($node, 'frozen', 1), 'stored by the next decoder');

#
# A MongoDB that takes the connection and never answers.
#
my $hole = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1') or die "listen: $!";
sql('CREATE TABLE s (id int PRIMARY KEY, v text); INSERT INTO s SELECT i, i FROM generate_series(1, 1000) i');
PlinthTest::sync_server($node, 'hole', 'mongodb://127.0.0.1:' . $hole->sockport . '/', 'nowhere');
sql("SELECT plinth.sync_table('s', 'hole')");
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_workers WHERE service = 'lane'") == 1 }), 'a lane that waits for MongoDB');
ok(AuditTest::ready($node), 'events are ready beside it');
within_ok(10, 'events are stored all the same', sub {
	sql("UPDATE s SET v = 'x'; SELECT plinth.audit_event('mongo')");
	AuditTest::wait_stored($node, 'mongo', 1);
});
sql("SELECT plinth.sync_drop('s')");
$hole->close;
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_workers WHERE service = 'lane'") == 0 }), 'without the mapping');
ok(AuditTest::ready($node), 'events stay');

#
# Forged.  What an event is in the WAL is read by whoever may replicate.
#
sql('CREATE PUBLICATION p');
sql("SELECT pg_create_logical_replication_slot('spy', 'pgoutput')");
sql("SELECT plinth.audit_event('copied', 'original', flush => true)");
my $decode = "pg_logical_slot_peek_binary_changes('spy', NULL, NULL, 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')";
# 'M', flags, LSN, "plinth" and its NUL, length, content
sql("CREATE TABLE genuine AS SELECT substr(data, 1 + 1 + 8 + 7 + 4 + 1) AS body FROM $decode WHERE get_byte(data, 0) = ascii('M')"
	  . " AND position('copied' in encode(data, 'escape')) > 0");
is(sql("SELECT encode(substr(body, 1, 7), 'escape') FROM genuine"), 'PlAudEv', 'a genuine event, as read from the WAL');
sql("SELECT pg_drop_replication_slot('spy')");
ok(AuditTest::wait_stored($node, 'copied', 1), 'is stored');
sql('CREATE ROLE forger');
sql('GRANT SELECT ON genuine TO forger');
my $before = sql('SELECT count(*) FROM plinth.audit_entries');
$decoder = WorkerTest::pid($node, 'postgres', 'decoder');
sql(<<'SQL');
SET ROLE forger;
DO $$
DECLARE
	genuine_ bytea := (SELECT body FROM genuine);
	size int := length(genuine_);
	forged bytea;
BEGIN
	-- As it is, many times, in a transaction too.
	FOR i IN 1 .. 20 LOOP
		PERFORM pg_logical_emit_message(i % 2 = 0, 'plinth', genuine_);
	END LOOP;
	-- One byte changed anywhere.
	FOR i IN 0 .. size - 1 LOOP
		forged := set_byte(genuine_, i, get_byte(genuine_, i) # (1 << (random() * 7)::int));
		PERFORM pg_logical_emit_message(false, 'plinth', forged);
	END LOOP;
	-- Cut off, and made longer.
	FOR i IN 0 .. size - 1 LOOP
		PERFORM pg_logical_emit_message(false, 'plinth', substr(genuine_, 1, i));
		PERFORM pg_logical_emit_message(false, 'plinth', genuine_ || substr(genuine_, 1, i + 1));
	END LOOP;
	-- Random bytes, behind the right beginning, or a right header; oversize.
	FOR i IN 1 .. 500 LOOP
		forged := (SELECT string_agg(decode(md5(random()::text || n), 'hex'), '') FROM generate_series(1, 1 + (random() * 20)::int) n);
		PERFORM pg_logical_emit_message(false, 'plinth', forged);
		PERFORM pg_logical_emit_message(false, 'plinth', substr(genuine_, 1, 8) || forged);
		PERFORM pg_logical_emit_message(false, 'plinth', substr(genuine_, 1, 48) || forged);
	END LOOP;
	PERFORM pg_logical_emit_message(false, 'plinth', genuine_ || decode(repeat('00', 10000000), 'hex'));
	PERFORM pg_logical_emit_message(false, 'plinth', '');
END
$$;
SQL
sql("SELECT plinth.audit_event('after')");
ok(AuditTest::wait_stored($node, 'after', 1), 'the decoder goes on');
is(WorkerTest::pid($node, 'postgres', 'decoder'), $decoder, 'it is the same');
is(AuditTest::stored($node, 'copied'), 1, 'a copy is not stored');
is(sql("SELECT count(*) FROM plinth.audit_entries WHERE action NOT IN ('after', 'plinth.audit_event_refused')"), $before, 'nor is anything forged');
is(sql("SELECT result || ' ' || (metadata->>'first_reason') FROM plinth.audit_entries WHERE action = 'plinth.audit_event_refused' ORDER BY id LIMIT 1"),
	'denied not written by audit_event in this database', 'an entry tells of it');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/WARNING:  plinth refused \d+ WAL messages that pretend to be audit events/, 'so does the log');

# A copy that carries the same secret, and another one: in neither is the message an event.
sql('CREATE DATABASE other');
sql('CREATE EXTENSION plinth', 'other');
ok(AuditTest::enable($node, 'other'), 'events in another database');
my $hex = sql("SELECT encode(body, 'hex') FROM genuine");
foreach my $dbname ('copy', 'other')
{
	my $entries = sql("SELECT count(*) FROM plinth.audit_entries WHERE action = 'copied'", $dbname);
	sql("DROP TABLE IF EXISTS plinth.audit_entries_" . sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')"), $dbname);
	sql("SELECT pg_logical_emit_message(false, 'plinth', decode('$hex', 'hex')), plinth.audit_event('own')", $dbname);
	ok(AuditTest::wait_stored($node, 'own', 1, $dbname), "an event of $dbname is stored");
	is(AuditTest::stored($node, 'copied', $dbname), 0, 'one of the original is not');
}

#
# Databases that go while events come.
#
my $writer = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('other'), '-c',
		"SELECT count(plinth.audit_event('gone')) FROM generate_series(1, 1000000)" ],
	'<', '/dev/null', '>', \my $out, '2>', \my $err);
ok(wait_until(sub { AuditTest::stored($node, 'gone', 'other') > 1000 }), 'events pour in');
sql('DROP DATABASE other WITH (FORCE)');
$writer->finish;
ok(wait_until(sub { sql("SELECT count(*) FROM pg_replication_slots WHERE database = 'other'") == 0 }), 'DROP DATABASE takes slot and events');

$writer = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('copy'), '-c',
		"SELECT count(plinth.audit_event('gone')) FROM generate_series(1, 30000)" ],
	'<', '/dev/null', '>', \$out, '2>', \$err);
ok(wait_until(sub { AuditTest::stored($node, 'gone', 'copy') > 1000 }), 'events pour in');
sql('DROP EXTENSION plinth CASCADE', 'copy');
$writer->finish;
ok(wait_until(sub { sql("SELECT count(*) FROM pg_replication_slots WHERE database = 'copy'") == 0 }), 'DROP EXTENSION drops the slot');
sql('CREATE EXTENSION plinth', 'copy');
ok(AuditTest::enable($node, 'copy'), 'created anew');
sql("SELECT plinth.audit_event('anew')", 'copy');
ok(AuditTest::wait_stored($node, 'anew', 1, 'copy'), 'it records');
is(AuditTest::stored($node, 'gone', 'copy'), 0, 'nothing of before');

$node->stop;
done_testing();
