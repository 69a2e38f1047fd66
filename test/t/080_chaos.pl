
# Clients write at full speed while workers, backends, PostgreSQL and the way
# to MongoDB fail at random.  At the end both sides are equal, document by
# document, as a client sees it that is not ours; and no document went back but
# shortly after a fault.
#
# PLINTH_CHAOS_SECONDS: how long (default 150, with PLINTH_LONG an hour).
# PLINTH_CHAOS_SEED: replays the faults of a run.

use strict;
use warnings;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;
use JSON::PP;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{PLINTH_CHAOS_SECONDS} || ($ENV{PLINTH_LONG} ? 3600 : 150);
my $seed    = $ENV{PLINTH_CHAOS_SEED}    || int(rand(1_000_000));
diag "seed $seed, $seconds s";
srand($seed);

# Half of the runs with tiny batches, which keeps one read ahead nearly always.
my $batch = $ENV{PLINTH_CHAOS_BATCH} || (rand() < 0.5 ? 3 : 1000);
diag "plinth.sync_batch_rows $batch";

# With this window the last rewrite of a suspect is done 40 s after its fault.
my $window = 400;
my $node = PlinthTest::node('main',
	conf => "plinth.sync_zombie_window = $window\nplinth.sync_timeout = '3s'\n"
	  . "plinth.sync_connect_timeout = '2s'\nplinth.sync_retry_max = '1s'\n"
	  . "plinth.sync_batch_rows = $batch\n"
	  . "plinth.worker_restart_delay = '200ms'\nlog_min_messages = warning\nautovacuum_naptime = 5s");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'chaos');
$node->safe_psql(
	'postgres', q{
CREATE TABLE plain (id text PRIMARY KEY, n bigint NOT NULL, body text);
CREATE TABLE parts (id int, region text, n bigint NOT NULL, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c');
CREATE TABLE seats (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED, n bigint NOT NULL);
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
    indexes => CASE t WHEN 'seats' THEN '{"keys": {"place": 1}, "unique": true}' END::json) FROM unnest(ARRAY['plain', 'parts', 'seats']) t;
SELECT plinth.sync_append('journal', 'docs', indexes => '[{"keys": {"what": 1, "_id": -1}}]', expire_field => 'at', expire_after => '30 days');
});
is($node->safe_psql('postgres', "SELECT plinth.sync_wait('300s')"), 't', 'sync runs');

my $dir      = PostgreSQL::Test::Utils::tempdir();
my $stopfile = "$dir/stop";
my $faults   = "$dir/faults";
my $python   = $ENV{PLINTH_PYTHON} || '/usr/bin/python3';
my ($clients_out, $watch_out, $err) = ('', '', '');
my $dsn = $node->connstr('postgres') . ' connect_timeout=5';
my $clients = IPC::Run::start(
	[ $python, "$ENV{PLINTH_ROOT}/test/chaos/clients.py", $dsn, 8, $seed, $stopfile ],
	'>', \$clients_out, '2>', \$err);
my $watch = IPC::Run::start(
	[ $python, "$ENV{PLINTH_ROOT}/test/chaos/watch.py", $mongo->uri, 'chaos', "$stopfile.watch", $faults, 20 ],
	'>', \$watch_out, '2>', \$err);

sub ask
{
	my ($sql) = @_;
	return PlinthTest::ask($node, 'postgres', $sql) // '';
}

sub pid_of
{
	my ($service) = @_;
	return ask("SELECT pid FROM plinth.stat_workers WHERE service = '$service' AND pid > 0 ORDER BY random() LIMIT 1");
}

sub running
{
	return PlinthTest::wait_until(sub { PlinthTest::answers($node) });
}

my @kinds = (
	[ 'decoder terminated', sub { my $p = pid_of('decoder'); ask("SELECT pg_terminate_backend($p)") if $p; } ],
	[ 'lane terminated', sub { my $p = pid_of('lane'); ask("SELECT pg_terminate_backend($p)") if $p; } ],
	[ 'lane killed -9', sub { my $p = pid_of('lane'); kill 'KILL', $p if $p; } ],
	[ 'decoder killed -9', sub { my $p = pid_of('decoder'); kill 'KILL', $p if $p; } ],
	[ 'backend killed -9', sub {
			my $p = ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");
			kill 'KILL', $p if $p; } ],
	[ 'PostgreSQL stopped immediate', sub { $node->stop('immediate'); PlinthTest::start_again($node); } ],
	[ 'PostgreSQL killed -9', sub { $node->kill9; PlinthTest::start_again($node); } ],
	[ 'connections cut', sub { $proxy->cut } ],
	[ 'cut in a request', sub { $proxy->cut_request(int rand 2000) } ],
	[ 'cut in a reply', sub { $proxy->cut_reply(int rand 40) } ],
	[ 'slow network', sub { $proxy->delay(50 + int rand 400); sleep 2; $proxy->pass } ],
	[ 'black hole', sub { $proxy->blackhole; sleep 1 + rand 4; $proxy->pass } ],
	[ 'refused', sub { $proxy->refuse; sleep 1 + rand 2; $proxy->pass } ],
	[ 'not primary', sub { $proxy->command('answer {"ok": 0, "code": 10107, "errmsg": "not primary"}') } ]);

