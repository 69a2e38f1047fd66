# Clients write at full speed, rows and files, while definitions and mappings
# change, sync_verify runs, and workers, backends, PostgreSQL and the way to
# MongoDB fail at random.  No document goes back but shortly after a fault, no
# file is torn, sync_verify tells of nothing that is not explained.  At the end
# both sides are equal, document by document and byte by byte, as clients in
# three languages see them.
#
# PLINTH_CHAOS_SECONDS: how long (default 120, with PLINTH_LONG an hour).
# PLINTH_CHAOS_SEED: replays the faults and changes of a run.
# PLINTH_CHAOS_BATCH: rows in a batch, else 10 or 1000.

use strict;
use warnings;
use ChaosTest;
use JoseTest;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;
use JSON::PP;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{PLINTH_CHAOS_SECONDS} || ($ENV{PLINTH_LONG} ? 3600 : 120);
# What an hour leaves for batches of 10 rows takes its time.
my $patience = $ENV{PLINTH_LONG} ? 1800 : 300;
# Old versions of files stay while others are waited for.
$ENV{PLINTH_JAVA_OPTS} ||= '-Xms64m -Xmx8g -XX:+UseSerialGC -Xshare:auto' if $ENV{PLINTH_LONG};
my $seed    = $ENV{PLINTH_CHAOS_SEED}    || int(rand(1_000_000));
diag "seed $seed, $seconds s";
srand($seed);

# Half of the runs with tiny batches, which keeps one read ahead nearly always.
my $batch = $ENV{PLINTH_CHAOS_BATCH} || (rand() < 0.5 ? 10 : 1000);
diag "plinth.sync_batch_rows $batch";

# With this window the last rewrite of a suspect is done 10 s after it was acknowledged.
my $node = PlinthTest::node('main',
	conf => "plinth.sync_zombie_window = 100\nplinth.sync_timeout = '3s'\n"
	  . "plinth.sync_connect_timeout = '2s'\nplinth.sync_retry_max = '1s'\n"
	  . "plinth.sync_batch_rows = $batch\nplinth.file_grace = '20s'\n"
	  . "plinth.worker_restart_delay = '200ms'\nlog_min_messages = warning\nautovacuum_naptime = 5s");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'chaos');
ChaosTest::tables($node);
is($node->safe_psql('postgres', "SELECT plinth.sync_wait('300s')"), 't', 'sync runs');

my $dir      = PostgreSQL::Test::Utils::tempdir();
my $faults   = "$dir/faults";
my $python   = $ENV{PLINTH_PYTHON} || '/usr/bin/python3';
my $dsn      = $node->connstr('postgres') . " connect_timeout=5 options='-c search_path=public,attic'";
my (%run, %out, %err);

# Starts a client of test/chaos, which runs until it is stopped.
sub client
{
	my ($name, @arguments) = @_;
	$out{$name} = $err{$name} = '';
	$run{$name} = IPC::Run::start([ $python, "$ENV{PLINTH_ROOT}/test/chaos/$name.py", @arguments ], '<', \undef, '>', \$out{$name}, '2>', \$err{$name});
	return;
}

# Ends it; what it tells, as a hash.
sub stopped
{
	my ($name) = @_;
	append_to_file("$dir/stop.$name", 'stop');
	$run{$name}->finish;
	diag "$name: $out{$name}$err{$name}";
	return eval { decode_json($out{$name}) } || {};
}

client('clients', $dsn, 8, $seed, "$dir/stop.clients", 'plain,parts,seats,crew,gear,coded', 'changing');
client('files', $dsn, 2, $seed, "$dir/stop.files", 'media', join(',', @ChaosTest::names), join(',', @ChaosTest::sizes));
client('changes', $dsn, $seed, "$dir/stop.changes");
client('verify', $dsn, $mongo->uri, 'chaos', "$dir/stop.verify", $faults);
client('watch', $mongo->uri, 'chaos', "$dir/stop.watch", $faults, 20, 'plain,parts,seats,coded');
my $reader = JoseTest::peer($python, "$ENV{PLINTH_ROOT}/test/servers/gridfs_peer.py", $mongo->uri, 'chaos', 'media');
$reader->ask('watch', names => \@ChaosTest::names, sizes => \@ChaosTest::sizes, pause => 0.2);

sub running
{
	return PlinthTest::wait_until(sub { PlinthTest::answers($node) });
}

