# A user goes, by rule and by foreign keys alike: the rows and documents of the
# forum's ten collections, looked at by a client that is not ours.
use strict;
use warnings;

use ExamplesTest;
use PlinthTest qw(psql_ok psql_fails_like wait_until);
use Test::More;

my $node = PlinthTest::node('cascade', root_key => 1, conf => "plinth.sync_checkpoint_interval = '200ms'");
my $mongo = PlinthTest::mongo_start();
my $database = ExamplesTest::install($node, 'postgres', $mongo, 'forum');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub arrives { return ExamplesTest::arrives($node, 'postgres', $_[0]); }
sub count { my ($collection, $where) = @_; return PlinthTest::value($mongo, "client['$database']['$collection'].count_documents(" . ($where // '{}') . ')'); }

# How many documents name a member, wherever a document can.
my @names = (
	[ 'replies', 'userId' ], [ 'reactions', 'userId' ], [ 'wallets', 'userId' ], [ 'transactions', 'userId' ], [ 'chat_sessions', 'userId' ],
	[ 'documents', 'userId' ], [ 'reports', 'reporterId' ], [ 'reports', 'resolvedBy' ], [ 'user_warnings', 'userId' ],
	[ 'user_warnings', 'adminId' ], [ 'device_bans', 'bannedBy' ]);
sub named
{
	my ($member) = @_;
	my $where = join ', ', map { "'$_->[0].$_->[1]': client['$database']['$_->[0]'].count_documents({'$_->[1]': $member})" } @names;
	my $found = PlinthTest::value($mongo, "{$where}");
	return { map { ($_ => $found->{$_}) } grep { $found->{$_} } keys %$found };
}

arrives('at first');
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_sync_indexes WHERE state <> 'ready'") == 0 }), 'every index is there')
  or diag(sql('SELECT * FROM plinth.stat_sync_indexes'));
ExamplesTest::shapes($mongo, 'forum', $database);
is(scalar keys %{ named(1) }, 10, 'member 1 is named in all collections that can name one') or diag(explain(named(1)));

# By rule, in one call; rolled back, nothing has happened.
my $report = "SELECT relation, action, by_rule, row_count > 0, array_to_string(collections, ',') FROM plinth.sync_cascade('user', '1')";
sql("BEGIN; $report; ROLLBACK");
arrives('rolled back');
is(scalar keys %{ named(1) }, 10, 'what is rolled back was never asked for');

my %before = map { ($_ => count($_)) } qw(transactions reports device_bans wallets thread_pages);
my $messages = sql("SELECT string_agg(quote_literal(m.id), ',') FROM forum.chat_messages m JOIN forum.chat_sessions s ON s.id = m.session_id WHERE s.user_id = 1");
my $replies = sql('SELECT count(*) FROM forum.replies WHERE user_id = 1 AND thread_id NOT IN (SELECT id FROM forum.threads WHERE author_id = 1)');
is(sql("SET ROLE forum; SET search_path = forum; $report"), <<'END' =~ s/\n\z//r, 'the report tells each table, and what foreign keys took besides');
replies|anonymised|t|t|replies,thread_pages
reactions|deleted|t|t|reactions,thread_pages
transactions|anonymised|t|t|transactions
chat_sessions|deleted|t|t|chat_sessions
documents|deleted|t|t|documents
reports|anonymised|t|t|reports
reports|anonymised|t|t|reports
user_warnings|deleted|t|f|user_warnings
user_warnings|anonymised|t|t|user_warnings
device_bans|anonymised|t|t|device_bans
wallets|deleted|t|t|wallets
members|deleted|t|t|thread_pages
threads|deleted|f|t|thread_pages,threads
replies|deleted|f|t|replies,thread_pages
reactions|deleted|f|t|reactions,thread_pages
transactions|updated|f|t|transactions
chat_messages|deleted|f|t|chat_messages
user_badges|deleted|f|t|
user_badges|updated|f|t|
END
arrives('by rule');
is_deeply(named(1), {}, 'no document names the member any more');
is(PlinthTest::value($mongo, "client['$database']['chat_messages'].count_documents({'_id': {'\$in': [$messages]}})"), 0, 'nor is a message of theirs left');
is(count('replies', "{'userId': None, 'username': '[deleted]'}"), $replies, 'what they wrote under threads of others is there, without the name');
is(count($_), $before{$_}, "no document of $_ is missing") for qw(transactions reports device_bans);
is(count('wallets'), $before{wallets} - 1, 'the wallet is gone');
is(PlinthTest::value($mongo, "client['$database']['thread_pages'].count_documents({'\$or': [{'author': 'member1'}, {'replies.userId': 1}, {'replies.username': 'member1'}]})"),
	0, 'no page names them');
cmp_ok(count('thread_pages'), '<', $before{thread_pages}, 'and their own pages are gone');
is(sql(q{SELECT count(*) FROM plinth.audit_entries WHERE action = 'plinth.sync_cascade' AND resource = 'user:1'}), 1, 'it is on record');

# By foreign keys alone: the user's row goes, and with it what refers to it.
isnt(scalar keys %{ named(8) }, 0, 'member 8 is there');
sql("DELETE FROM plinth.users WHERE username = 'member8'");
arrives('by foreign keys');
is_deeply(named(8), {}, 'no document names a user whose row is gone');
is(count('transactions', "{'userId': None}"), 12, 'transactions stay, by ON DELETE SET NULL');

# A member leaves, as themselves, and nobody else can make them.
sql("SELECT plinth.password_set(id, 'a long enough password') FROM plinth.users WHERE username = 'member9'");
my $leave = q{SELECT plinth.context_begin(plinth_token) FROM (SELECT token AS plinth_token FROM plinth.sign_in('member9', 'a long enough password')) v; SELECT count(*) > 10 FROM forum.leave()};
psql_fails_like($node, 'postgres', "SET ROLE authenticated; SELECT * FROM plinth.sync_cascade('user', '9')", qr/permission denied/, 'not by the key');
like(sql("BEGIN; SET LOCAL ROLE anon; $leave; COMMIT"), qr/^t$/m, 'they leave');
arrives('by themselves');
is_deeply(named(9), {}, 'and are gone from every collection');
is(sql('SELECT count(*) FROM forum.members WHERE id IN (1, 8, 9)'), 0, 'as from the forum');
is(sql("SELECT count(*) FROM plinth.sync_verify('thread_pages')"), 0, 'both sides are equal');

done_testing();
