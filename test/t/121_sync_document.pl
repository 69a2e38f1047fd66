# Documents of several tables: whatever changes in any of them, at each hop of
# the way from a row to its root, arrives.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use DocumentTest;
use Test::More;

my $node = PlinthTest::node('document', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_retry_max = '500ms'
jit = off
CONF
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub stat_of { return sql("SELECT $_[1] FROM plinth.stat_sync WHERE name = '$_[0]'"); }

sql(DocumentTest::schema());
sql(DocumentTest::mapping('boards'));
my $expected = DocumentTest::expected();
sub arrives
{
	my ($name) = @_;
	is(sql("SELECT plinth.sync_wait('180s')"), 't', "$name: delivered") or diag(sql('SELECT * FROM plinth.stat_sync'));
	return equal_ok($node, 'postgres', $expected, $mongo, 'app', 'boards', $name, 0);
}
arrives('snapshot');

# ---------------------------------------------------------------------------
my @changes = (
	'a vote is cast'           => 'INSERT INTO votes (reply_id, value) VALUES (3, 5)',
	'a vote changes'           => 'UPDATE votes SET value = value + 1 WHERE id = 1',
	'a vote moves'             => 'UPDATE votes SET reply_id = 9 WHERE id = 2',
	'a vote is taken back'     => 'DELETE FROM votes WHERE id = 3',
	'a vote for nothing'       => 'INSERT INTO votes (reply_id, value) VALUES (NULL, 7)',
	'it is for something now'  => 'UPDATE votes SET reply_id = 4 WHERE reply_id IS NULL',
	'and for nothing again'    => 'UPDATE votes SET reply_id = NULL WHERE value = 7',
	'a reply is written'       => q{INSERT INTO replies VALUES (100, 2, 1, 'new')},
	'a reply changes'          => q{UPDATE replies SET body = 'changed' WHERE id = 1},
	'a reply gets another key' => 'UPDATE replies SET id = 1000 WHERE id = 2',
	'a reply moves'            => 'UPDATE replies SET thread_id = 4 WHERE id = 5',
	'a reply goes'             => 'DELETE FROM replies WHERE id = 6',
	'another author'           => 'UPDATE replies SET author_id = 2 WHERE id = 7',
	'an author is renamed'     => q{UPDATE authors SET name = name || '!' WHERE id = 1},
	'an author goes'           => 'UPDATE replies SET author_id = NULL WHERE author_id = 3; DELETE FROM authors WHERE id = 3',
	'a thread is opened'       => q{INSERT INTO threads VALUES (100, 3, 'new')},
	'a thread moves'           => 'UPDATE threads SET board_id = 1 WHERE id = 4',
	'a thread gets another key, with its replies' =>
	  'UPDATE threads SET id = 1001 WHERE id = 3; UPDATE replies SET thread_id = 1001 WHERE thread_id = 3',
	'a thread goes, replies stay' => 'DELETE FROM threads WHERE id = 5',
	'and comes back elsewhere' => q{INSERT INTO threads VALUES (5, 2, 'back')},
	'a board is renamed'       => q{UPDATE boards SET title = 'renamed' WHERE id = 1},
	'a board is made'          => q{INSERT INTO boards VALUES (50, 'new')},
	'a board gets another key' => 'UPDATE boards SET id = 51 WHERE id = 50; UPDATE threads SET board_id = 51 WHERE id = 100',
	'a board goes'             => 'DELETE FROM boards WHERE id = 3',
	'a board comes back, its threads were here' => q{INSERT INTO boards VALUES (3, 'back')},
	'a board is hidden by the query' => q{UPDATE boards SET title = 'hidden' WHERE id = 2},
	'and shown'                => q{UPDATE boards SET title = 'shown' WHERE id = 2},
	'the way moves after the change, in one transaction' => <<'SQL',
BEGIN;
INSERT INTO votes (reply_id, value) VALUES (9, 11);
UPDATE replies SET thread_id = 1 WHERE id = 9;
UPDATE threads SET board_id = 2 WHERE id = 1;
COMMIT
SQL
	'and before it' => <<'SQL',
BEGIN;
UPDATE threads SET board_id = 1 WHERE id = 1;
UPDATE replies SET thread_id = 2 WHERE id = 9;
UPDATE votes SET value = 12 WHERE reply_id = 9;
SAVEPOINT s;
DELETE FROM replies WHERE id = 10;
ROLLBACK TO s;
COMMIT
SQL
	'the way there and back'   => <<'SQL',
BEGIN;
UPDATE threads SET board_id = 2 WHERE id = 1;
UPDATE replies SET body = 'while it was there' WHERE thread_id = 1;
UPDATE threads SET board_id = 1 WHERE id = 1;
COMMIT
SQL
	'votes truncated'          => 'TRUNCATE votes',
	'votes again'              => 'INSERT INTO votes (reply_id, value) SELECT id, id FROM replies',
	'two truncated at once'    => 'TRUNCATE replies, votes',
	'replies again'            => q{INSERT INTO replies SELECT g, 1 + g % 5, 1 + g % 2, 'r' || g FROM generate_series(1, 40) g});

# Each by itself, then (a mark of one must not hide behind another's) all at once.
while (my ($name, $change) = splice @changes, 0, 2)
{
	sql($change);
	arrives($name);
}
is(sql("SELECT count(*) FROM plinth.sync_verify('boards')"), '0', 'sync_verify finds nothing');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), '0', 'no dead letters');

