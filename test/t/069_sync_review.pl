
# What a hostile reading of the sync engine found: each case here was wrong once.

use strict;
use warnings;
use JSON::PP;
use PlinthTest;
use Test::More;

my $node = PlinthTest::node('main',
	conf => "plinth.sync_zombie_window = 500\nplinth.sync_checkpoint_interval = 500");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'forum');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub synced
{
	my ($name) = @_;
	is(sql("SELECT plinth.sync_wait('180s')"), 't', $name);
	return;
}

# _id:field of every document, as one string
sub there
{
	my ($collection, $field) = @_;
	return join ',', sort @{
		$mongo->eval("['%s:%s' % (d['_id'], d['$field']) for d in client['forum']['$collection'].find()]") };
}

# ---- a child that inherits from a synced table is not part of it ----
sql(q{
CREATE TABLE parent (id int PRIMARY KEY, v int);
INSERT INTO parent VALUES (1, 2);
SELECT plinth.sync_table('parent', 'docs');
CREATE TABLE child () INHERITS (parent);
INSERT INTO child VALUES (1, 100), (5, 100);
});
synced('a table that was inherited from');
sql("UPDATE parent SET v = v + 1; SELECT plinth.sync_resync('parent')");
synced('sent again');
is(there('parent', 'v'), '1:3', 'only its own rows are sent');

# ---- code of a table's owner, which the lane runs, leaves nothing behind ----
sql(q{
CREATE ROLE mallory LOGIN;
CREATE SCHEMA mallory AUTHORIZATION mallory;
GRANT USAGE ON SCHEMA plinth TO mallory;
GRANT USAGE ON FOREIGN SERVER docs TO mallory;
SET ROLE mallory;
CREATE TABLE mallory.seen (who text, what text);
CREATE FUNCTION mallory.eq(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF pg_catalog.current_setting('is_superuser') = 'on' THEN
		INSERT INTO mallory.seen VALUES (current_user, 'eq');
	END IF;
	RETURN pg_catalog.int8eq(a, b);
END $$;
CREATE OPERATOR mallory.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = mallory.eq);
CREATE FUNCTION mallory.keeps(v int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'mallory, pg_catalog', false);
	RETURN true;
END $$;
CREATE TABLE mallory.bait (id int PRIMARY KEY, v int);
INSERT INTO mallory.bait VALUES (1, 1);
SELECT plinth.sync_table('mallory.bait', 'docs', filter => 'mallory.keeps(v)');
});
synced('a filter that changes search_path');
for my $round (1 .. 2)
{
	sql(q{SET ROLE mallory; SELECT plinth.sync_pause('bait'); UPDATE mallory.bait SET v = v + 1});
	sql(q{SET ROLE mallory; SELECT plinth.sync_resume('bait')});
	synced('and its mapping is loaded again');
}
is(sql('SELECT count(*) FROM mallory.seen'), 0, 'nothing of the owner ran as superuser');
sql(q{SELECT plinth.sync_drop('bait')});

# ---- a partition that is rewritten without a change of its definition ----
sql(q{
CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO parts VALUES (1, 1), (11, 11);
SELECT plinth.sync_table('parts', 'docs');
});
synced('a partitioned table');
sql('ALTER TABLE parts ALTER COLUMN v TYPE int USING v + 100');
synced('its values were rewritten in place');
is(there('parts', 'v'), '11:111,1:101', 'and are there');

# ---- a mapping that is blocked at a checkpoint keeps no WAL ----
sql(q{
CREATE TABLE fenced (id int PRIMARY KEY, v int);
CREATE TABLE other (id int);
INSERT INTO fenced VALUES (1, 1);
SELECT plinth.sync_table('fenced', 'docs');
});
synced('another table');
# Its fence is at rest: the next one is that of the UPDATE.
PlinthTest::settled($node);
$mongo->eval("client['forum']['plinth_sync'].delete_many({'_id': 'fenced'}).deleted_count") == 1
  or diag 'the fence was not found';
sql('UPDATE fenced SET v = 2');
ok(PlinthTest::wait_until(
		sub { sql("SELECT state FROM plinth.stat_sync WHERE name = 'fenced'") eq 'blocked' }),
	'it is blocked when its fence has gone');
my $lsn = sql('INSERT INTO other VALUES (1); SELECT pg_current_wal_flush_lsn()');
ok( PlinthTest::wait_until(
		sub {
			sql('INSERT INTO other VALUES (1)');
			sql("SELECT confirmed_flush_lsn > '$lsn' FROM pg_replication_slots") eq 't';
		}),
	'the slot moves on');
is(sql("SELECT keys_owed > 0 FROM plinth.stat_sync WHERE name = 'fenced'"),
	't', 'what was not fenced is owed');
sql(q{SELECT plinth.sync_resync('fenced')});
synced('resync lifts the block');
is(there('fenced', 'v'), '1:2', 'and the row is there');

# ---- the connection breaks while a conflict of unique values is settled ----
$mongo->eval("client['forum']['seats'].create_index('place', unique=True); result = 1",
	statements => 1);
sql(q{
CREATE TABLE seats (id int PRIMARY KEY, place int);
INSERT INTO seats VALUES (1, 1), (2, 2);
SELECT plinth.sync_table('seats', 'docs');
});
synced('rows with a unique value');
my $refused = '"code": 11000, "errmsg": "E11000 duplicate key error collection: forum.seats index: place_1 dup key: { }"';
$proxy->command(qq({"ok": 1, "n": 0, "writeErrors": [{"index": 0, $refused}, {"index": 1, $refused}]} seats) =~ s/^/answer /r);
$proxy->command('cut-request 0 seats');
sql('UPDATE seats SET place = 3 - place');
synced('two swapped them, and the connection broke meanwhile');
ok(PlinthTest::wait_until(sub { there('seats', 'place') eq '1:2,2:1' }), 'both are there')
  or diag there('seats', 'place');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'neither is a dead letter');

