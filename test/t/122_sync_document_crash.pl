# What leads to a document is never lost: whatever is killed while it is looked
# for, whatever is away, however many documents there are, and whatever order
# commits become visible in.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use DocumentTest;
use WorkerTest;
use Test::More;

my $node = PlinthTest::node('owed', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_zombie_window = '100ms'
plinth.sync_retry_max = '500ms'
plinth.sync_connect_timeout = '1s'
plinth.sync_lock_timeout = '100ms'
plinth.sync_memory = '2MB'
jit = off
CONF
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub stat_of { return sql("SELECT $_[1] FROM plinth.stat_sync WHERE name = '$_[0]'"); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered") || diag(sql('SELECT * FROM plinth.stat_sync')); }
sub lsn { return sql('SELECT pg_current_wal_flush_lsn()'); }
sub confirmed
{
	my ($lsn) = @_;
	return wait_until(sub { sql("SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots") eq 't' });
}
my $boards = DocumentTest::expected();
my $cards = q{SELECT json_build_object('_id', c.id, 'deck', d.name) FROM cards c JOIN decks d ON d.id = c.deck};
sub boards_arrive { delivered($_[0]); return equal_ok($node, 'postgres', $boards, $mongo, 'app', 'boards', $_[0], 0); }
sub cards_arrive { delivered($_[0]); return equal_ok($node, 'postgres', $cards, $mongo, 'app', 'cards', $_[0], 0); }
# kB that the lane has had at most and shares with nobody.
sub lane_peak
{
	return WorkerTest::peak(sql("SELECT pid FROM plinth.stat_workers WHERE service = 'lane'")) || die 'no lane runs';
}

sql(DocumentTest::schema());
sql(<<'SQL');
CREATE TABLE decks (id int PRIMARY KEY, name text);
CREATE TABLE cards (id int PRIMARY KEY, deck int NOT NULL REFERENCES decks);
CREATE INDEX ON cards (deck);
INSERT INTO decks SELECT g, 'deck ' || g FROM generate_series(1, 3) g;
INSERT INTO cards SELECT g, CASE WHEN g <= 5000 THEN 1 ELSE 2 END FROM generate_series(1, 5010) g;
CREATE TABLE heaps (id int PRIMARY KEY, name text);
CREATE TABLE grains (id int PRIMARY KEY, heap int NOT NULL);
CREATE INDEX ON grains (heap);
INSERT INTO heaps VALUES (1, 'heap');
INSERT INTO grains SELECT g, 1 FROM generate_series(1, 100000) g;
ANALYZE;
SQL
sql(DocumentTest::mapping('boards'));
sql(q{SELECT plinth.sync_document('cards', 'docs', 'cards', 'cards',
	'SELECT c.id, d.name AS deck FROM cards c JOIN decks d ON d.id = c.deck')});
boards_arrive('snapshot');
cards_arrive('snapshot of the many');

# ---- one row stands in many documents ----
sql(q{UPDATE decks SET name = 'renamed' WHERE id = 1; UPDATE decks SET name = 'renamed too' WHERE id = 2});
sql(q{UPDATE decks SET name = 'renamed again' WHERE id = 1; UPDATE cards SET deck = 3 WHERE id <= 100});
cards_arrive('one row in thousands of documents');

# In 100,000: they would fill the lane's memory many times.
sql(q{SELECT plinth.sync_document('grains', 'docs', 'grains', 'grains',
	'SELECT g.id, h.name AS heap FROM grains g JOIN heaps h ON h.id = g.heap', snapshot => false);
	SELECT plinth.sync_pause('grains')});
delivered('paused');
my $before = lane_peak();
sql(q{UPDATE heaps SET name = 'renamed'});
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dirty') eq '100000' }), 'one row in 100,000 documents: all are owed');
ok(wait_until(sub { stat_of('grains', 'keys_owed') == 100_000 }), 'in the table, and none in memory');
cmp_ok(lane_peak() - $before, '<', 16 * 1024, 'the lane took little memory for it');
sql(q{SELECT plinth.sync_drop('grains')});

# ---- MongoDB is away, then the mapping paused: no WAL is kept, roots are ----
$proxy->refuse;
sql(q{UPDATE votes SET value = value + 1 WHERE id % 7 = 0; UPDATE authors SET name = 'away' WHERE id = 1;
	UPDATE replies SET thread_id = 3 WHERE id % 11 = 0; UPDATE decks SET name = 'away' WHERE id = 2});
ok(confirmed(lsn()), 'while MongoDB is away the slot moves on');
cmp_ok(sql('SELECT count(*) FROM plinth.sync_dirty WHERE zombie_stage = 0'), '>=', 10, 'and their documents are written down');
sql(q{UPDATE threads SET board_id = 1 + board_id % 4 WHERE id < 5});
$proxy->pass;
boards_arrive('it is back');
cards_arrive('for both');

sql(q{SELECT plinth.sync_pause('boards')});
sql(q{UPDATE votes SET value = value + 1 WHERE id % 5 = 0; UPDATE authors SET name = 'paused' WHERE id = 2});
ok(confirmed(lsn()), 'so it does while the mapping is paused');
is(sql('SELECT count(*) FROM plinth.sync_via'), '0', 'for which roots are looked for as ever');
sql('UPDATE threads SET board_id = 1 + board_id % 4 WHERE id > 7');
sql(q{SELECT plinth.sync_resume('boards')});
boards_arrive('resumed');

# ---- the tables cannot be read: what leads to roots is written down itself ----
my $lock = $node->background_psql('postgres', on_error_stop => 1);
$lock->query_safe('BEGIN; LOCK boards IN ACCESS EXCLUSIVE MODE');
sql(q{UPDATE votes SET value = value + 1 WHERE id % 3 = 0; UPDATE authors SET name = 'locked' WHERE id = 3});
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_via') >= 2 }), 'a locked table: the way to its rows is written down');
ok(confirmed(lsn()), 'and the slot moves on');
sql(q{UPDATE cards SET deck = 2 WHERE id = 5});
ok(wait_until(sub { PlinthTest::value($mongo, "client['app']['cards'].find_one({'_id': 5})['deck']") eq 'away' }), 'others go on');
# Killed with that owed, and with more that was not even decoded.
my $frozen = WorkerTest::freeze($node, 'postgres', 'lane');
sql(q{UPDATE votes SET value = value + 1 WHERE id % 3 = 1; UPDATE replies SET thread_id = 2 WHERE id % 13 = 0;
	SELECT plinth.sync_pause('boards')});
$node->kill9;
eval { $lock->quit };
kill 'KILL', $frozen;
PlinthTest::start_again($node);
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dirty WHERE suspect AND zombie_stage = 0') > 0
			&& sql('SELECT count(*) FROM plinth.sync_via') eq '0' }),
	'found again, roots are owed as what may have been sent');
