# Audit events where the slot is lost, the entries cannot be written, the server
# is not made for them, in a restored dump and on a standby.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AuditTest;
use PlinthTest qw(node wait_until within_ok psql_fails_like);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WorkerTest;

my $node = node('events', conf => "plinth.worker_restart_delay = '50ms'");

sub sql { my ($sql, $dbname) = @_; return $node->safe_psql($dbname || 'postgres', $sql); }
sub generation { return sql('SELECT slot_generation FROM plinth.decode_state'); }

my $slot = 'plinth_' . sql("SELECT oid FROM pg_database WHERE datname = 'postgres'");
my $month = sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')");

ok(AuditTest::enable($node), 'events');
is(sql('SELECT slot_state || decoder_pid::bool || pending_entries FROM (SELECT slot_state, decoder_pid IS NOT NULL AS decoder_pid, pending_entries FROM plinth.stat_audit) s'),
	'readytrue0', 'shown in stat_audit');

#
# Nobody can write the entries: the decoder goes on, and the slot moves.
#
sql("SELECT plinth.audit_event('early')");
ok(AuditTest::wait_stored($node, 'early', 1), 'stored');
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE plinth.audit_entries IN ACCESS EXCLUSIVE MODE');
my $log = -s $node->logfile;
sql("SELECT count(plinth.audit_event('waits', i::text)) FROM generate_series(1, 700) i");
ok(wait_until(sub { sql('SELECT pending_entries FROM plinth.stat_audit') == 700 }), 'what cannot be stored is written down elsewhere');
like(sql('SELECT pending_reason FROM plinth.stat_audit'), qr/lock timeout/, 'with the reason');
like(slurp_file($node->logfile, $log), qr/WARNING:  plinth could not store audit events of database \d+: .*lock timeout/, 'the log says so');
PlinthTest::settled($node);
pass('the slot does not wait for the lock');
# A crash meanwhile: what was decoded is decoded again, and waits once.
my $pid = WorkerTest::wait_for_worker($node, 'postgres', 'decoder');
sql("SELECT pg_terminate_backend($pid)");
sql("SELECT plinth.audit_event('waits', '701')");
ok(wait_until(sub { sql('SELECT pending_entries FROM plinth.stat_audit') == 701 }), 'the next decoder writes down what is new');
$lock->query_safe('COMMIT');
ok(AuditTest::wait_stored($node, 'waits', 701), 'stored once the lock is gone');
is(sql("SELECT count(DISTINCT resource) FROM plinth.audit_entries WHERE action = 'waits'"), 701, 'each once');
ok(wait_until(sub { sql('SELECT pending_entries FROM plinth.stat_audit') == 0 }), 'nothing waits any more');
$lock->quit;

# One entry that somebody's trigger refuses, among others.
sql(<<"SQL");
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN RAISE 'not this one'; END \$\$;
CREATE TRIGGER refuse BEFORE INSERT ON plinth.audit_entries_$month FOR EACH ROW WHEN (NEW.resource = 'bad') EXECUTE FUNCTION refuse();
SELECT plinth.audit_event('mixed', CASE i WHEN 5 THEN 'bad' ELSE 'good' END) FROM generate_series(1, 10) i;
SQL
ok(wait_until(sub { AuditTest::stored($node, 'mixed') == 9 }), 'one bad entry does not keep others out');
is(sql("SELECT string_agg(resource || ': ' || reason, ', ') FROM plinth.audit_pending"), 'bad: not this one', 'it waits, with the reason');
sql("DROP TRIGGER refuse ON plinth.audit_entries_$month");

