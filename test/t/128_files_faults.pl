# A file is in MongoDB only with all of its chunks, whatever fails: half a bucket
# that waits, an outage, processes that are killed, everything sent again.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use JoseTest;
use PlinthTest qw(wait_until);
use Test::More;

my $node = PlinthTest::node('files', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_zombie_window = '100ms'
plinth.sync_retry_max = '500ms'
plinth.file_grace = '60s'
CONF
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered"); }
sub put
{
	my ($name, $version, $size) = @_;
	return sql("SELECT plinth.file_put('media', '$name', substr(convert_to(repeat('" . sprintf('%08d', $version) . "', $size / 8 + 1), 'UTF8'), 1, $size))");
}
sub owed
{
	my ($mapping) = @_;
	return sql("SELECT count(*) FROM plinth.sync_dirty d JOIN plinth.sync_mappings m ON m.id = d.mapping_id WHERE m.name = '$mapping' AND zombie_stage = 0");
}

sql("SELECT plinth.file_bucket_create('media'), plinth.sync_bucket('media', 'docs')");
delivered('an empty bucket');
my $python = JoseTest::peer($ENV{PLINTH_PYTHON} || 'python3', "$ENV{PLINTH_ROOT}/test/servers/gridfs_peer.py", $mongo->uri, 'app', 'media');
my @sizes = (3_000_000, 300_000);
$python->ask('watch', names => [qw(a b c)], sizes => \@sizes);

# ---------------------------------------------------------------------------
# Chunks that wait keep their file from coming.
sql("SELECT plinth.sync_pause('media.chunks')");
my $held = put('a', 1, 300_000);
ok(wait_until(sub { owed('media.chunks') == 2 && owed('media.files') == 1 }), 'the file waits with its chunks');
is_deeply([ @{ $python->ask('docs') }{qw(files chunks)} ], [ 0, 0 ], 'nothing of it is there');
sql("SELECT plinth.sync_resume('media.chunks')");
delivered('then both');
is($python->ask('read', name => 'a')->{id}, $held, 'it is there');

# A file that waits to go keeps its chunks from going, though their rows are gone.
sql("SELECT plinth.sync_pause('media.files')");
sql("UPDATE plinth.files SET hidden_at = now() WHERE id = '$held'; DELETE FROM plinth.file_chunks WHERE files_id = '$held'");
ok(wait_until(sub { owed('media.chunks') == 2 }), 'chunks wait for their file to go');
is_deeply([ @{ $python->ask('docs') }{qw(files chunks)} ], [ 1, 2 ], 'all of it is there');
sql("SELECT plinth.sync_resume('media.files')");
delivered('then none of it');
is_deeply([ @{ $python->ask('docs') }{qw(files chunks)} ], [ 0, 0 ], 'nothing of it is there any more');
is_deeply($python->ask('seen')->{wrong}, [], 'and no part of it was seen alone');

# ---------------------------------------------------------------------------
# An outage while files come, are replaced and go.
put($_, 2, 3_000_000) foreach qw(a b c);
delivered('three files');
$proxy->refuse;
put('a', 3, 3_000_000);
put('a', 4, 300_000);
sql("SELECT plinth.file_delete('media', 'b')");
my $upload = sql("SELECT plinth.file_put('media', 'd', NULL, finish => false)");
sql("SELECT plinth.file_append('$upload', convert_to(repeat('00000005', 37500), 'UTF8'))") foreach 1 .. 9;
ok(wait_until(sub { sql("SELECT bool_and(state = 'unreachable') FROM plinth.stat_sync") eq 't' && owed('media.chunks') > 10 }), 'MongoDB is away');
$proxy->pass;
delivered('what waited');
is($python->ask('read', name => 'a')->{sha256}, sha256_hex('00000004' x 37500), 'the newest version');
is($python->ask('read', name => 'b'), undef, 'the deleted one is not there');
is($python->ask('read', name => 'd'), undef, 'nor is what is not finished');
sql("SELECT plinth.file_append('$upload', convert_to(repeat('00000005', 37500), 'UTF8'), finish => true)");

# ---------------------------------------------------------------------------
# Killed, again and again, while files come and go: a worker, and the server.
for my $round (1 .. 6)
{
	put('a', 10 + $round, 3_000_000);
	put('c', 10 + $round, 300_000);
	sql("SELECT plinth.file_delete('media', 'a')") if $round % 3 == 0;
	if ($round == 4)
	{
		$node->stop('immediate');
		$node->start;
		next;
	}
	my $lane = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'plinth lane' LIMIT 1");
	next if $lane eq '';
	kill 'KILL', $lane;
	PlinthTest::begun_anew($node, $lane);
	wait_until(sub { PlinthTest::answers($node) });
}
delivered('after the last kill');
is($python->ask('read', name => 'a'), undef, 'what was deleted is not there');
is($python->ask('read', name => 'c')->{sha256}, sha256_hex('00000016' x 37500), 'what was written last is');
is($python->ask('read', name => 'd')->{sha256}, sha256_hex('00000005' x 375000), 'and what came piece by piece');

# ---------------------------------------------------------------------------
# Everything again.
sql("SELECT plinth.sync_resync('media.files'), plinth.sync_resync('media.chunks')");
delivered('sent again');
my $before = $python->ask('seen');
ok(wait_until(sub { my $now = $python->ask('seen'); $now->{reads} > $before->{reads} + 2 && $now->{looks} > $before->{looks} + 2 }), 'they are read to the end');
$python->ask('stop');
my $seen = $python->ask('seen');
is_deeply($seen->{wrong}, [], "$seen->{looks} looks and $seen->{reads} reads: each file that was there was whole");
is(sql("SELECT count(*) FROM plinth.sync_verify('media.files')") + sql("SELECT count(*) FROM plinth.sync_verify('media.chunks')"), 0, 'nothing differs');

# Two keys of a zombie may still be written once more, but nothing is left that is owed.
sql("ALTER SYSTEM SET plinth.file_grace = '100ms'");
sql('SELECT pg_reload_conf()');
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.files WHERE replaced_at IS NOT NULL OR hidden_at IS NOT NULL") == 0 }), 'old versions go');
delivered('at the end');
is_deeply([ @{ $python->ask('docs') }{qw(files chunks)} ], [ 2, 14 ], 'there as here');

done_testing();
