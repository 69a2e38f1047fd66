
=pod

=head1 NAME

ChaosTest - what 080_chaos.pl runs: tables and mappings, faults, and the comparison

=cut

package ChaosTest;

use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# The names and sizes of the files that test/chaos/files.py writes.
our @names = qw(a b c d e f g h);
our @sizes = (8, 20_000, 261_120, 300_000, 700_000, 1_500_000);

# Tables of every kind of mapping, and the mappings, to the server "docs".
sub tables
{
	my ($node) = @_;
	$node->safe_psql(
		'postgres', q{
CREATE SCHEMA attic;
CREATE TABLE plain (id text PRIMARY KEY, n bigint NOT NULL, body text);
CREATE TABLE parts (id int, region text, n bigint NOT NULL, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c');
CREATE TABLE seats (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED, n bigint NOT NULL);
CREATE TYPE mood AS ENUM ('sad', 'fine');
CREATE TABLE coded (id int PRIMARY KEY, code text NOT NULL, n bigint NOT NULL, m mood);
CREATE INDEX ON coded (code);
-- Documents of three tables, whose rows move from one to another.
CREATE TABLE crew (id int PRIMARY KEY, seat int NOT NULL, n bigint NOT NULL);
CREATE TABLE gear (id int PRIMARY KEY, crew int NOT NULL, n bigint NOT NULL);
CREATE INDEX ON crew (seat);
CREATE INDEX ON gear (crew);
ALTER TABLE crew REPLICA IDENTITY FULL;
ALTER TABLE gear REPLICA IDENTITY FULL;
SELECT plinth.sync_document('rooms', 'docs', 'rooms', 'seats', $q$
	SELECT s.id, s.n, (SELECT coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'n', c.n, 'gear',
	           (SELECT coalesce(jsonb_agg(jsonb_build_object('id', g.id, 'n', g.n) ORDER BY g.id), '[]') FROM gear g WHERE g.crew = c.id))
	           ORDER BY c.id), '[]') FROM crew c WHERE c.seat = s.id) AS crew
	  FROM seats s$q$, lanes => 2);
CREATE TABLE journal (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO journal (what) SELECT TG_TABLE_NAME || ' ' || TG_OP FROM generate_series(1, 3);
    RETURN NULL;
END
$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON seats FOR EACH STATEMENT EXECUTE FUNCTION note();
SELECT plinth.sync_table(t::regclass, 'docs', lanes => CASE t WHEN 'parts' THEN 1 ELSE 3 END,
    indexes => CASE t WHEN 'seats' THEN '{"keys": {"place": 1}, "unique": true}' END::json) FROM unnest(ARRAY['plain', 'parts', 'seats', 'coded']) t;
SELECT plinth.sync_append('journal', 'docs', indexes => '[{"keys": {"what": 1, "_id": -1}}]', expire_field => 'at', expire_after => '30 days');
CREATE TABLE photos (id int PRIMARY KEY, photo bytea);
SELECT plinth.file_bucket_create('media'), plinth.sync_bucket('media', 'docs'), plinth.sync_file('photos', 'photo', 'docs');
-- A value as canonical extended JSON.
CREATE FUNCTION ejson(item anyelement) RETURNS json LANGUAGE sql AS $$
SELECT CASE WHEN item IS NULL THEN NULL
    WHEN pg_typeof(item) = 'integer'::regtype THEN json_build_object('$numberInt', item::text)
    WHEN pg_typeof(item) = 'bigint'::regtype THEN json_build_object('$numberLong', item::text)
    WHEN pg_typeof(item) IN ('text'::regtype, 'mood'::regtype) THEN to_json(item::text)
    WHEN pg_typeof(item) = 'timestamptz'::regtype THEN
        json_build_object('$date', json_build_object('$numberLong', floor(extract(epoch FROM item::text::timestamptz) * 1000)::bigint::text))
    ELSE to_json('not known: ' || pg_typeof(item)) END
$$});
	return;
}

sub ask
{
	my ($node, $sql) = @_;
	return PlinthTest::ask($node, 'postgres', $sql) // '';
}

