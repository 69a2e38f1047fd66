# Declared indexes: all that seed 001 lists, seen by PyMongo; before and after
# the rows; what fails, differs, is missing or is not declared; nothing waits
# for one that is being built.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use PlinthTest qw(wait_until);
use Test::More;

my $node = PlinthTest::node('indexes', conf => "plinth.sync_timeout = '1s'\nplinth.sync_zombie_window = '100ms'");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'forum');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub py { return PlinthTest::value($mongo, $_[0]); }
sub state_of { return sql("SELECT state FROM plinth.stat_sync_indexes WHERE name = '$_[0]' AND index = '$_[1]'"); }

sub becomes
{
	my ($mapping, $index, $state, $name) = @_;
	ok(wait_until(sub { state_of($mapping, $index) eq $state }), $name)
	  or diag(sql('SELECT name, index, state, reason, hint FROM plinth.stat_sync_indexes'));
	return;
}

sub synced
{
	my ($name) = @_;
	is(sql("SELECT plinth.sync_wait('180s')"), 't', $name);
	return;
}

# The indexes of a collection by name, as PyMongo's index_information tells them.
sub listed
{
	my ($collection) = @_;
	my $all = py("{k: {x: y for x, y in v.items() if x not in ('v', 'ns')}"
		  . " for k, v in client['forum']['$collection'].index_information().items() if k != '_id_'}");
	return $all;
}

# --- all that seed 001 lists ---
my %seed = (
	replies => [ '{"threadId": 1, "createdAt": -1}', '{"userId": 1}', '{"parentReplyId": 1}' ],
	reactions => [ '{"threadId": 1, "type": 1}', [ '{"threadId": 1, "userId": 1}', '"unique": true' ] ],
	chat_sessions => ['{"userId": 1, "createdAt": -1}'],
	chat_messages => ['{"sessionId": 1, "createdAt": 1}'],
	wallets       => [ [ '{"userId": 1}', '"unique": true' ] ],
	transactions  => ['{"userId": 1, "createdAt": -1}']);
sql(<<'SQL');
CREATE TABLE replies (id bigint PRIMARY KEY, thread_id int, user_id int, parent_reply_id bigint, created_at timestamptz DEFAULT now());
CREATE TABLE reactions (id bigint PRIMARY KEY, thread_id int, user_id int, type text, created_at timestamptz DEFAULT now());
CREATE TABLE chat_sessions (id bigint PRIMARY KEY, user_id int, created_at timestamptz DEFAULT now());
CREATE TABLE chat_messages (id bigint PRIMARY KEY, session_id int, created_at timestamptz DEFAULT now());
CREATE TABLE wallets (id bigint PRIMARY KEY, user_id int, balance numeric);
CREATE TABLE transactions (id bigint PRIMARY KEY, user_id int, created_at timestamptz DEFAULT now());
INSERT INTO replies SELECT g, g % 10, g % 7 FROM generate_series(1, 300) g;
INSERT INTO wallets SELECT g, g, g FROM generate_series(1, 50) g;
SQL
foreach my $table (sort keys %seed)
{
	my $json = join ', ', map { ref $_ ? qq({"keys": $_->[0], $_->[1]}) : qq({"keys": $_}) } @{ $seed{$table} };
	sql("SELECT plinth.sync_table('$table', 'docs', field_names => 'camelCase', indexes => '[$json]')");
}
synced('all mappings are delivered');
is(sql("SELECT string_agg(DISTINCT state, ' ') || ' ' || count(*) FROM plinth.stat_sync_indexes"), 'ready 9',
	'a snapshot waits for the indexes that are built before it');
is(sql("SELECT count(*) FROM plinth.stat_sync_indexes WHERE reason IS NOT NULL OR checked_at IS NULL"), '0', 'nothing is wrong with any');
is_deeply(listed('replies'),
	{   'threadId_1_createdAt_-1' => { key => [ [ 'threadId', 1 ], [ 'createdAt', -1 ] ] },
		'userId_1'                => { key => [ [ 'userId', 1 ] ] },
		'parentReplyId_1'         => { key => [ [ 'parentReplyId', 1 ] ] } },
	'replies: PyMongo sees them, keys in their order');
is_deeply(listed('reactions'),
	{   'threadId_1_type_1'   => { key => [ [ 'threadId', 1 ], [ 'type', 1 ] ] },
		'threadId_1_userId_1' => { key => [ [ 'threadId', 1 ], [ 'userId', 1 ] ], unique => JSON::PP::true } },
	'reactions: one of them unique');
is_deeply([ map { sort keys %{ listed($_) } } qw(chat_sessions chat_messages wallets transactions) ],
	[qw(userId_1_createdAt_-1 sessionId_1_createdAt_1 userId_1 userId_1_createdAt_-1)], 'the others');
is(sql("SELECT count(*) FROM plinth.sync_verify('replies')"), '0', 'and sync_verify finds no difference');

# --- before: the snapshot waits, nothing else does, however long it takes ---
sql(<<'SQL');
CREATE TABLE held (id int PRIMARY KEY, a int, b text);
INSERT INTO held SELECT g, g FROM generate_series(1, 20) g;
SQL
$proxy->command('hold held');
sql(q{SELECT plinth.sync_table('held', 'docs', indexes => '{"keys": {"a": 1}}')});
becomes('held', 'a_1', 'building', 'a build that takes long is told');
ok(wait_until(sub { $proxy->stats->{holding} > 0 }), 'it is under way');
sql("INSERT INTO held VALUES (100, 100); INSERT INTO replies VALUES (1000)");
ok(wait_until(sub { py("client['forum']['held'].count_documents({'_id': 100})") == 1 }), 'what changes is sent');
ok(wait_until(sub { py("client['forum']['replies'].count_documents({'_id': 1000})") == 1 }), 'to other collections, too');
# Longer than a command may take: 1 s, and 2 s more for the socket.
my $until = time + 4;
wait_until(sub { time > $until });
is(state_of('held', 'a_1'), 'building', 'no time-out ends it');
is(sql("SELECT task || ' ' || task_done FROM plinth.stat_sync WHERE name = 'held'"), 'snapshot 0', 'the rows that exist wait for the index');
$proxy->release;
becomes('held', 'a_1', 'ready', 'it ends when the server says so');
synced('and then they go');
is($mongo->count('forum', 'held'), 21, 'all of them');

