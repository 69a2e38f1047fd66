
# Writes that land after their successors (zombies), a connection that is cut
# with writes under way, and unique values that rows pass to each other.

use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use Test::More;
use WorkerTest;

my $window = 4000;
my $node = PlinthTest::node('main',
	conf => "plinth.sync_zombie_window = $window\nplinth.sync_timeout = '60s'");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'forum');

sub synced
{
	my ($name) = @_;
	is($node->safe_psql('postgres', "SELECT plinth.sync_wait('180s')"), 't', $name);
	return;
}

sub body_of
{
	my ($id) = @_;
	return PlinthTest::value($mongo, "(client['forum']['notes'].find_one({'_id': $id}) or {}).get('body')");
}

sub lane_pid
{
	return $node->safe_psql('postgres',
		"SELECT pid FROM plinth.stat_workers WHERE service = 'lane' AND pid > 0");
}

# What is held back lands now, as a later write than the newer one.  The lane
# cannot mend it before that was seen.
sub zombie_lands
{
	my ($sub, $name) = @_;
	my $lane = WorkerTest::freeze($node, 'postgres', 'lane');
	$proxy->release;
	ok(PlinthTest::wait_until($sub), $name);
	kill 'CONT', $lane;
	return;
}

# The first rewrite comes a window after the newer write, the next after ten; a
# slow machine sees the second only.
sub mended
{
	my ($sub) = @_;
	ok(PlinthTest::wait_until($sub, 10 * $window / 1000 + $PlinthTest::patience), 'and is mended within the stated time');
	return;
}

sub rewrites
{
	return $node->safe_psql('postgres',
		"SELECT keys_to_rewrite FROM plinth.stat_sync WHERE name = 'notes'");
}

$node->safe_psql(
	'postgres', q{
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes VALUES (1, 'first'), (2, 'first'), (3, 'first');
SELECT plinth.sync_table('notes', 'docs');
});
synced('the table is there');

# ---- the connection is cut while a batch is held back; the worker lives ----
$proxy->command('hold notes');
$node->safe_psql('postgres', "UPDATE notes SET body = 'old' WHERE id = 1");
ok(PlinthTest::wait_until(sub { $proxy->stats->{holding} }), 'the batch is held back');
# To the client the connection breaks; what is held stays ready to be sent.
$proxy->command('cut');
$node->safe_psql('postgres', "UPDATE notes SET body = 'new' WHERE id = 1");
synced('the newer state is written over another connection');
is(body_of(1), 'new', 'it is there');
cmp_ok(rewrites(), '>', 0, 'the key is to be written again');
zombie_lands(sub { body_of(1) eq 'old' }, 'the old batch lands after the newer one: the fault is real');
mended(sub { body_of(1) eq 'new' });

# ---- the worker is killed while a batch is held back ----
$proxy->command('hold notes');
$node->safe_psql('postgres', "UPDATE notes SET body = 'old' WHERE id = 2");
ok(PlinthTest::wait_until(sub { $proxy->stats->{holding} }), 'the batch is held back');
my $pid = lane_pid();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->safe_psql('postgres', "UPDATE notes SET body = 'new' WHERE id = 2");
ok(PlinthTest::wait_until(sub { my $now = lane_pid(); $now ne '' && $now ne $pid }),
	'another worker has taken over');
synced('it has written the newer state');
is(body_of(2), 'new', 'it is there');
zombie_lands(sub { body_of(2) eq 'old' }, 'the old batch lands');
mended(sub { body_of(2) eq 'new' });

# ---- the same with a delete, and kill -9 of all of PostgreSQL ----
$proxy->command('hold notes');
$node->safe_psql('postgres', 'DELETE FROM notes WHERE id = 3');
ok(PlinthTest::wait_until(sub { $proxy->stats->{holding} }), 'the delete is held back');
$node->kill9;
ok(PlinthTest::start_again($node),
	'PostgreSQL starts again once its workers have seen that it died');
$node->safe_psql('postgres', "INSERT INTO notes VALUES (3, 'back')");
synced('the row that came back is written');
is(body_of(3), 'back', 'it is there');
zombie_lands(sub { !defined body_of(3) }, 'the old delete lands');
mended(sub { (body_of(3) // '') eq 'back' });
is($node->safe_psql('postgres', 'SELECT state FROM plinth.stat_sync'),
	'streaming', 'an ordinary kill -9 pauses nothing');

# ---- a snapshot page held back ----
$node->safe_psql('postgres',
	"CREATE TABLE pages (id int PRIMARY KEY, body text);"
	  . "INSERT INTO pages SELECT i, 'old' FROM generate_series(1, 1500) i");
$proxy->command('hold pages');
$node->safe_psql('postgres', "SELECT plinth.sync_table('pages', 'docs')");
ok(PlinthTest::wait_until(sub { $proxy->stats->{holding} }), 'a page of the snapshot is held back');
$proxy->command('cut');
$node->safe_psql('postgres', "UPDATE pages SET body = 'new'");
synced('snapshot and stream have gone on');
is($mongo->eval("client['forum']['pages'].count_documents({'body': 'new'})"),
	1500, 'all is new');
zombie_lands(sub { PlinthTest::value($mongo, "client['forum']['pages'].count_documents({'body': 'old'})") > 0 }, 'the old page lands');
mended(sub { PlinthTest::value($mongo, "client['forum']['pages'].count_documents({'body': 'new'})") == 1500 });

# ---- unique values ----
$mongo->eval(
	"client['forum']['seats'].create_index('place', unique=True); result = 1",
	statements => 1);
$node->safe_psql(
	'postgres', q{
CREATE TABLE seats (id int PRIMARY KEY, place int, who text);
INSERT INTO seats SELECT i, i, 'p' || i FROM generate_series(1, 20) i;
SELECT plinth.sync_table('seats', 'docs');
});
synced('rows with a unique value');

sub seats
{
	return join ',', sort map { s/^(\d+):(\d+)$/$1:$2/r } @{
		$mongo->eval("['%d:%d' % (d['_id'], d['place']) for d in client['forum']['seats'].find()]") };
}

sub seats_here
{
	return join ',', sort split /\n/,
	  $node->safe_psql('postgres', "SELECT id || ':' || place FROM seats");
}

is(seats(), seats_here(), 'are the same on both sides');
$node->safe_psql('postgres', 'UPDATE seats SET place = CASE id WHEN 1 THEN 2 ELSE 1 END WHERE id IN (1, 2)');
synced('two rows swapped their values');
ok(PlinthTest::wait_until(sub { seats() eq seats_here() }), 'both sides are the same again');
$node->safe_psql('postgres', 'UPDATE seats SET place = place % 20 + 1');
synced('every row passed its value on');
ok(PlinthTest::wait_until(sub { seats() eq seats_here() }), 'both sides are the same again');
$node->safe_psql('postgres', 'INSERT INTO seats VALUES (100, 5, $$two on one seat$$)');
ok( PlinthTest::wait_until(
		sub { $node->safe_psql('postgres', 'SELECT count(*) FROM plinth.sync_dead_letters') >= 1 }),
	'a value that two rows really have ends in a dead letter');
like($node->safe_psql('postgres', 'SELECT reason FROM plinth.sync_dead_letters LIMIT 1'),
	qr/E11000/, 'with the reason');
$node->safe_psql('postgres', 'DELETE FROM seats WHERE id = 100');
ok( PlinthTest::wait_until(
		sub { seats() eq seats_here() && $node->safe_psql('postgres', 'SELECT count(*) FROM plinth.sync_dead_letters') == 0 }),
	'which the next change of the row takes away');

$node->stop('fast');
done_testing();