# ---- two sessions, of which each alters the way that the other's change goes ----
{
	my $first  = $node->background_psql('postgres', on_error_stop => 1);
	my $second = $node->background_psql('postgres', on_error_stop => 1);

	for my $round (1 .. 4)
	{
		my ($here, $there) = $round % 2 ? (2, 1) : (1, 2);

		$first->query_safe("BEGIN; UPDATE threads SET board_id = $there WHERE id = 2");
		$second->query_safe("BEGIN; UPDATE replies SET body = 'round $round' WHERE thread_id = 2;"
			  . " INSERT INTO votes (reply_id, value) SELECT id, $round FROM replies WHERE thread_id = 2");
		$_->query_safe('COMMIT') for $round > 2 ? ($first, $second) : ($second, $first);
		arrives("concurrent, round $round");
	}
	$_->quit for $first, $second;
}

# ---- the query itself ----
sql("UPDATE boards SET title = 'twice' WHERE id = 1");
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dead_letters') eq '1' }), 'two rows for a root are a dead letter');
like(sql('SELECT reason FROM plinth.sync_dead_letters'), qr/more than one row/, 'which says so');
sql("UPDATE replies SET body = 'more' WHERE thread_id = 5; UPDATE boards SET title = 'other' WHERE id = 2");
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'others go on');
sql("UPDATE boards SET title = 'once' WHERE id = 1");
arrives('it can be read again');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), '0', 'and is no dead letter');

sql("UPDATE boards SET title = 'zero' WHERE id = 1");
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dead_letters') eq '1' }), 'an error over one root is a dead letter');
sql("UPDATE boards SET title = 'one' WHERE id = 1");
arrives('it can be computed again');

# A page of a snapshot meets one too.
sql("UPDATE boards SET title = 'twice' WHERE id = 1");
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dead_letters') eq '1' }), 'once more');
sql("SELECT plinth.sync_resync('boards')");
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'sent again');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), '1', 'and it is judged anew');
sql("UPDATE boards SET title = 'single' WHERE id = 1");
arrives('after resync');

# ---- definitions ----
sql('ALTER TABLE replies ADD COLUMN unused int DEFAULT 5');
arrives('a column that the query does not name');
sql('ALTER TABLE replies RENAME COLUMN body TO said');
ok(wait_until(sub { stat_of('boards', 'state') eq 'blocked' }), 'a column that it names: blocked');
like(stat_of('boards', 'reason'), qr/its query cannot be used: .*body/, 'which says why');
sql("INSERT INTO votes (reply_id, value) VALUES (1, 100); UPDATE authors SET name = 'while it was blocked' WHERE id = 2");
is(sql("SELECT plinth.sync_wait('180s')"), 'f', 'waiting for it ends');
sql('ALTER TABLE replies RENAME COLUMN said TO body');
arrives('renamed back, it goes on');
sql('ALTER TABLE votes RENAME TO ballots');
ok(wait_until(sub { stat_of('boards', 'state') eq 'blocked' }), 'a table that it names: blocked');
sql('CREATE TABLE votes (LIKE ballots); INSERT INTO votes SELECT * FROM ballots');
ok(wait_until(sub { stat_of('boards', 'reason') =~ /another table/ }), 'another of that name is not taken for it');
sql('DROP TABLE votes; INSERT INTO ballots (reply_id, value) VALUES (2, 200); ALTER TABLE ballots RENAME TO votes');
arrives('the old one has its name again');
sql('ALTER TABLE votes ALTER COLUMN value TYPE bigint; UPDATE votes SET value = 5000000000 WHERE reply_id = 1');
arrives('another type');
is(sql("SELECT count(*) FROM plinth.sync_verify('boards')"), '0', 'sync_verify finds nothing');
done_testing();
