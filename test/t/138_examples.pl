# The five seeds' collections, by examples/ as they stand: installed in one
# database, and looked at by PyMongo and by Node's driver.
use strict;
use warnings;

use ExamplesTest;
use IPC::Run;
use JSON::PP;
use PlinthTest qw(equal_ok wait_until);
use Test::More;

my $node = PlinthTest::node('examples', root_key => 1, conf => "plinth.sync_checkpoint_interval = '200ms'");
my $mongo = PlinthTest::mongo_start();
my @apps = qw(forum pasalku chronochat digitwin aichat);
my %database = map { ($_ => ExamplesTest::install($node, 'postgres', $mongo, $_)) } @apps;

sub sql { return $node->safe_psql('postgres', $_[0]); }

ExamplesTest::arrives($node, 'postgres', 'all five');
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_sync_indexes WHERE state NOT IN ('ready', 'different')") == 0 }), 'every index is there')
  or diag(sql("SELECT * FROM plinth.stat_sync_indexes WHERE state <> 'ready'"));
my %collections = (forum => 11, pasalku => 9, chronochat => 2, digitwin => 2, aichat => 2);
is(ExamplesTest::shapes($mongo, $_, $database{$_}), $collections{$_}, "$_: so many collections, and files") for @apps;

# As many documents as rows, and what nests is what the tables say.
my %tables = (
	forum => { map { ($_ => "forum.$_") } qw(replies reactions wallets transactions chat_sessions chat_messages documents reports user_warnings device_bans) },
	pasalku => { map { ($_ => "pasalku.$_") } qw(chat_transcripts document_analyses verification_documents ai_response_cache knowledge_graph_cache user_activity_logs dual_ai_comparisons feature_flag_cache) },
	chronochat => { map { ($_ => "chronochat.$_") } qw(conversations messages) },
	digitwin => { knowledge_documents => 'digitwin.knowledge_documents WHERE deleted_at IS NULL',
		conversations => 'digitwin.conversation_sessions s JOIN digitwin.users u ON u.id = s.user_id WHERE u.deleted_at IS NULL' },
	aichat => { map { ($_ => "aichat.$_") } qw(chats files) });
foreach my $app (@apps)
{
	my %here = map { ($_ => sql("SELECT count(*) FROM $tables{$app}{$_}")) } keys %{ $tables{$app} };
	my $there = PlinthTest::value($mongo, '{' . join(', ', map { "'$_': client['$database{$app}']['$_'].count_documents({})" } keys %here) . '}');
	is_deeply($there, { map { ($_ => 0 + $here{$_}) } keys %here }, "$app: as many documents as rows");
}

# Each upload is where its row says.
my $ids = join ', ', map { "'$_'" } split /\n/, sql('SELECT mongodb_document_id FROM pasalku.document_metadata');
is(PlinthTest::value($mongo, "sum(1 for f in client['$database{pasalku}']['documents.files'].find() if str(f['_id']) in [$ids])"), 18, 'pasalku: each upload is the file that its row names');

