# Kinds of indexes, and the worker that builds them: killed while it builds,
# stopped by DROP EXTENSION, another database's collection, dumped declarations.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PlinthTest qw(wait_until within_ok);
use PostgreSQL::Test::Utils;
use Test::More;
use WorkerTest;

my $node = PlinthTest::node('faults', conf => "plinth.sync_timeout = '2s'");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'faults');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub py { return PlinthTest::value($mongo, $_[0]); }
sub ask { return PlinthTest::ask($node, 'postgres', $_[0]) // ''; }
sub state_of { return ask("SELECT state FROM plinth.stat_sync_indexes WHERE index = '$_[0]'"); }
sub keys_of { return py("[list(k) for k in client['faults']['$_[0]'].index_information().get('$_[1]', {}).get('key', [])]"); }

# --- each kind ---
sql(<<'SQL');
CREATE TABLE notes (id int PRIMARY KEY, title text, body text, tags text[], place jsonb, kind text, seen_at timestamptz);
INSERT INTO notes SELECT g, 't' || g, 'b', ARRAY['x', 'y'], NULL, 'k' || g % 3, now() FROM generate_series(1, 30) g;
SELECT plinth.sync_table('notes', 'docs', indexes => '[
    {"keys": {"title": "text", "body": "text"}, "weights": {"title": 3}, "name": "words"},
    {"keys": {"seen_at": 1}, "expireAfterSeconds": 864000, "name": "ttl"},
    {"keys": {"title": 1}, "unique": true, "sparse": true, "name": "sparse"},
    {"keys": {"title": -1}, "partialFilterExpression": {"kind": "k1"}, "name": "partial"},
    {"keys": {"kind": 1, "title": -1, "_id": 1}, "name": "compound"},
    {"keys": {"kind": 1}, "collation": {"locale": "en", "strength": 2}, "name": "collation"},
    {"keys": {"tags": 1}, "name": "multikey"},
    {"keys": {"place.name": 1}, "name": "nested", "when": "after"}]');
SQL
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'the rows are there');
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_sync_indexes WHERE state IN ('waiting', 'building')") == 0 }),
	'and every index is settled');
note(sql("SELECT index, state, reason FROM plinth.stat_sync_indexes ORDER BY 1"));
is(sql("SELECT string_agg(index, ' ' ORDER BY index) FROM plinth.stat_sync_indexes WHERE state = 'ready' AND index <> ALL ('{words,partial,collation}')"),
	'compound multikey nested sparse ttl', 'those that every server has are as declared');
# What a server does not keep of the others, it is told for.
is(sql("SELECT count(*) FROM plinth.stat_sync_indexes WHERE index = ANY ('{words,partial,collation}')"
	  . " AND NOT (state = 'ready' OR (state IN ('different', 'failed') AND reason IS NOT NULL AND hint IS NOT NULL))"),
	'0', 'the others are, or it is told what the server made of them');
is_deeply(keys_of('notes', 'compound'), [ [ 'kind', 1 ], [ 'title', -1 ], [ '_id', 1 ] ], 'PyMongo sees the keys in their order');
is(py("client['faults']['notes'].index_information()['ttl']['expireAfterSeconds']"), 864000, 'and the TTL');

# --- killed while it builds ---
$proxy->command('hold notes');
sql(q{SELECT plinth.sync_index('notes', '{"keys": {"body": -1}, "name": "killed"}')});
ok(wait_until(sub { $proxy->stats->{holding} > 0 && state_of('killed') eq 'building' }), 'a build under way');
WorkerTest::signal_worker('KILL', $node, 'postgres', 'indexes');
ok(wait_until(sub { state_of('killed') eq 'ready' }), 'is begun again after a crash');
is_deeply(keys_of('notes', 'killed'), [ [ 'body', -1 ] ], 'and done');
$proxy->command('drop-held');

# --- cut while it builds ---
$proxy->command('hold notes');
sql(q{SELECT plinth.sync_index('notes', '{"keys": {"body": 1, "kind": 1}, "name": "cut"}')});
ok(wait_until(sub { $proxy->stats->{holding} > 0 }), 'another');
$proxy->cut;
ok(wait_until(sub { state_of('cut') eq 'ready' }), 'is tried again when the connection breaks');
$proxy->command('drop-held');

# --- a role that lost the server, a collection that is another's ---
py("client['faults']['plinth_sync'].update_one({'_id': 'notes'}, {'\$set': {'database': 1}}) and 0");
sql(q{SELECT plinth.sync_index('notes', '{"keys": {"body": 1, "title": 1}, "name": "foreign"}')});
ok(wait_until(sub { sql("SELECT coalesce(reason, '') FROM plinth.stat_sync_indexes WHERE index = 'foreign'") =~ /not this database's/
		  || sql("SELECT state FROM plinth.stat_sync WHERE name = 'notes'") eq 'blocked' }),
	'another database has taken the collection');
is_deeply(keys_of('notes', 'foreign'), [], 'nothing is built there');
sql("SELECT plinth.sync_adopt('docs')");
ok(wait_until(sub { state_of('foreign') eq 'ready' }), 'until it is adopted');

# --- declarations are dumped ---
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ], 'restored');
my $all = 'SELECT string_agg(concat_ws($$ $$, name, build, definition), $$|$$ ORDER BY name) FROM plinth.sync_indexes';
is($node->safe_psql('copy', $all), sql($all), 'they are the same');
# --- DROP EXTENSION does not wait for a build ---
$proxy->command('hold notes');
sql(q{SELECT plinth.sync_index('notes', '{"keys": {"body": 1, "tags": 1}, "name": "last"}')});
ok(wait_until(sub { $proxy->stats->{holding} > 0 }), 'a build that does not end');
within_ok(30, 'holds up no DROP EXTENSION', sub { sql('DROP EXTENSION plinth CASCADE') });
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'plinth indexes%' AND datname = 'postgres'") == 0 }),
	'and its worker ends');

$node->stop;
done_testing();
