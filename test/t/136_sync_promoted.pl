# plinth.sync_after_promotion = resync: a promoted standby goes on by itself, but
# never where somebody else has written on.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use PostgreSQL::Test::Cluster;
use Test::More;

my $primary = PlinthTest::node('primary', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_zombie_window = '100ms'
plinth.sync_after_promotion = resync
CONF
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($primary, 'docs', $mongo->uri, 'app');

my $documents = q{SELECT json_build_object('_id', id, 'v', v) FROM t};
sub state_of { return $_[0]->safe_psql('postgres', q{SELECT concat_ws('|', state, reason) FROM plinth.stat_sync}); }
sub state_like
{
	my ($node, $pattern, $test) = @_;
	return ok(wait_until(sub { state_of($node) =~ $pattern }), $test) || diag(state_of($node));
}
sub delivered { return is($_[0]->safe_psql('postgres', "SELECT plinth.sync_wait('180s')"), 't', $_[1]); }
sub fence { return $_[0]->safe_psql('postgres', 'SELECT fence_lsn FROM plinth.sync_states'); }

$primary->safe_psql('postgres', "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 500) g; SELECT plinth.sync_table('t', 'docs')");
delivered($primary, 'copied');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
like($standby->safe_psql('postgres', 'SELECT status FROM plinth.sync_status()'), qr/this server is a standby, its primary delivers/, 'a standby says what it is');

# Changes that the standby has and MongoDB has not when the primary goes.
$primary->safe_psql('postgres', "UPDATE t SET v = 'w' WHERE id <= 100");
delivered($primary, 'delivered');
$primary->safe_psql('postgres', "SELECT plinth.sync_pause('t')");
state_like($primary, qr/^paused/, 'paused');
$primary->safe_psql('postgres', "DELETE FROM t WHERE id > 400; UPDATE t SET v = 'x' WHERE id <= 50;");
$primary->wait_for_catchup($standby, 'replay');
$primary->stop('fast');
$standby->promote;
$standby->safe_psql('postgres', "INSERT INTO t VALUES (1000, 'after'); SELECT plinth.sync_resume('t')");
state_like($standby, qr/^streaming/, 'promoted, it streams');
delivered($standby, 'all of it');
equal_ok($standby, 'postgres', $documents, $mongo, 'app', 't', 'and both sides are equal', 0);
like(PostgreSQL::Test::Utils::slurp_file($standby->logfile), qr/this server was promoted: .* sent again/, 'the log says so');
$standby->safe_psql('postgres', "UPDATE t SET v = 'y' WHERE id = 1");
delivered($standby, 'it goes on');
equal_ok($standby, 'postgres', $documents, $mongo, 'app', 't', 'as ever', 0);

# A copy that knows less than what was written since, and is promoted too.
$standby->backup('copied');
my $before = fence($standby);
$standby->safe_psql('postgres', "UPDATE t SET v = 'since' WHERE id <= 10");
delivered($standby, 'more is written');
ok(wait_until(sub { fence($standby) ne $before && $standby->safe_psql('postgres', "SELECT '$before'::pg_lsn < fence_lsn FROM plinth.sync_states") eq 't' }), 'and fenced');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($standby, 'copied');
$copy->set_standby_mode;
$copy->start;
$copy->promote;
state_like($copy, qr/^blocked\|this server is on timeline 3, the collection was written on timeline 2/, 'where another server has written on it waits for people');
equal_ok($standby, 'postgres', $documents, $mongo, 'app', 't', 'it has written nothing', 0);
$standby->safe_psql('postgres', "UPDATE t SET v = 'still' WHERE id = 2");
delivered($standby, 'and who writes goes on');
equal_ok($standby, 'postgres', $documents, $mongo, 'app', 't', 'undisturbed', 0);

# People may decide otherwise; the other one then does not take it back by itself.
$copy->safe_psql('postgres', "SELECT plinth.sync_adopt('docs')");
delivered($copy, 'adopted');
equal_ok($copy, 'postgres', $documents, $mongo, 'app', 't', 'as the copy has it', 0);
$standby->safe_psql('postgres', "UPDATE t SET v = 'lost' WHERE id = 3");
state_like($standby, qr/^blocked\|another copy of this database has taken the collection over/, 'who lost it waits');
$standby->restart;
state_like($standby, qr/^blocked\|another copy/, 'after a restart too');
equal_ok($copy, 'postgres', $documents, $mongo, 'app', 't', 'and writes nothing', 0);
$standby->stop;

# By default a promoted server waits.
$copy->append_conf('postgresql.conf', 'plinth.sync_after_promotion = pause');
$copy->reload;
$copy->backup('paused');
my $third = PostgreSQL::Test::Cluster->new('third');
$third->init_from_backup($copy, 'paused', has_streaming => 1);
$third->start;
$copy->wait_for_catchup($third, 'replay');
$copy->stop('fast');
$third->promote;
state_like($third, qr/^blocked/, 'paused is the default');
$third->safe_psql('postgres', "SELECT plinth.sync_resync('t')");
delivered($third, 'until somebody says so');
equal_ok($third, 'postgres', $documents, $mongo, 'app', 't', 'equal', 0);

# From 17 on a standby may keep a copy of the slot, and a promotion loses nothing that was decoded.
SKIP:
{
	skip 'synced slots need PostgreSQL 17', 1 if $third->pg_version < 17;
	$third->append_conf('postgresql.conf', "plinth.sync_after_promotion = resync\nsynchronized_standby_slots = 'kept'");
	$third->restart;
	$third->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('kept', true)");
	$third->backup('synced');
	my $fourth = PostgreSQL::Test::Cluster->new('fourth');
	$fourth->init_from_backup($third, 'synced', has_streaming => 1);
	my $conninfo = $third->connstr('postgres');
	$fourth->append_conf('postgresql.conf', <<"CONF");
primary_conninfo = '${\ ($conninfo =~ s/'/''/gr) } application_name=fourth'
primary_slot_name = 'kept'
hot_standby_feedback = on
sync_replication_slots = on
CONF
	$fourth->start;
	my $synced = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'plinth%' AND failover AND synced AND NOT temporary AND invalidation_reason IS NULL";
	ok(wait_until(sub {
				$third->safe_psql('postgres', "UPDATE t SET v = 'kept' || id WHERE id < 5");
				$fourth->safe_psql('postgres', $synced) == 1 }), 'a standby keeps a copy of the slot');
	delivered($third, 'what is written is delivered, once the standby has it');
	$third->safe_psql('postgres', "SELECT plinth.sync_pause('t')");
	state_like($third, qr/^paused/, 'paused');
	$third->safe_psql('postgres', "DELETE FROM t WHERE id BETWEEN 100 AND 110; UPDATE t SET v = 'z' WHERE id < 20");
	$third->wait_for_catchup($fourth, 'replay');
	$third->stop('fast');
	$fourth->append_conf('postgresql.conf', "synchronized_standby_slots = ''");
	$fourth->promote;
	$fourth->reload;
	$fourth->safe_psql('postgres', "INSERT INTO t VALUES (2000, 'after'); SELECT plinth.sync_resume('t')");
	state_like($fourth, qr/^streaming/, 'promoted with it, it streams');
	delivered($fourth, 'all of it');
	equal_ok($fourth, 'postgres', $documents, $mongo, 'app', 't', 'and both sides are equal', 0);
	is($fourth->safe_psql('postgres', $synced), 1, 'over the slot that it had');
	unlike(PostgreSQL::Test::Utils::slurp_file($fourth->logfile), qr/plinth created replication slot|slot was lost/, 'none was lost, none made anew');
	$fourth->safe_psql('postgres', "UPDATE t SET v = 'on' WHERE id = 30");
	delivered($fourth, 'it goes on');
	equal_ok($fourth, 'postgres', $documents, $mongo, 'app', 't', 'as ever', 0);
	$fourth->stop;
}
done_testing();