my $time = q{to_char(%s AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS')};
sub at { my ($column) = @_; return sprintf $time =~ s/%s/%s/r, $column; }
my %nested = (
	"$database{chronochat}.conversations" => "SELECT json_build_object('_id', c.id, 'conversation_id', c.conversation_id, 'user_id', c.user_id, 'title', c.title, 'summary', c.summary,
		'created_at', ${\ at('c.created_at')}, 'updated_at', ${\ at('c.updated_at')}, 'message_count', count(m.id), 'total_tokens', coalesce(sum(m.tokens), 0),
		'metadata', c.metadata, 'tags', c.tags, 'is_archived', c.is_archived)
		FROM chronochat.conversations c LEFT JOIN chronochat.messages m USING (conversation_id) GROUP BY c.id",
	"$database{pasalku}.chat_transcripts" => "SELECT json_build_object('_id', t.id, 'session_id', s.id, 'user_id', s.user_id, 'title', s.title, 'ai_model', s.ai_model, 'rating', s.rating,
		'created_at', ${\ at('s.created_at')}, 'updated_at', ${\ at('s.updated_at')}, 'total_messages', a.total_messages, 'total_tokens', a.total_tokens, 'avg_confidence_score', a.avg_confidence_score::text,
		'messages', (SELECT json_agg(json_build_object('role', role, 'content', content, 'citations', citations, 'confidence', confidence, 'created_at', ${\ at('created_at')}) ORDER BY id)
			FROM pasalku.chat_messages WHERE session_id = s.id))
		FROM pasalku.chat_transcripts t JOIN pasalku.chat_sessions s ON s.mongodb_transcript_id = t.id JOIN pasalku.session_analytics a ON a.session_id = s.id",
	"$database{aichat}.chats" => "SELECT json_build_object('_id', c.id, 'userId', c.user_id, 'username', u.username, 'title', c.title, 'createdAt', ${\ at(q{c.created_at AT TIME ZONE 'UTC'})}, 'updatedAt', ${\ at(q{c.updated_at AT TIME ZONE 'UTC'})},
		'messages', coalesce((SELECT json_agg(json_build_object('id', id, 'role', role, 'content', content, 'createdAt', ${\ at(q{created_at AT TIME ZONE 'UTC'})}) ORDER BY created_at) FROM aichat.messages WHERE chat_id = c.id), '[]'))
		FROM aichat.chats c JOIN aichat.users u ON u.id = c.user_id",
	"$database{digitwin}.conversations" => "SELECT json_build_object('_id', s.id, 'userId', s.user_id, 'userName', u.name, 'state', s.state, 'llmProvider', s.llm_provider, 'ttsProvider', s.tts_provider,
		'startedAt', ${\ at('s.started_at')}, 'endedAt', ${\ at('s.ended_at')}, 'totalTurns', count(t.id),
		'averageLatencyMs', avg(t.asr_latency_ms + t.rag_latency_ms + t.llm_latency_ms + t.tts_latency_ms)::float8, 'totalCost', coalesce(sum(t.asr_cost + t.llm_cost + t.tts_cost), 0)::text,
		'turns', coalesce(json_agg(json_build_object('userTranscript', t.user_transcript, 'llmResponse', t.llm_response, 'latencyMs', t.asr_latency_ms + t.rag_latency_ms + t.llm_latency_ms + t.tts_latency_ms,
			'cost', (t.asr_cost + t.llm_cost + t.tts_cost)::text, 'createdAt', ${\ at('t.created_at')}) ORDER BY t.created_at) FILTER (WHERE t.id IS NOT NULL), '[]'))
		FROM digitwin.conversation_sessions s JOIN digitwin.users u ON u.id = s.user_id LEFT JOIN digitwin.conversation_turns t ON t.session_id = s.id WHERE u.deleted_at IS NULL GROUP BY s.id, u.id");
sub nested_are_equal
{
	my ($when) = @_;
	foreach my $name (sort keys %nested)
	{
		my ($db, $collection) = split /\./, $name;
		equal_ok($node, 'postgres', $nested{$name}, $mongo, $db, $collection, "$when: $name", 0);
	}
	return;
}
nested_are_equal('at first');

# What only grows does not follow a cascade, and is not said to.
is(sql(<<'SQL'), "user_activity_logs|8|{}\nchat_sessions|2|{chat_transcripts}", 'a cascade names the collections that follow');
BEGIN;
SET LOCAL ROLE pasalku;
DO $$
BEGIN
	PERFORM plinth.sync_cascade_rule('pasalku', 'pasalku.user_activity_logs', 'user_id');
	PERFORM plinth.sync_cascade_rule('pasalku', 'pasalku.chat_sessions', 'user_id');
END $$;
SELECT relation, row_count, collections FROM plinth.sync_cascade('pasalku', (SELECT min(id) FROM pasalku.users)) WHERE by_rule;
ROLLBACK;
SQL

# A change anywhere below a document changes it.
sql(<<'SQL');
UPDATE chronochat.messages SET tokens = tokens + 1000 WHERE content = 'Message 8';
DELETE FROM chronochat.messages WHERE content = 'Message 3';
UPDATE pasalku.chat_messages SET content = 'Pesan diubah' WHERE role = 'user' AND id % 7 = 0;
UPDATE pasalku.session_analytics SET total_tokens = total_tokens * 2;
UPDATE digitwin.users SET name = name || '!' WHERE email LIKE 'twin1%';
UPDATE digitwin.users SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE email IN ('twin9@example.org', 'twin10@example.org');
DELETE FROM digitwin.conversation_turns WHERE user_transcript = 'Question 8';
UPDATE aichat.users SET username = upper(username);
DELETE FROM aichat.users WHERE username = 'AI3';
UPDATE aichat.messages SET content = content || ' (edited)' WHERE role = 'assistant';
SQL
ExamplesTest::arrives($node, 'postgres', 'changed');
nested_are_equal('changed');

# The same by another driver.
my $out = '';
IPC::Run::run([ 'node', "$ENV{PLINTH_ROOT}/test/servers/seeds.mjs", "$ENV{PLINTH_SERVERS}/npm/node_modules", $mongo->client_uri, $database{aichat} ],
	'<', \undef, '>', \$out, IPC::Run::timeout($PlinthTest::patience));
my $read = JSON::PP->new->decode($out || '{}');
is_deeply($read, { chats => 36, messages => 189, files => 9, wrong => [] }, 'the chats, by Node\'s driver') or diag($out);

done_testing();