my %counts;
my $nfaults = 0;
my $end     = time + $seconds;
my $enough  = $seconds >= 100 ? 20 : 1;
my @bag;
while (time < $end || $nfaults < $enough)
{
	# Each kind once before any comes twice, in random order.
	@bag = sort { $a->[2] <=> $b->[2] } map { [ @$_, rand ] } ChaosTest::faults($node, $proxy) unless @bag;
	my $fault = shift @bag;
	# Now and then all arrives, so that faults meet everything that goes on, and not its beginning alone.
	sleep 0.3 + rand(2);
	ChaosTest::ask($node, "SELECT plinth.sync_wait('10s')") if $nfaults % 4 == 3;
	note sprintf('%5.1f s: %s', $seconds - ($end - time), $fault->[0]);
	$fault->[1]->();
	append_to_file($faults, time . "\n");
	$counts{ $fault->[0] }++;
	$nfaults++;
	last unless running();
}
$proxy->pass;
# The watcher excuses what goes back within 20 s of a fault; here comes none.
sleep 30;
diag "faults: $nfaults: " . join ', ', map { "$_ $counts{$_}" } sort keys %counts;
cmp_ok($nfaults, '>=', $enough, 'faults were made');
my $changes = stopped('changes');
cmp_ok(scalar(keys %{ $changes->{did} }), '>', 10, 'definitions changed in many ways');
is_deeply($changes->{refused}, {}, 'no change was refused');
my $did = stopped('clients');
cmp_ok($did->{committed} || 0, '>', 100, 'clients wrote all the while');
is($did->{failed}, 0, 'no client met an error but broken connections');
my $files = stopped('files');
cmp_ok($files->{$_} || 0, '>', 3, "files: $_") foreach ('put', 'deleted', 'finished', 'photo');
is($files->{failed}, 0, 'nor did one that writes files');

ok(running(), 'PostgreSQL runs');
is($node->safe_psql('postgres', "SELECT plinth.sync_wait('${patience}s')", timeout => $patience + 60), 't', 'MongoDB has everything')
  or diag $node->safe_psql('postgres', 'SELECT * FROM plinth.stat_sync; SELECT * FROM plinth.stat_workers; SELECT * FROM plinth.sync_dead_letters LIMIT 5');
ok( PlinthTest::wait_until(
		sub { $node->safe_psql('postgres', 'SELECT sum(keys_to_rewrite + keys_owed) FROM plinth.stat_sync') == 0 }, $patience),
	'all suspects were written again');

my $saw = stopped('watch');
cmp_ok($saw->{looks} || 0, '>', 50, 'the watcher looked');
is($saw->{back}, 0, 'no document went back but shortly after a fault');
my $told = stopped('verify');
cmp_ok(scalar(keys %{ $told->{runs} }), '>=', 10, 'sync_verify ran, of each mapping');
is_deeply($told->{unexplained}, [], 'sync_verify told of no difference that is not explained');
is_deeply($told->{failed}, [], 'and met no error but those of its page');

# What nobody reads any more goes.
is_deeply($reader->ask('seen')->{wrong}, [], 'each file that was read was whole');
$reader->ask('stop');
my $seen = $reader->ask('seen');
diag "files: $seen->{reads} reads of $seen->{versions} versions, $seen->{looks} looks";
cmp_ok($seen->{reads}, '>', 100, 'files were read all the while');
$node->safe_psql('postgres', "ALTER SYSTEM SET plinth.file_grace = '100ms'");
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
ok(PlinthTest::wait_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM plinth.file_versions WHERE state <> 'current'") == 0 }), 'old versions go');
is($node->safe_psql('postgres', "SELECT plinth.sync_wait('300s')"), 't', 'there too');

is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ',') FROM plinth.stat_sync"),
	'streaming', 'nothing is paused');
is($node->safe_psql('postgres', 'SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'no dead letters')
  or diag $node->safe_psql('postgres', 'SELECT m.name, l.* FROM plinth.sync_dead_letters l JOIN plinth.sync_mappings m ON m.id = l.mapping_id LIMIT 5');
ok(PlinthTest::wait_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_sync_indexes WHERE state <> 'ready'") == 0 }), 'the declared indexes are there')
  or diag $node->safe_psql('postgres', 'SELECT * FROM plinth.stat_sync_indexes');
# A command of a worker that was killed may come late, and take an index that was made again since: looked for
# once an hour, and by sync_verify.  Of documents nothing differs at the first look.
my @names = split /\n/, $node->safe_psql('postgres', 'SELECT name FROM plinth.sync_mappings ORDER BY name');
sub found { return $node->safe_psql('postgres', "SELECT * FROM plinth.sync_verify('$_[0]', repair => true) WHERE difference NOT LIKE 'index %'"); }
is(found($_), '', "sync_verify with repair finds nothing in $_") foreach @names;
ok(PlinthTest::wait_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_sync_indexes WHERE state <> 'ready'") == 0 }), 'nor of indexes');
is($node->safe_psql('postgres', "SELECT * FROM plinth.sync_verify('$_')"), '', "and then nothing at all in $_") foreach @names;
ChaosTest::compare_ok($node, $mongo, 'chaos', 'at the end');

$node->stop('fast');
done_testing();