#
# A dump: events are enabled in what is restored, and what waits comes along.
#
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
my $pending = sql("SELECT count(*) FROM plinth.audit_pending");
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
sql('CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
ok(AuditTest::ready($node, 'restored'), 'events in the restored database, where nothing was done');
sql("SELECT plinth.audit_event('restored')", 'restored');
ok(AuditTest::wait_stored($node, 'restored', 1, 'restored'), 'are stored');
is(AuditTest::stored($node, 'waits', 'restored'), 701, 'beside those that were dumped');
ok(AuditTest::wait_stored($node, 'mixed', 10, 'restored'), 'and what waited is stored there') if $pending;
ok(AuditTest::wait_stored($node, 'mixed', 10), 'as it is here');
sql('DROP DATABASE restored');

#
# The slot is lost: said loudly, and made anew.
#
my $first = generation();
$pid = WorkerTest::freeze($node, 'postgres', 'decoder');
sql("SELECT count(plinth.audit_event('lost')) FROM generate_series(1, 10)");
$log = -s $node->logfile;
$node->stop('immediate');
system_or_bail('rm', '-rf', $node->data_dir . "/pg_replslot/$slot");
$node->start;
ok(wait_until(sub { generation() > $first && AuditTest::ready($node) }), 'another slot');
is(sql("SELECT result || ': ' || (metadata->>'reason') FROM plinth.audit_entries WHERE action = 'plinth.audit_events_lost'"),
	"failure: replication slot \"$slot\" does not exist", 'an entry tells that events were lost');
like(slurp_file($node->logfile, $log), qr/WARNING:  audit events of database \d+ were lost/, 'so does the log');
sql("SELECT plinth.audit_event('found')");
ok(AuditTest::wait_stored($node, 'found', 1), 'events go on');
is(AuditTest::stored($node, 'lost'), 0, 'the lost ones are lost');

# Without a slot and without anybody who could make one: an error, not a loss.
sql("SELECT plinth.audit_event_disable()");
ok(wait_until(sub { sql('SELECT count(*) FROM pg_replication_slots') == 0 }), 'disabled, the slot goes');
psql_fails_like($node, 'postgres', "SELECT plinth.audit_event('off')", qr/not enabled.*audit_event_enable/s, 'disabled');
my $running = $node->background_psql('postgres');
$running->query_safe('CREATE TABLE running (); BEGIN; INSERT INTO running DEFAULT VALUES');
sql('SELECT plinth.audit_event_enable()');
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_workers WHERE service = 'decoder'") eq 'creating slot' }), 'a slot that waits for a transaction');
psql_fails_like($node, 'postgres', "SELECT plinth.audit_event('soon')", qr/cannot be recorded now.*replication slot.*stat_workers/s, 'not yet');
$running->query_safe('COMMIT');
$running->quit;
ok(AuditTest::ready($node), 'then');

# All slots taken: refused where it is asked for.
sql('CREATE DATABASE none');
sql('CREATE EXTENSION plinth', 'none');
sql("SELECT pg_create_physical_replication_slot('taken' || i) FROM generate_series(1, 9) i");
psql_fails_like($node, 'none', 'SELECT plinth.audit_event_enable()', qr/all 10 replication slots are in use.*max_replication_slots/s, 'no slot is free');
sql("SELECT pg_drop_replication_slot('taken' || i) FROM generate_series(1, 9) i");
sql('DROP DATABASE none');

#
# A standby: no WAL can be written there; promoted, it makes a slot of its own.
#
$node->backup('standby');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'standby', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
my ($rc, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT plinth.audit_event('standby')");
like($err, qr/25006.*cannot execute plinth.audit_event\(\) during recovery/, 'a standby refuses');
$standby->promote;
ok(AuditTest::ready($standby), 'promoted, it has a slot');
$standby->safe_psql('postgres', "SELECT plinth.audit_event('promoted')");
ok(AuditTest::wait_stored($standby, 'promoted', 1), 'and stores');
$standby->stop;

#
# A server that decodes nothing.
#
sql('SELECT plinth.audit_event_disable()');
ok(wait_until(sub { sql('SELECT count(*) FROM pg_replication_slots') == 0 }), 'disabled');
sql("ALTER SYSTEM SET wal_level = 'replica'");
$node->restart;
psql_fails_like($node, 'postgres', 'SELECT plinth.audit_event_enable()', qr/logical decoding requires "wal_level" to be "logical".*restart/s, 'wal_level = replica');
$node->stop;
done_testing();
