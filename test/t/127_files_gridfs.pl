# Files written here are read by PyMongo's GridFS and by Node's driver, by the
# name that they have and as GridFS says, and what others put into the bucket
# before stays; who reads a name while it is replaced and deleted sees whole
# versions or none.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use JoseTest;
use PlinthTest qw(wait_until);
use Test::More;

my $node = PlinthTest::node('files', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_zombie_window = '100ms'
plinth.file_grace = '30s'
CONF
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered"); }
# What version number $version of a file holds.
sub content { my ($version, $size) = @_; return substr(sprintf('%08d', $version) x ($size / 8 + 1), 0, $size); }
sub put
{
	my ($name, $version, $size, $more) = @_;
	return sql("SELECT plinth.file_put('media', '$name', substr(convert_to(repeat('"
		  . sprintf('%08d', $version) . "', $size / 8 + 1), 'UTF8'), 1, $size)" . ($more // '') . ')');
}

sql("SELECT plinth.file_bucket_create('media')");
my $python = JoseTest::peer($ENV{PLINTH_PYTHON} || 'python3', "$ENV{PLINTH_ROOT}/test/servers/gridfs_peer.py", $mongo->uri, 'app', 'media');
my $js = JoseTest::peer('node', "$ENV{PLINTH_ROOT}/test/servers/gridfs_peer.mjs", "$ENV{PLINTH_SERVERS}/npm/node_modules", $mongo->uri, 'app', 'media');

# ---------------------------------------------------------------------------
# What others wrote before, and a bucket that had files before it was synced.
my $theirs = $python->ask('write', name => 'theirs.txt', version => 7, size => 300_000);
$js->ask('write', name => 'node.txt', version => 8, size => 5000);
my $id = put('old.bin', 1, 700_001, ", 'image/png', '{\"width\": 3}'");
sql("SELECT plinth.sync_bucket('media', 'docs')");
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_sync WHERE state = 'blocked'") == 2 }), 'a bucket with files of others waits');
sql("SELECT plinth.sync_drop('media.files')");
is(sql('SELECT count(*) FROM plinth.sync_mappings'), '0', 'both mappings of a bucket go together');
sql("SELECT plinth.sync_bucket('media', 'docs', on_existing => 'keep')");
delivered('snapshot');

foreach my $peer ([ PyMongo => $python ], [ Node => $js ])
{
	my ($name, $client) = @$peer;
	my $file = $client->ask('read', name => 'old.bin');
	is($file->{sha256}, sha256_hex(content(1, 700_001)), "$name reads what was written here");
	is($file->{id}, $id, "$name: its id");
	is_deeply([ @$file{qw(length chunk_size type)}, $file->{metadata}{width}, $file->{metadata}{contentType} ],
		[ 700_001, 261_120, 'image/png', 3, 'image/png' ], "$name: what is known of it");
	is($file->{date}, sql("SELECT to_char(uploaded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS') FROM plinth.files"), "$name: its date");
	is($client->ask('read', name => 'theirs.txt')->{sha256}, sha256_hex(content(7, 300_000)), "$name: what PyMongo wrote before is there");
	is($client->ask('read', name => 'node.txt')->{sha256}, sha256_hex(content(8, 5000)), "$name: what Node wrote before is there");
	is($client->ask('read', name => 'nothing'), undef, "$name: no file");
}
is($js->ask('range', name => 'old.bin', start => 261_000, end => 600_000), unpack('H*', substr(content(1, 700_001), 261_000, 339_000)), 'Node reads a range');
my $types = $python->ask('types', id => $id);
is_deeply($types->{files}, { _id => 'ObjectId', length => 'Int64', chunkSize => 'int', uploadDate => 'datetime', filename => 'str',
	contentType => 'str', metadata => 'dict' }, 'the types of a file');
is_deeply($types->{chunks}, { _id => 'ObjectId', files_id => 'ObjectId', n => 'int', data => 'bytes' }, 'the types of a chunk');
# Booleans come as 0 and 1.
my $indexes = sub { return [ map { [ $_->[0], $_->[1] ? 1 : 0 ] } @{ $types->{"$_[0] indexes"} } ]; };
is_deeply($indexes->('files'), [ [ [ [ '_id', 1 ] ], 0 ], [ [ [ 'filename', 1 ], [ 'uploadDate', 1 ] ], 0 ] ], 'the indexes of files');
is_deeply($indexes->('chunks'), [ [ [ [ '_id', 1 ] ], 0 ], [ [ [ 'files_id', 1 ], [ 'n', 1 ] ], 1 ] ], 'the indexes of chunks');

# ---------------------------------------------------------------------------
# Sizes at the edges; the names of users.
my %sizes = (empty => 0, one => 1, chunk => 261_120, more => 261_121);
sql("SELECT plinth.file_put('media', 'empty', '')");
put($_, 2, $sizes{$_}) foreach grep { $sizes{$_} } keys %sizes;
delivered('edges');
is($python->ask('read', name => $_)->{sha256}, sha256_hex(content(2, $sizes{$_})), "PyMongo: $sizes{$_} bytes") foreach sort keys %sizes;
is($js->ask('read', name => $_)->{sha256}, sha256_hex(content(2, $sizes{$_})), "Node: $sizes{$_} bytes") foreach sort keys %sizes;
is(sql("SELECT count(*) FROM plinth.sync_verify('media.files')") + sql("SELECT count(*) FROM plinth.sync_verify('media.chunks')"), 0, 'nothing differs');

# ---------------------------------------------------------------------------
# Replaced and deleted while they are read, again and again.
put($_, 10, 600_000) foreach qw(a b);
delivered('first versions');
$python->ask('watch', names => [qw(a b)], sizes => [ 600_000, 900_000, 20_000 ]);
for my $round (1 .. 12)
{
	put('a', 10 + $round, (600_000, 900_000, 20_000)[ $round % 3 ]);
	if   ($round % 4 == 0) { sql("SELECT plinth.file_delete('media', 'b')"); }
	else                   { put('b', 10 + $round, 900_000); }
	sql("SELECT plinth.sync_wait('180s')") if $round % 2;
}
delivered('last versions');
my $before = $python->ask('seen');
ok(wait_until(sub { my $now = $python->ask('seen'); $now->{reads} > $before->{reads} + 2 && $now->{looks} > $before->{looks} + 2 }), 'they are read to the end');
$python->ask('stop');
my $seen = $python->ask('seen');
is_deeply($seen->{wrong}, [], "$seen->{reads} reads, each of one whole version ($seen->{versions} of them were seen)");
is($python->ask('read', name => 'a')->{sha256}, sha256_hex(content(22, 600_000)), 'the last version is there');
is($python->ask('read', name => 'b'), undef, 'what was deleted last is not');

# ---------------------------------------------------------------------------
# What nobody can be reading any more goes, here and there.
sql("ALTER SYSTEM SET plinth.file_grace = '100ms'");
sql('SELECT pg_reload_conf()');
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.file_versions WHERE state <> 'current'") == 0 }), 'old versions go')
  or diag(sql('SELECT * FROM plinth.files; SELECT * FROM plinth.stat_sync'));
delivered('their chunks');
my $left = $python->ask('docs');
# Two files, of two chunks and one, are others'.
is_deeply([ $left->{files}, $left->{chunks} ], [ sql('SELECT count(*) + 2 FROM plinth.files'), sql('SELECT count(*) + 3 FROM plinth.file_chunks') ], 'there as here');
is(sql('SELECT sum((length + 261119) / 261120) FROM plinth.files'), sql('SELECT count(*) FROM plinth.file_chunks'), 'and nothing is left over');
is(sql("SELECT count(*) FROM plinth.sync_verify('media.files')") + sql("SELECT count(*) FROM plinth.sync_verify('media.chunks')"), 0, 'nothing differs at the end');

done_testing();
