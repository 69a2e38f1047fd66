
# Taking a collection over from a writer that still runs: what it has begun to
# write lands before its successor reads or writes there, and it begins nothing
# more.

use strict;
use warnings;
use PlinthTest;
use Test::More;
use Time::HiRes qw(time);

my $interval = 1.5;
my $node = PlinthTest::node('main', conf => 'plinth.sync_zombie_window = 300');
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'forum');

sub set_interval
{
	my ($seconds) = @_;
	$node->append_conf('postgresql.conf', 'plinth.sync_checkpoint_interval = ' . int($seconds * 1000));
	$node->reload;
	return;
}

sub equal
{
	my ($db, $name) = @_;
	return PlinthTest::equal_ok($node, $db, q{SELECT json_build_object('_id', id, 'body', body) FROM notes},
		$mongo, 'forum', 'notes', $name, 0);
}

sub synced
{
	my ($db, $name) = @_;
	return is($node->safe_psql($db, "SELECT plinth.sync_wait('180s')"), 't', $name);
}

sub blocked
{
	my ($db, $name) = @_;
	return ok(
		PlinthTest::wait_until(
			sub { $node->safe_psql($db, "SELECT state || ' ' || reason FROM plinth.stat_sync") =~ /^blocked another/ }),
		$name);
}

set_interval(0.2);
$node->safe_psql(
	'postgres', q{
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes SELECT i, 'n' || i FROM generate_series(1, 100) i;
SELECT plinth.sync_table('notes', 'docs');
});
synced('postgres', 'the table is there');

# ---- at rest ----
# Its keys to be written again are due all the time.
my $dump = $node->data_dir . '/../dump';
$node->safe_psql('postgres', "SELECT plinth.sync_pause('notes'); UPDATE notes SET body = 'suspect'");
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', "SELECT plinth.sync_resume('notes')");
synced('postgres', 'the original writes');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
$node->safe_psql('restored', "SELECT plinth.sync_resume('notes'); UPDATE notes SET body = 'restored ' || id");
$node->safe_psql('restored', 'SELECT plinth.adopt()');
synced('restored', 'the restored database was adopted');
equal('restored', 'and both sides are equal');
$node->safe_psql('postgres', "UPDATE notes SET body = 'by the original'");
blocked('postgres', 'the original notices before it writes');
equal('restored', 'it has written nothing');

# ---- busy ----
set_interval(3);
$node->safe_psql('postgres', "SELECT plinth.sync_adopt('docs')");
synced('postgres', 'adopted back');
equal('postgres', 'and both sides are equal');
$node->safe_psql('restored', "UPDATE notes SET body = body || '!'");
blocked('restored', 'the restored database notices as soon as it has something to write');
equal('postgres', 'and has written nothing');
my $busy = $node->background_psql('postgres');
$busy->query_until(qr/started/, q{
\echo started
DO $$ DECLARE begun timestamptz := clock_timestamp(); i int := 0; BEGIN
	WHILE clock_timestamp() < begun + interval '10 minutes'
		  AND NOT EXISTS (SELECT FROM plinth.sync_states WHERE blocked IS NOT NULL) LOOP
		i := i + 1;
		UPDATE notes SET body = 'busy ' || i WHERE id = 1 + i % 100;
		COMMIT;
	END LOOP;
END $$;
\echo ended
});
$node->safe_psql('restored', "SELECT plinth.sync_adopt('docs')");
synced('restored', 'taken over from a writer that writes all the time');
blocked('postgres', 'which notices');
equal('restored', 'and both sides are equal');
$busy->quit;
set_interval(0.2);

# ---- how long the successor waits ----
set_interval($interval);
$node->safe_psql('restored', "UPDATE notes SET body = 'r ' || id");
synced('restored', 'the restored database writes on');
my $begun = time();
$node->safe_psql('postgres', "SELECT plinth.sync_adopt('docs')");
ok( PlinthTest::wait_until(
		sub { PlinthTest::value($mongo, "client['forum']['notes'].count_documents({'body': {'\$regex': '^r '}})") < 100 }),
	'the successor writes');
cmp_ok(time() - $begun, '>=', 2 * $interval, 'after two intervals');
synced('postgres', 'all');
equal('postgres', 'and both sides are equal');

# ---- adopted in the same moment as it is noticed that it was lost, and killed while waiting ----
my $epoch = "client['forum']['plinth_sync'].find_one({'_id': 'notes'})['epoch']";
my $before = PlinthTest::value($mongo, $epoch);
$node->safe_psql('restored', "UPDATE notes SET body = 'again ' || id; SELECT plinth.sync_adopt('docs')");
ok(PlinthTest::wait_until(sub { PlinthTest::value($mongo, $epoch) > $before }), 'the fence is taken');
$node->kill9;
ok(PlinthTest::start_again($node), 'starts after kill -9');
synced('restored', 'and goes on');
equal('restored', 'and both sides are equal');
$node->safe_psql('postgres', "UPDATE notes SET body = 'late'");
blocked('postgres', 'the one before notices');
equal('restored', 'and has written nothing');

$node->stop('fast');
done_testing();