sql(q{SELECT plinth.sync_resume('boards')});
boards_arrive('killed with that owed');
is(sql('SELECT count(*) FROM plinth.sync_via'), '0', 'nothing is left of it');

# ---- and killed at whatever point ----
for my $round (1 .. 3)
{
	sql("UPDATE votes SET value = value + $round WHERE id % 2 = 0; UPDATE authors SET name = 'round $round';"
		  . ' UPDATE threads SET board_id = 1 + board_id % 4; UPDATE replies SET thread_id = 1 + thread_id % 12 WHERE id % 4 = 0;'
		  . " UPDATE decks SET name = 'round $round' WHERE id = 3");
	$node->kill9;
	PlinthTest::start_again($node);
}
boards_arrive('killed at three points');
cards_arrive('of the many too');

# ---- a commit that was decoded before another one, and is visible after it ----
sql(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
sql('SELECT pg_reload_conf()');
# Replies 1 and 2 of one thread: the first change waits for a standby, its commit is in the WAL.
sql(q{SET synchronous_commit = local; UPDATE replies SET thread_id = 2 WHERE id IN (1, 2)});
# Nothing else is about to be read.
ok(wait_until(sub { sql('SELECT sum(keys_owed + keys_to_rewrite) FROM plinth.stat_sync') == 0
			&& sql('SELECT (SELECT count(*) FROM plinth.sync_dirty) + (SELECT count(*) FROM plinth.sync_via) + (SELECT count(*) FROM plinth.sync_tasks)') == 0
			&& sql('SELECT plinth.sync_wait($$0s$$)') eq 't' }), 'all is calm');
my $hidden = $node->background_psql('postgres', on_error_stop => 1);
my $hidden_pid = $hidden->query_safe('SELECT pg_backend_pid()');
$hidden->query_until(qr/sent/, "\\echo sent\nUPDATE replies SET body = 'hidden' WHERE id = 1;\n");
ok(wait_until(sub { sql("SELECT wait_event FROM pg_stat_activity WHERE pid = $hidden_pid") eq 'SyncRep' }), 'a commit waits');
sql(q{SET synchronous_commit = local; UPDATE replies SET body = 'seen' WHERE id = 2});
sql(q{SET synchronous_commit = local; UPDATE cards SET deck = 3 WHERE id = 6});
ok(wait_until(sub { PlinthTest::value($mongo, "client['app']['cards'].find_one({'_id': 6})['deck']") eq 'round 3' }),
	'what came after it has arrived');
unlike(PlinthTest::value($mongo, "str(list(client['app']['boards'].find()))"), qr/seen/, 'but what stands in one document with it');
sql(q{ALTER SYSTEM RESET synchronous_standby_names});
sql('SELECT pg_reload_conf()');
$hidden->quit;
boards_arrive('it is visible');

# The slot waits for it, though all that came after it is delivered: killed there, it is decoded again.
sql(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
sql('SELECT pg_reload_conf()');
$hidden = $node->background_psql('postgres', on_error_stop => 1);
$hidden_pid = $hidden->query_safe('SELECT pg_backend_pid()');
$hidden->query_until(qr/sent/, "\\echo sent\nUPDATE replies SET body = 'hidden again' WHERE id = 1;\n");
ok(wait_until(sub { sql("SELECT wait_event FROM pg_stat_activity WHERE pid = $hidden_pid") eq 'SyncRep' }), 'another one waits');
my $ahead = lsn();
ok(wait_until(sub {
			sql(q{SET synchronous_commit = local; UPDATE cards SET deck = 1 + deck % 2 WHERE id = 7});
			sql("SELECT s.fence_lsn > '$ahead' FROM plinth.sync_states s JOIN plinth.sync_mappings m ON m.id = s.mapping_id"
				  . " WHERE m.name = 'cards'") eq 't' }), 'what came after it is fenced');
is(sql("SELECT confirmed_flush_lsn <= '$ahead' FROM pg_replication_slots"), 't', 'the slot has not passed it');
sql(q{SET synchronous_commit = local; ALTER SYSTEM RESET synchronous_standby_names});
$node->kill9;
eval { $hidden->quit };
PlinthTest::start_again($node);
boards_arrive('killed before it was visible');
like(PlinthTest::value($mongo, "str(list(client['app']['boards'].find()))"), qr/hidden again/, 'it was committed');

is(sql(q{SELECT count(*) FROM plinth.sync_verify('boards')}), '0', 'sync_verify finds nothing');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), '0', 'no dead letters');
done_testing();