my %counts;
my $nfaults = 0;
my $end     = time + $seconds;
my $enough  = $seconds >= 100 ? 20 : 1;
my @bag;
while (time < $end || $nfaults < $enough)
{
	# Each kind once before any comes twice, in random order.
	@bag = sort { $a->[2] <=> $b->[2] } map { [ @$_, rand ] } @kinds unless @bag;
	my $fault = shift @bag;
	sleep 0.5 + rand($seconds / 60);
	note sprintf('%5.1f s: %s', $seconds - ($end - time), $fault->[0]);
	$fault->[1]->();
	append_to_file($faults, time . "\n");
	$counts{ $fault->[0] }++;
	$nfaults++;
	last unless running();
}
$proxy->pass;
# The watcher excuses what goes back within 20 s of a fault; here comes none.
sleep 35;
append_to_file($stopfile, 'stop');
$clients->finish;
diag "faults: " . join ', ', map { "$_ $counts{$_}" } sort keys %counts;
diag "clients: $clients_out";
cmp_ok($nfaults, '>=', $enough, 'faults were made');
my $did = eval { decode_json($clients_out) } || {};
cmp_ok($did->{committed} || 0, '>', 100, 'clients wrote all the while');
is($did->{failed}, 0, 'no client met an error but broken connections') or diag $err;

ok(running(), 'PostgreSQL runs');
is($node->safe_psql('postgres', "SELECT plinth.sync_wait('300s')"), 't', 'MongoDB has everything')
  or diag $node->safe_psql('postgres', 'SELECT * FROM plinth.stat_sync; SELECT * FROM plinth.stat_workers; SELECT * FROM plinth.sync_dead_letters LIMIT 5');
ok( PlinthTest::wait_until(
		sub { $node->safe_psql('postgres', 'SELECT sum(keys_to_rewrite + keys_owed) FROM plinth.stat_sync') == 0 }, 300),
	'all suspects were written again');
append_to_file("$stopfile.watch", 'stop');
$watch->finish;
diag "watch: $watch_out";

is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ',') FROM plinth.stat_sync"),
	'streaming', 'nothing is paused');
is($node->safe_psql('postgres', 'SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'no dead letters')
  or diag $node->safe_psql('postgres', 'SELECT m.name, l.* FROM plinth.sync_dead_letters l JOIN plinth.sync_mappings m ON m.id = l.mapping_id LIMIT 5');
ok( PlinthTest::wait_until(
		sub { $node->safe_psql('postgres', "SELECT string_agg(state, ' ') FROM plinth.stat_sync_indexes") eq 'ready ready ready' }),
	'the declared indexes are there');
my %columns = (plain => 'id, n, body', parts => 'id, region, n', seats => 'id, place, n', journal => 'id, what');
for my $table (sort keys %columns)
{
	my @here = sort split /\n/, $node->safe_psql('postgres',
		"SELECT jsonb_build_array(" . $columns{$table} . ")::text FROM $table");
	my $fields = join ', ', map {
		$_ eq 'id' ? ($table eq 'parts' ? "d['_id']['id']" : "d['_id']")
		  : $_ eq 'region' ? "d['_id']['region']" : "d['$_']"
	} split /, /, $columns{$table};
	my @there = sort @{ $mongo->eval("[json.dumps([$fields]) for d in client['chaos']['$table'].find()]") };
	cmp_ok(scalar @here, '>', 50, "$table: there is something to compare");
	is_deeply(\@there, \@here, "$table: both sides are equal");
}
PlinthTest::equal_ok($node, 'postgres', q{SELECT json_build_object('_id', s.id, 'n', s.n, 'crew',
	(SELECT coalesce(json_agg(json_build_object('id', c.id, 'n', c.n, 'gear',
		(SELECT coalesce(json_agg(json_build_object('id', g.id, 'n', g.n) ORDER BY g.id), '[]') FROM gear g WHERE g.crew = c.id))
		ORDER BY c.id), '[]') FROM crew c WHERE c.seat = s.id)) FROM seats s}, $mongo, 'chaos', 'rooms', 'rooms: both sides are equal', 0);
my $saw = eval { decode_json($watch_out) } || {};
cmp_ok($saw->{looks} || 0, '>', 50, 'the watcher looked');
is($saw->{back}, 0, 'no document went back but shortly after a fault')
  or diag explain $saw->{worst};

$node->stop('fast');
done_testing();