# ---- a server that answers for a while with errors of its own ----
sql(q{
CREATE TABLE disk (id int PRIMARY KEY, v int);
INSERT INTO disk VALUES (1, 1);
SELECT plinth.sync_table('disk', 'docs');
});
synced('a table');
my $full = '{"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": 14031, "errmsg": "no space left"}]}';
my $before = $proxy->stats->{injected};
$proxy->command("answer-all $full disk");
my $start = time();
sql('UPDATE disk SET v = 2');
ok(PlinthTest::wait_until(sub { $proxy->stats->{injected} - $before >= 3 }), 'what a server refuses for now is tried again');
PlinthTest::wait_until(sub { time() >= $start + 2 });
my $tries = $proxy->stats->{injected} - $before;
cmp_ok($tries, '<=', 5 * (time() - $start + 1), 'though not without a pause');
$proxy->pass;
synced('in the end it is taken');
is(there('disk', 'v'), '1:2', 'it is there');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'and no dead letter');
# ---- a document that is not ours has the value ----
$mongo->eval("client['forum']['chairs'].create_index('place', unique=True); "
	  . "client['forum']['chairs'].insert_one({'_id': 'stranger', 'place': 7}); result = 1",
	statements => 1);
sql(q{
CREATE TABLE chairs (id int PRIMARY KEY, place int);
INSERT INTO chairs VALUES (1, 7);
SELECT plinth.sync_table('chairs', 'docs', on_existing => 'replace');
});
synced('a collection that is replaced');
ok(PlinthTest::wait_until(sub { there('chairs', 'place') eq '1:7' }), 'the row is there')
  or diag there('chairs', 'place');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'and no dead letter');

# ---- a key that its domain would not take any more ----
sql(q{
CREATE DOMAIN slug AS text;
CREATE TABLE pages (id slug PRIMARY KEY, v int);
INSERT INTO pages VALUES ('short', 1), ('far too long', 2);
SELECT plinth.sync_table('pages', 'docs');
});
synced('a key of a domain');
sql(q{ALTER DOMAIN slug ADD CHECK (length(VALUE) < 6) NOT VALID});
sql(q{DELETE FROM pages WHERE v = 2});
synced('a row is deleted whose key its domain refuses by now');
is(there('pages', 'v'), 'short:1', 'and so is its document');

# ---- rows that came by a transaction for which the reader had to wait ----
sql(q{
CREATE TABLE swept (id int PRIMARY KEY, v int);
INSERT INTO swept VALUES (1, 1);
SELECT plinth.sync_table('swept', 'docs');
});
synced('one more table');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe('TRUNCATE swept');
$session->query_safe('INSERT INTO swept VALUES (1, 3)');
sql("SELECT plinth.sync_resync('swept', '{1}')");
ok(PlinthTest::wait_until(
		sub { sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'swept'::regclass") > 0 }),
	'the reader waits for a TRUNCATE');
$session->query_safe('COMMIT');
synced('and the rest is written');
is(there('swept', 'v'), '1:3', 'the row is there');
is(sql("SELECT documents_deleted FROM plinth.stat_sync WHERE name = 'swept'"),
	0, 'and its document was never away');
$session->quit;

# ---- a database in another encoding ----
sub latin { return $node->safe_psql('latin', $_[0]); }
$node->safe_psql('postgres',
	"CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
latin('CREATE EXTENSION plinth');
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'latin', dbname => 'latin');
latin(q{
CREATE TABLE words (id text PRIMARY KEY, word text);
INSERT INTO words VALUES (chr(233), chr(232)), ('a', 'b');
SELECT plinth.sync_table('words', 'docs', on_existing => 'replace');
});
is(latin("SELECT plinth.sync_wait('180s')"), 't', 'a database in LATIN1');
is($mongo->eval("client['latin']['words'].find_one({'_id': '\\u00e9'})['word'] == '\\u00e8'"),
	JSON::PP::true, 'sends UTF-8');
$mongo->eval("client['latin']['words'].insert_one({'_id': '\\u6f22'}); result = 1", statements => 1);
latin(q{TRUNCATE words; INSERT INTO words VALUES ('n', 'm')});
is(latin("SELECT plinth.sync_wait('180s')"), 't', 'and sweeps what it cannot even say');
is($mongo->eval("[d['_id'] for d in client['latin']['words'].find()] == ['n']"),
	JSON::PP::true, 'so that only its row is left');
is(latin("SELECT count(*) FROM plinth.sync_verify('words')"), 0, 'which sync_verify finds too');

# ---- more pairs of server and owner than there are lanes ----
for my $i (1 .. 15)
{
	PlinthTest::sync_server($node, "more$i", $mongo->uri, "more$i");
	sql("CREATE TABLE more$i (id int PRIMARY KEY); SELECT plinth.sync_table('more$i', 'more$i')");
}
PlinthTest::sync_server($node, 'toomany', $mongo->uri, 'toomany');
sql('CREATE TABLE toomany (id int PRIMARY KEY)');
PlinthTest::psql_fails_like($node, 'postgres', "SELECT plinth.sync_table('toomany', 'toomany')",
	qr/more than 16 pairs/, 'one pair too many');
sql("SELECT plinth.sync_table('toomany', 'more1', name => 'toomany')");
synced('the others go on');

$node->stop('fast');
done_testing();
