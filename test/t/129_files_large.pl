# A large file piece by piece in bounded memory, many small ones, a column of
# type bytea, and a dump.  With PLINTH_LONG the large one has 1 GB.
use strict;
use warnings;

use Digest::SHA;
use JoseTest;
use JSON::PP;
use PlinthTest qw(wait_until);
use WorkerTest;
use Test::More;

my $pieces = $ENV{PLINTH_LONG} ? 128 : 8;
my $piece = 8 << 20;
my $small = 10_000;
my $node = PlinthTest::node('files', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_memory = '16MB'
plinth.sync_file_max = '1MB'
CONF
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub delivered { return is(sql("SELECT plinth.sync_wait('600s')"), 't', "$_[0]: delivered"); }
sub pids { return split /\n/, sql("SELECT pid FROM plinth.stat_workers WHERE service IN ('lane', 'decoder') AND pid > 0"); }

# ---------------------------------------------------------------------------
# Piece by piece, by one session.
sql("SELECT plinth.file_bucket_create('media'), plinth.sync_bucket('media', 'docs')");
delivered('an empty bucket');
my %before = map { $_ => WorkerTest::peak($_) } pids();
my $session = $node->background_psql('postgres');
my $backend = $session->query_safe('SELECT pg_backend_pid()');
my $upload = $session->query_safe("SELECT plinth.file_put('media', 'large', NULL, finish => false)");
my $sha = Digest::SHA->new(256);
my $bytes = sub { return sprintf('%08d', $_[0]) x ($piece / 8); };
for my $i (1 .. $pieces)
{
	$session->query_safe("SELECT plinth.file_append('$upload', convert_to(repeat('" . sprintf('%08d', $i)
		  . "', $piece / 8), 'UTF8'), at_offset => " . ($i - 1) * $piece . ", finish => $i = $pieces)");
	$sha->add($bytes->($i));
}
# The piece, as text and as bytes, and what a chunk takes.
my $own = WorkerTest::peak($backend);
cmp_ok($own, '<', 64 << 10, "the session that wrote it took $own kB");
$session->quit;
delivered('a large file');
foreach my $pid (pids())
{
	my $more = WorkerTest::peak($pid) - ($before{$pid} // 0);
	cmp_ok($more, '<', 96 << 10, "a worker took $more kB more");
}
my $python = JoseTest::peer($ENV{PLINTH_PYTHON} || 'python3', "$ENV{PLINTH_ROOT}/test/servers/gridfs_peer.py", $mongo->uri, 'app', 'media');
my $digest = $sha->hexdigest;
is($python->ask('read', name => 'large')->{sha256}, $digest, 'PyMongo reads it');
is(sql("SELECT bool_and(plinth.file_get('media', 'large', i * ${piece}::bigint, $piece) = convert_to(repeat(lpad((i + 1)::text, 8, '0'), $piece / 8), 'UTF8'))"
	  . " FROM generate_series(0, $pieces - 1) AS i"), 't', 'and so do ranges here');

# ---------------------------------------------------------------------------
# Many small ones, of which some are replaced.
sql("SELECT plinth.file_bucket_create('many'), plinth.sync_bucket('many', 'docs')");
sql("SELECT count(plinth.file_put('many', 'f' || i, convert_to(repeat('x', i % 500) || i, 'UTF8'))) FROM generate_series(1, $small) AS i");
sql("SELECT count(plinth.file_put('many', 'f' || i, convert_to('again ' || i, 'UTF8'))) FROM generate_series(1, $small, 10) AS i");
delivered('many small files');
my $many = JoseTest::peer($ENV{PLINTH_PYTHON} || 'python3', "$ENV{PLINTH_ROOT}/test/servers/gridfs_peer.py", $mongo->uri, 'app', 'many');
is_deeply([ @{ $many->ask('docs') }{qw(files chunks)} ], [ $small * 11 / 10, $small * 11 / 10 ], 'all of them');
foreach my $i (1, 2, 10, 11, $small)
{
	my $text = $i % 10 == 1 ? "again $i" : 'x' x ($i % 500) . $i;
	is($many->ask('read', name => "f$i")->{sha256}, Digest::SHA::sha256_hex($text), "file $i");
}
is(sql("SELECT count(*) FROM plinth.sync_verify('many.files')") + sql("SELECT count(*) FROM plinth.sync_verify('many.chunks')"), 0, 'nothing differs');

# ---------------------------------------------------------------------------
# A column.
sql(<<'SQL');
CREATE TABLE people (id int PRIMARY KEY, name text, photo bytea);
INSERT INTO people VALUES (1, 'ann', 'ann'), (2, 'bob', NULL), (3, 'eve', convert_to(repeat('e', 600000), 'UTF8'));
SELECT plinth.sync_file('people', 'photo', 'docs', bucket => 'photos', content_type => 'image/jpeg');
INSERT INTO people VALUES (4, 'joe', 'joe');
UPDATE people SET name = upper(name);
UPDATE people SET photo = 'bob' WHERE id = 2;
UPDATE people SET photo = NULL WHERE id = 1;
UPDATE people SET id = 5 WHERE id = 3;
SQL
delivered('a column');
my $photos = JoseTest::peer($ENV{PLINTH_PYTHON} || 'python3', "$ENV{PLINTH_ROOT}/test/servers/gridfs_peer.py", $mongo->uri, 'app', 'photos');
is($photos->ask('read', name => '1'), undef, 'a value that became NULL');
is($photos->ask('read', name => '3'), undef, 'a key that changed');
is($photos->ask('read', name => '5')->{length}, 600_000, 'is there by its new one');
is($photos->ask('read', name => '2')->{sha256}, Digest::SHA::sha256_hex('bob'), 'a value that came');
is($photos->ask('read', name => '4')->{type}, 'image/jpeg', 'a row that came');
is(sql("SELECT count(*) FROM plinth.file_versions WHERE bucket = 'photos'"), 5, 'what did not change has no new version');
PlinthTest::psql_fails_like($node, 'postgres', "UPDATE people SET photo = convert_to(repeat('x', 1048577), 'UTF8') WHERE id = 2",
	qr/plinth.sync_file_max/, 'more than plinth.sync_file_max');
sql('DELETE FROM people WHERE id = 2');
sql('BEGIN; TRUNCATE people; ROLLBACK');
delivered('a row that went');
is($photos->ask('read', name => '2'), undef, 'with its file');
is($photos->ask('read', name => '4')->{length}, 3, 'what rolled back was never done');
sql('TRUNCATE people');
delivered('truncated');
is($photos->ask('docs')->{files}, 0, 'no file is left');

# ---------------------------------------------------------------------------
# A dump has the files, the grants and the column's trigger.
sql("SELECT plinth.file_bucket_grant('many', 'authenticated')");
my $file = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $file, $node->connstr('postgres') ], 'pg_dump');
sql('CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $file, $node->connstr('copy') ], 'restore');
my $all = "SELECT md5(string_agg((id, bucket_id, length, filename, content_type, metadata, uploaded_at)::text, ',' ORDER BY id)) FROM plinth.files; SELECT count(*), md5(string_agg(md5(data), ',' ORDER BY id)) FROM plinth.file_chunks;"
  . ' SELECT * FROM plinth.file_grants; SELECT * FROM plinth.file_buckets ORDER BY id; SELECT * FROM plinth.file_columns';
is($node->safe_psql('copy', $all), sql($all), 'the copy has the files');
$node->safe_psql('copy', "INSERT INTO people VALUES (9, 'new', 'new')");
is($node->safe_psql('copy', "SELECT plinth.file_get('photos', '9') = 'new'"), 't', 'and goes on');
is($node->safe_psql('copy', "SELECT count(*) FROM plinth.stat_sync WHERE state = 'blocked'"), 6, 'but sends nothing before it is adopted');

done_testing();
