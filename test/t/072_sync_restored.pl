# A PostgreSQL that was restored to an earlier moment, with and without its
# slot: nothing is written until somebody says so, then both sides are equal.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $node  = PlinthTest::node('main', init => { has_archiving => 1 }, conf => "plinth.sync_checkpoint_interval = 100ms\nplinth.sync_zombie_window = 500ms");
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'restored');
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes SELECT g, 'first' FROM generate_series(1, 100) g;
SELECT plinth.sync_table('notes', 'docs');
SQL
my $rows = q{SELECT json_build_object('_id', id, 'body', body) FROM notes};

sub delivered
{
	my ($on, $name) = @_;
	is($on->safe_psql('postgres', q{SELECT plinth.sync_wait('180s')}), 't', $name);
	PlinthTest::equal_ok($on, 'postgres', $rows, $mongo, 'restored', 'notes', "$name: equal");
	return;
}

# Stays blocked, with a reason and a hint, whatever is written here.
sub is_blocked
{
	my ($on, $reason, $name) = @_;
	my $before = join ' ', @{ $mongo->docs('restored', 'notes') };
	my $seen = '';
	ok(wait_until(sub { ($seen = $on->safe_psql('postgres', "SELECT state || ': ' || coalesce(reason, '') FROM plinth.stat_sync")) =~ /^blocked: .*$reason/ }), "$name: blocked")
	  or diag($seen);
	like($on->safe_psql('postgres', 'SELECT hint FROM plinth.stat_sync'), qr/sync_(adopt|resync)/, "$name: with a hint");
	$on->safe_psql('postgres', "UPDATE notes SET body = '$name' WHERE id <= 10; DELETE FROM notes WHERE id = 50");
	is($on->safe_psql('postgres', q{SELECT plinth.sync_wait('1s')}), 'f', "$name: nothing is said to be delivered");
	is(join(' ', @{ $mongo->docs('restored', 'notes') }), $before, "$name: nothing is written");
	$on->safe_psql('postgres', q{SELECT plinth.sync_adopt('docs')});
	delivered($on, "$name: adopted");
	return;
}

delivered($node, 'copied');

# ---- the files of a moment ago, slot and all ------------------------------------
$node->stop;
my $dir = $node->data_dir;
system_or_bail('cp', '-a', $dir, "$dir.old");
$node->start;
$node->safe_psql('postgres', "INSERT INTO notes SELECT g, 'forgotten' FROM generate_series(101, 150) g; UPDATE notes SET body = 'forgotten' WHERE id = 3; SELECT pg_switch_wal()");
delivered($node, 'goes on');
# Only what was fenced is known to be ahead of the older files.
PlinthTest::settled($node);
$node->stop;
system_or_bail('rm', '-rf', $dir);
system_or_bail('mv', "$dir.old", $dir);
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM notes'), 100, 'restored from a copy of its files');
is_blocked($node, 'restored', 'files');

# ---- to a point in time -------------------------------------------------------------
$node->backup('base');
$node->safe_psql('postgres', "INSERT INTO notes VALUES (201, 'kept')");
my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
$node->safe_psql('postgres', "DELETE FROM notes WHERE id > 90; INSERT INTO notes VALUES (202, 'lost'); SELECT pg_switch_wal()");
delivered($node, 'the original goes on');
$node->stop;
my $restored = PostgreSQL::Test::Cluster->new('pitr');
$restored->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', "recovery_target_lsn = '$lsn'\nrecovery_target_action = promote\narchive_mode = off");
$restored->start;
ok(wait_until(sub { $restored->safe_psql('postgres', 'SELECT pg_is_in_recovery()') eq 'f' }), 'restored to a point in time');
is($restored->safe_psql('postgres', 'SELECT count(*) FROM notes WHERE id > 90'), 11, 'as it was then');
is_blocked($restored, '(slot|timeline)', 'point in time');
$restored->stop;

# The original, started again beside it, does not write either.
$node->start;
is_blocked($node, 'another copy', 'original');

done_testing();
