
# Who writes a collection, and what stands of it: a MongoDB that lost what it
# had acknowledged, a PostgreSQL that was restored, cloned or promoted, a slot
# that was lost.  Each pauses with its reason and is repaired by adopt or
# resync.

use strict;
use warnings;
use File::Copy;
use PlinthTest;
use Test::More;

my $conf = "plinth.sync_zombie_window = 100\nplinth.sync_checkpoint_interval = 200";
my $node = PlinthTest::node('primary', conf => $conf);
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'forum');
$node->safe_psql(
	'postgres', q{
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes SELECT i, 'n' || i FROM generate_series(1, 100) i;
SELECT plinth.sync_table('notes', 'docs');
});

sub synced
{
	my ($on, $name, $db) = @_;
	is($on->safe_psql($db || 'postgres', "SELECT plinth.sync_wait('180s')"), 't', $name);
	return;
}

# name => body of every document, as one string
sub there
{
	my ($from) = @_;
	return join ',', sort @{
		($from || $mongo)->eval("['%d:%s' % (d['_id'], d['body']) for d in client['forum']['notes'].find()]") };
}

sub here
{
	my ($on, $db) = @_;
	return join ',', sort split /\n/,
	  $on->safe_psql($db || 'postgres', "SELECT id || ':' || body FROM notes");
}

sub state_is
{
	my ($on, $state, $reason, $name, $db) = @_;
	ok( PlinthTest::wait_until(
			sub { $on->safe_psql($db || 'postgres', "SELECT state FROM plinth.stat_sync WHERE name = 'notes'") eq $state }),
		"$name: $state")
	  or diag $on->safe_psql($db || 'postgres', 'SELECT * FROM plinth.stat_sync; SELECT * FROM plinth.stat_workers');
	like($on->safe_psql($db || 'postgres', "SELECT coalesce(reason, '-') FROM plinth.stat_sync WHERE name = 'notes'"),
		$reason, "$name: says why");
	return;
}

synced($node, 'the table is there');
is(there(), here($node), 'both sides are equal');

# ---- a promoted standby ----
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'base');

$node->safe_psql('postgres', "INSERT INTO notes VALUES (101, 'after the backup')");
synced($node, 'the primary goes on');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is( $standby->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_workers WHERE service IN ('decoder', 'lane') AND pid > 0"),
	0, 'a standby syncs nothing');
$standby->promote;
state_is($standby, 'blocked', qr/slot|timeline/, 'a promoted standby');
$standby->safe_psql('postgres', "INSERT INTO notes VALUES (200, 'on the new primary')");
$standby->safe_psql('postgres', "SELECT plinth.sync_adopt('docs')");
synced($standby, 'adopting takes over');
is(there(), here($standby), 'and makes both sides equal');
# The old primary still runs: it must notice before it writes.
$node->safe_psql('postgres', "UPDATE notes SET body = 'by the old primary' WHERE id = 1");
state_is($node, 'blocked', qr/another copy/, 'the old primary');
is(there(), here($standby), 'it has written nothing');
$standby->safe_psql('postgres', "UPDATE notes SET body = 'the new primary writes on' WHERE id = 2");
synced($standby, 'the new primary writes on');
is(there(), here($standby), 'and both sides stay equal');

# ---- a base backup that is started beside it ----
$copy->start;
state_is($copy, 'blocked', qr/slot|behind|ahead|another/, 'a server started from a base backup');
is(there(), here($standby), 'it has written nothing');
$copy->stop('fast');
$standby->stop('fast');

# ---- back to the old primary: a person decides ----
$node->safe_psql('postgres', "SELECT plinth.sync_adopt('docs')");
synced($node, 'adopted back');
is(there(), here($node), 'both sides are equal');

# ---- kill -9 pauses nothing ----
for my $round (1 .. 2)
{
	$node->safe_psql('postgres', "UPDATE notes SET body = 'round $round'");
	$node->kill9;
	ok(PlinthTest::start_again($node), 'starts after kill -9');
	synced($node, 'goes on by itself');
	is(there(), here($node), 'and both sides are equal');
}