# A process of a kind, or none.
sub pid_of
{
	my ($node, $where) = @_;
	return ask($node, "SELECT pid FROM pg_stat_activity WHERE $where AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");
}

# What may go wrong: names and subs.
sub faults
{
	my ($node, $proxy) = @_;
	my $signal = sub {
		my ($signal, $where) = @_;
		return sub { my $pid = pid_of($node, $where); kill $signal, $pid if $pid; };
	};
	my ($decoder, $lane) = ("backend_type = 'plinth decoder'", "backend_type LIKE 'plinth lane%'");
	return (
		[ 'decoder terminated', $signal->('TERM', $decoder) ],
		[ 'lane terminated', $signal->('TERM', $lane) ],
		[ 'lane killed -9', $signal->('KILL', $lane) ],
		[ 'decoder killed -9', $signal->('KILL', $decoder) ],
		[ 'backend killed -9', $signal->('KILL', "backend_type = 'client backend'") ],
		[ 'another worker terminated', $signal->('TERM', "backend_type LIKE 'plinth%' AND backend_type !~ 'lane|decoder|launcher'") ],
		[ 'PostgreSQL stopped immediate', sub { $node->stop('immediate'); PlinthTest::start_again($node); } ],
		[ 'PostgreSQL killed -9', sub { $node->kill9; PlinthTest::start_again($node); } ],
		[ 'PostgreSQL restarted', sub { $node->stop('fast'); PlinthTest::start_again($node); } ],
		[ 'connections cut', sub { $proxy->cut } ],
		[ 'cut in a request', sub { $proxy->cut_request(int rand 2000) } ],
		[ 'cut in a reply', sub { $proxy->cut_reply(int rand 40) } ],
		[ 'slow network', sub { $proxy->delay(50 + int rand 400); sleep 2; $proxy->pass } ],
		[ 'black hole', sub { $proxy->blackhole; sleep 1 + rand 4; $proxy->pass } ],
		[ 'refused', sub { $proxy->refuse; sleep 1 + rand 2; $proxy->pass } ],
		[ 'not primary', sub { $proxy->command('answer {"ok": 0, "code": 10107, "errmsg": "not primary"}') } ],
		[ 'a write that lands late', sub {
				$proxy->hold;
				PlinthTest::wait_until(sub { $proxy->stats->{holding} > 0 }, 3);
				$proxy->cut if rand() < 0.5;
				sleep 0.5 + rand 3;
				$proxy->command('release');
				$proxy->pass; } ]);
}