# --- after: once the rows are there ---
{
	sql('CREATE TABLE late (id int PRIMARY KEY, a int); INSERT INTO late SELECT g, g % 3 FROM generate_series(1, 10) g');
	sql(q{SELECT plinth.sync_table('late', 'docs', indexes => '[{"keys": {"a": 1}, "unique": true, "when": "after"}]')});
	becomes('late', 'a_1', 'failed', 'a unique index over values that are not fails');
	synced('no document waits for it');
	is($mongo->count('forum', 'late'), 10, 'the rows are all there: it was built after them');
	my $row = sql("SELECT reason || '|' || hint FROM plinth.stat_sync_indexes WHERE name = 'late'");
	like($row, qr/11000.*\|Rows have the same value/s, 'the reason is told');
	like(sql("SELECT state || ' ' || coalesce(reason, '-') FROM plinth.stat_sync WHERE name = 'late'"), qr/^streaming/, 'the mapping goes on');
	like(sql("SELECT difference FROM plinth.sync_verify('late')"), qr/^index "a_1" is missing$/, 'sync_verify says that it is missing');
	sql("UPDATE late SET a = id; SELECT plinth.sync_wait('180s')");
	sql(q{SELECT plinth.sync_index('late', '{"keys": {"a": 1}, "unique": true}')});
	becomes('late', 'a_1', 'ready', 'declared again once the rows are mended, it is made');
	is_deeply(listed('late'), { a_1 => { key => [ [ 'a', 1 ] ], unique => JSON::PP::true } }, 'unique');
}

# --- what others did in MongoDB ---
py(q{[client['forum']['replies'].drop_index('userId_1'), client['forum']['replies'].drop_index('parentReplyId_1'),
	client['forum']['replies'].create_index('parentReplyId', name='parentReplyId_1', unique=False, sparse=True),
	client['forum']['replies'].create_index('createdAt')] and 1});
my ($rc, $out, $err) = $node->psql('postgres', "SELECT key, difference FROM plinth.sync_verify('replies') ORDER BY 2");
is($out, join("\n", '|index "parentReplyId_1": sparse is declared false, and is true', '|index "userId_1" is missing'), 'sync_verify finds both');
like($err, qr/NOTICE:  index "createdAt_1" of collection "replies" is not declared/, 'and tells of the one that nobody declared');
sql("SELECT * FROM plinth.sync_verify('replies', repair => true)");
ok(wait_until(sub { listed('replies')->{userId_1} }), 'repair makes what is missing');
becomes('replies', 'parentReplyId_1', 'different', 'what differs is told');
like(sql("SELECT reason || '|' || hint FROM plinth.stat_sync_indexes WHERE index = 'parentReplyId_1'"), qr/sparse is declared false.*rebuild/, 'and how to mend it');
ok(listed('replies')->{parentReplyId_1}{sparse}, 'but not dropped unasked');
ok(listed('replies')->{createdAt_1}, 'nor is what nobody declared');
sql(q{SELECT plinth.sync_index('replies', '{"keys": {"parentReplyId": 1}}', rebuild => true)});
becomes('replies', 'parentReplyId_1', 'ready', 'asked for, it is built anew');
ok(!listed('replies')->{parentReplyId_1}{sparse}, 'as declared');

# --- ending one ---
sql("SELECT plinth.sync_index_drop('replies', 'userId_1'), plinth.sync_index_drop('replies', 'parentReplyId_1', forget => true)");
ok(wait_until(sub { state_of('replies', 'userId_1') eq '' && !listed('replies')->{userId_1} }), 'dropped there and here');
ok(listed('replies')->{parentReplyId_1}, 'forgotten only, it stays there');

# --- what the server refuses, and a server that is away ---
$proxy->command('answer {"ok": 0.0, "errmsg": "Index build failed: no", "code": 67, "codeName": "CannotCreateIndex"} wallets');
sql(q{SELECT plinth.sync_index('wallets', '{"keys": {"balance": -1}}')});
becomes('wallets', 'balance_-1', 'failed', 'what the server refuses has failed');
like(sql("SELECT reason FROM plinth.stat_sync_indexes WHERE index = 'balance_-1'"), qr/no \(code 67\)/, 'with its reason');
$proxy->refuse;
sql(q{SELECT plinth.sync_index('wallets', '{"keys": {"balance": -1}}')});
ok(wait_until(sub { sql("SELECT reason FROM plinth.stat_sync_indexes WHERE index = 'balance_-1'") =~ /unreachable/ }), 'a server that is away is told');
is(state_of('wallets', 'balance_-1'), 'waiting', 'and waited for');
$proxy->pass;
becomes('wallets', 'balance_-1', 'ready', 'until it is back');

# --- a collection that was dropped there ---
py("client['forum'].drop_collection('chat_sessions') and 0");
sql("INSERT INTO chat_sessions VALUES (1, 1)");
sql("SELECT plinth.sync_resync('chat_sessions')");
synced('everything again');
ok(wait_until(sub { listed('chat_sessions')->{'userId_1_createdAt_-1'} }), 'sync_resync makes the indexes again, too');

$node->stop;
done_testing();