# ---- the slot is lost ----
$node->safe_psql('postgres', "SELECT plinth.sync_pause('notes')");
my $slot = $node->safe_psql('postgres', "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'plinth_%'");
isnt($slot, '', 'there is a slot');
$node->stop('fast');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$slot'); DELETE FROM notes WHERE id = 5; UPDATE notes SET body = 'unseen' WHERE id = 6");
$node->stop('fast');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'plinth'");
$node->start;
state_is($node, 'blocked', qr/slot was lost/, 'without its slot');
$node->safe_psql('postgres', "SELECT plinth.sync_resync('notes'); SELECT plinth.sync_resume('notes')");
synced($node, 'resync repairs it');
is(there(), here($node), 'and both sides are equal');

# ---- a cloned database, a restored dump ----
$node->safe_psql('template1', 'CREATE DATABASE clone TEMPLATE postgres');
$node->safe_psql('clone', "UPDATE notes SET body = 'by the clone'");
$node->command_ok([ 'pg_dump', '-Fc', '-f', $node->data_dir . '/../dump', '-d', $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), $node->data_dir . '/../dump' ], 'pg_restore');
$node->safe_psql('restored', "UPDATE notes SET body = 'by the restored'");
for my $db ('clone', 'restored')
{
	is($node->safe_psql($db, 'SELECT count(*) FROM plinth.sync_mappings'), 1, "$db: has the mapping");
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots s JOIN pg_database d ON d.datname = s.database WHERE d.datname = '$db'"),
		0, "$db: has no slot");
}
$node->safe_psql('postgres', "UPDATE notes SET body = 'the original' WHERE id = 7");
synced($node, 'the original goes on');
is(there(), here($node), 'the copies have written nothing');
$node->safe_psql('restored', 'SELECT plinth.adopt()');
synced($node, 'the restored database was adopted', 'restored');
is(there(), here($node, 'restored'), 'and both sides are equal');
$node->safe_psql('postgres', "UPDATE notes SET body = 'the original again' WHERE id = 7");
state_is($node, 'blocked', qr/another database/, 'the original');
is(there(), here($node, 'restored'), 'it has written nothing');
$node->safe_psql('postgres', 'DROP DATABASE restored WITH (FORCE)');
$node->safe_psql('postgres', 'DROP DATABASE clone');
$node->safe_psql('postgres', "SELECT plinth.sync_adopt('docs')");
synced($node, 'the original is adopted back');
is(there(), here($node), 'and both sides are equal');

# ---- MongoDB loses what it had acknowledged ----
my $file = PostgreSQL::Test::Utils::tempdir() . '/h2';
my $h2 = PlinthTest::mongo_start(h2 => $file);
PlinthTest::sync_server($node, 'lossy', $h2->uri, 'forum');
$node->safe_psql('postgres', "SELECT plinth.sync_drop('notes')");
$node->safe_psql('postgres', "SELECT plinth.sync_table('notes', 'lossy')");
synced($node, 'on a server that keeps its data in a file');
$h2->stop;
my ($data) = glob("$file*");
copy($data, "$data.old") or die $!;
$h2->start;
$node->safe_psql('postgres', "UPDATE notes SET body = 'acknowledged'");
synced($node, 'MongoDB has acknowledged');
is(there($h2), here($node), 'both sides are equal');
PlinthTest::settled($node);
$h2->stop;
copy("$data.old", $data) or die $!;
$h2->start;
isnt(there($h2), here($node), 'MongoDB has forgotten: the fault is real');
$node->safe_psql('postgres', "INSERT INTO notes VALUES (300, 'one more')");
state_is($node, 'blocked', qr/lost writes/, 'a MongoDB that lost writes');
$node->safe_psql('postgres', "SELECT plinth.sync_resync('notes')");
synced($node, 'resync repairs it');
is(there($h2), here($node), 'and both sides are equal');

$node->stop('fast');
done_testing();