# Writes what MongoDB should hold into a folder: see test/servers/compare.py.
# Returns the names, collections and buckets.
sub export
{
	my ($node, $dir) = @_;
	my %collections = (journal => [qw(_id what at)]);
	my $write = sub {
		my ($name, $sql) = @_;
		$node->safe_psql('postgres', $sql, extra_params => [ '-o', "$dir/$name" ]);
		return;
	};
	my $queries = $node->safe_psql('postgres', <<'SQL');
SELECT m.collection, format('SELECT json_build_object(''_id'', %s%s) FROM %s%s',
    CASE WHEN cardinality(m.key_columns) = 1 THEN format('ejson(%I)', m.key_columns[1])
         ELSE (SELECT 'json_build_object(' || string_agg(format('%L, ejson(%I)', k, k), ', ' ORDER BY o) || ')' FROM unnest(m.key_columns) WITH ORDINALITY u (k, o)) END,
    (SELECT string_agg(format(', %L, ejson(%I)', a.attname, a.attname), '' ORDER BY a.attnum) FROM pg_attribute a
      WHERE a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped
        AND CASE WHEN m.kind = 'append' THEN a.attname IN ('what', 'at') WHEN m.columns IS NULL THEN a.attname <> ALL (m.key_columns) ELSE a.attname = ANY (m.columns) END),
    m.relation, ' WHERE ' || m.filter)
  FROM plinth.sync_mappings m WHERE m.kind IN ('table', 'append')
SQL
	foreach my $row (split /\n/, $queries)
	{
		my ($name, $sql) = split /\|/, $row, 2;
		$collections{$name} //= undef;
		$write->($name, $sql);
	}
	$collections{rooms} = undef;
	$write->('rooms', q{SELECT json_build_object('_id', ejson(s.id), 'n', ejson(s.n), 'crew',
	(SELECT coalesce(json_agg(json_build_object('id', ejson(c.id), 'n', ejson(c.n), 'gear',
		(SELECT coalesce(json_agg(json_build_object('id', ejson(g.id), 'n', ejson(g.n)) ORDER BY g.id), '[]') FROM gear g WHERE g.crew = c.id))
		ORDER BY c.id), '[]') FROM crew c WHERE c.seat = s.id)) FROM seats s});
	my @buckets = split /\n/, $node->safe_psql('postgres', 'SELECT name FROM plinth.file_buckets ORDER BY name');
	foreach my $bucket (@buckets)
	{
		my $is = "(SELECT id FROM plinth.file_buckets WHERE name = '$bucket')";
		@collections{ "$bucket.files", "$bucket.chunks" } = ();
		$write->("$bucket.files", qq{SELECT json_build_object('_id', json_build_object('\$oid', id), 'length', ejson(length), 'chunkSize', ejson(chunk_size),
			'uploadDate', ejson(uploaded_at::timestamptz), 'filename', filename, 'contentType', content_type,
			'metadata', jsonb_build_object('contentType', content_type) || metadata) FROM plinth.files WHERE bucket_id = $is});
		$write->("$bucket.chunks", qq{SELECT json_build_object('_id', json_build_object('\$oid', id), 'files_id', json_build_object('\$oid', files_id), 'n', ejson(n),
			'data', json_build_object('\$binary', json_build_object('base64', translate(encode(data, 'base64'), E'\\n', ''), 'subType', '00')))
			FROM plinth.file_chunks WHERE bucket_id = $is});
		$write->("$bucket.files.list", qq{SELECT json_build_object('filename', filename, '_id', id, 'length', length, 'sha256', encode(sha256(plinth.file_get('$bucket', filename)), 'hex'))
			FROM plinth.file_versions WHERE bucket = '$bucket' AND state = 'current'});
	}
	PostgreSQL::Test::Utils::append_to_file("$dir/spec.json", JSON::PP->new->encode({ collections => \%collections, buckets => \@buckets }));
	return (sort(keys %collections), @buckets);
}

# As tests: three clients, in as many languages, find the same on both sides.
sub compare_ok
{
	my ($node, $mongo, $database, $name) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my @all = sort(export($node, $dir));
	my ($servers, $python) = ($ENV{PLINTH_SERVERS}, $ENV{PLINTH_PYTHON} || '/usr/bin/python3');
	my %clients = (
		'PyMongo' => [ $python, "$ENV{PLINTH_ROOT}/test/servers/compare.py", $dir, $mongo->uri, $database ],
		'Node' => [ 'node', "$ENV{PLINTH_ROOT}/test/servers/compare.mjs", "$servers/npm/node_modules", $dir, $mongo->uri, $database ],
		'Java' => [ 'java', '-XX:+UseSerialGC', '-Xshare:auto', '-cp', "$servers/classes:$servers/jars/*", 'MongoCompare', $dir, $mongo->uri, $database ]);
	foreach my $client (sort keys %clients)
	{
		my ($out, $err) = ('', '');
		IPC::Run::run($clients{$client}, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($PlinthTest::patience));
		my $result = eval { JSON::PP->new->decode($out) } || [];
		is_deeply([ sort map { $_->{name} } @$result ], \@all, "$name: $client compared everything") or diag($err);
		my %documents = map { ($_->{name} => $_->{documents}) } @$result;
		cmp_ok($documents{$_} // 0, '>', 20, "$name: $client: $_: there is something to compare") foreach qw(plain parts seats coded journal rooms);
		is_deeply([ map { "$_->{name}: @{ $_->{differences} }" } grep { @{ $_->{differences} } } @$result ], [], "$name: $client: both sides are equal");
	}
	return;
}

1;
