
# Clients write at full speed while the number of lanes changes: no document goes
# back.  Then lanes and PostgreSQL die.  At the end both sides are equal.
#
# PLINTH_CHAOS_SEED: replays the clients of a run.

use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;
use JSON::PP;

my $seed = $ENV{PLINTH_CHAOS_SEED} || int(rand(1_000_000));
diag "seed $seed";
srand($seed);

my $node = PlinthTest::node('main',
	conf => "plinth.sync_zombie_window = 100\nplinth.sync_checkpoint_interval = 200\nplinth.sync_retry_max = 500\n"
	  . "plinth.sync_batch_rows = 7\nplinth.worker_restart_delay = '200ms'\nlog_min_messages = warning");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'chaos');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $python = $ENV{PLINTH_PYTHON} || '/usr/bin/python3';

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered"); }
sub replaced { return sql('SELECT sum(documents_replaced) FROM plinth.stat_sync'); }

sql(q{
CREATE TABLE plain (id text PRIMARY KEY, n bigint NOT NULL, body text);
CREATE TABLE parts (id int, region text, n bigint NOT NULL, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c');
CREATE TABLE seats (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED, n bigint NOT NULL);
CREATE TABLE quiet (id int PRIMARY KEY); INSERT INTO quiet SELECT generate_series(1, 150);
SELECT plinth.sync_table('quiet', 'docs', lanes => 2), plinth.sync_table('plain', 'docs', lanes => 2), plinth.sync_table('parts', 'docs'), plinth.sync_table('seats', 'docs', lanes => 3)});
$mongo->eval("client['chaos']['seats'].create_index('place', unique=True); result = 1", statements => 1);
delivered('begun');

my ($clients_out, $watch_out, $err) = ('', '', '');
my $clients = IPC::Run::start([ $python, "$ENV{PLINTH_ROOT}/test/chaos/clients.py", $node->connstr('postgres') . ' connect_timeout=5', 4, $seed, "$dir/stop", 'plain,parts,seats' ],
	'>', \$clients_out, '2>', \$err);
my $watch = IPC::Run::start([ $python, "$ENV{PLINTH_ROOT}/test/chaos/watch.py", $mongo->uri, 'chaos', "$dir/stop.watch", "$dir/faults", 0 ],
	'>', \$watch_out, '2>', \$err);

# ---- another number of lanes, again and again ----
my %lanes = (plain => 2, parts => 1, seats => 3);
for my $round (1 .. 8)
{
	my $table = (sort keys %lanes)[ $round % 3 ];
	my $before = replaced();
	$lanes{$table} = ($lanes{$table} + int rand 3) % 4 + 1;
	sql("SELECT plinth.sync_alter('$table', lanes => $lanes{$table})" . ($round % 4 ? '' : "; SELECT plinth.sync_resync('$table')"));
	ok(PlinthTest::wait_until(sub { replaced() > $before + 200 }), "$table has $lanes{$table} lanes, and changes arrive");
}
is(sql("SELECT string_agg(DISTINCT lanes::text, '' ORDER BY lanes::text) FROM plinth.sync_mappings WHERE NOT lanes BETWEEN 1 AND 4"), '', 'as they were set');
append_to_file("$dir/stop.watch", 'stop');
$watch->finish;
my $saw = eval { decode_json($watch_out) } || {};
cmp_ok($saw->{looks} || 0, '>', 3, 'the watcher looked');
is($saw->{back}, 0, 'no document went back') or diag explain $saw->{worst};

# ---- faults ----
sub lane_pid { return PlinthTest::wait_until(sub { sql("SELECT pid FROM plinth.stat_workers WHERE service = 'lane' AND pid > 0 ORDER BY random() LIMIT 1") }) || die 'no lane'; }
sub anew
{
	my ($name) = @_;
	ok(PlinthTest::wait_until(sub { PlinthTest::answers($node) }), "$name: PostgreSQL runs");
	return ok(PlinthTest::wait_until(sub { PlinthTest::ask($node, 'postgres', 'SELECT sum(documents_replaced) > 200 FROM plinth.stat_sync') eq 't' }), "$name: changes arrive");
}
# A sweep is under way, and goes on.
$proxy->delay(20);
ok(PlinthTest::wait_until(sub { sql("TRUNCATE quiet; SELECT count(*) FROM plinth.sync_tasks WHERE kind = 'sweep' AND cursor_id IS NOT NULL") > 0 }), 'a sweep is under way');
my $pid = lane_pid();
kill 'KILL', $pid;
$proxy->pass;
ok(PlinthTest::wait_until(sub { !kill(0, $pid) }), 'one lane was killed');
anew('a lane killed');
sql('SELECT pg_terminate_backend(' . lane_pid() . ')');
sql("SELECT plinth.sync_alter('plain', lanes => 4)");
$proxy->cut;
anew('a lane terminated while lanes are added');
$proxy->cut_reply(int rand 40);
sql("SELECT plinth.sync_alter('plain', lanes => 1); TRUNCATE parts");
$proxy->cut_request(int rand 500);
append_to_file("$dir/stop", 'stop');
$clients->finish;
diag "clients: $clients_out";
my $did = eval { decode_json($clients_out) } || {};
is($did->{failed}, 0, 'no client met an error but broken connections') or diag $err;

delivered('at the end');
ok(PlinthTest::wait_until(sub { sql('SELECT sum(keys_to_rewrite + keys_owed) FROM plinth.stat_sync') == 0 }, 300), 'all suspects were written again');
is(sql("SELECT string_agg(DISTINCT state, ',') FROM plinth.stat_sync"), 'streaming', 'nothing is paused');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'no dead letters') or diag sql('SELECT * FROM plinth.sync_dead_letters');
is(PlinthTest::value($mongo, "client['chaos']['quiet'].count_documents({})"), 0, 'the sweep came to its end');
PlinthTest::equal_ok($node, 'postgres', "SELECT json_build_object('_id', id, 'n', n, 'body', body) FROM plain", $mongo, 'chaos', 'plain', 'plain: equal');
PlinthTest::equal_ok($node, 'postgres', "SELECT json_build_object('_id', json_build_object('id', id, 'region', region), 'n', n) FROM parts", $mongo, 'chaos', 'parts', 'parts: equal');
PlinthTest::equal_ok($node, 'postgres', "SELECT json_build_object('_id', id, 'place', place, 'n', n) FROM seats", $mongo, 'chaos', 'seats', 'seats: equal');

$node->stop;
done_testing();
