# sync_append: rows are inserted once each and in order, and nothing else is
# done; what is there already counts; bounds (TTL, capped); sync_verify.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PlinthTest qw(wait_until);
use Test::More;
use WorkerTest;

my $node = PlinthTest::node('append', conf => "plinth.sync_timeout = '30s'\nplinth.sync_zombie_window = '100ms'\nplinth.sync_batch_rows = 50");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub py { return PlinthTest::value($mongo, $_[0]); }
sub reason_of { return sql("SELECT concat_ws('|', state, reason, hint) FROM plinth.stat_sync WHERE name = '$_[0]'"); }

sub synced
{
	my ($name) = @_;
	is(sql("SELECT plinth.sync_wait('180s')"), 't', $name);
	return;
}

sql(<<'SQL');
CREATE TABLE logs (id bigint PRIMARY KEY, level text, logged_at timestamptz DEFAULT now());
INSERT INTO logs SELECT g, 'old' FROM generate_series(1, 200) g;
SELECT plinth.sync_append('logs', 'docs', field_names => 'camelCase', expire_field => 'loggedAt', expire_after => '30 days',
    indexes => '[{"keys": {"level": 1, "_id": -1}}]');
SQL
synced('the rows that exist are there');
is($mongo->count('app', 'logs'), 200, 'all of them');
is_deeply(py("sorted([(k, v.get('expireAfterSeconds')) for k, v in client['app']['logs'].index_information().items() if k != '_id_'])"),
	[ [ 'level_1__id_-1', undef ], [ 'loggedAt_1', 2592000 ] ], 'the TTL index and the declared one');
is(sql("SELECT kind FROM plinth.sync_mappings WHERE name = 'logs'"), 'append', 'a kind of its own');

# --- only what is inserted ---
sql(<<'SQL');
INSERT INTO logs SELECT g, 'new' FROM generate_series(201, 500) g;
UPDATE logs SET level = 'changed' WHERE id <= 100;
DELETE FROM logs WHERE id BETWEEN 101 AND 150;
BEGIN; INSERT INTO logs VALUES (9000, 'gone'); DELETE FROM logs WHERE id = 9000; COMMIT;
SQL
synced('changes are delivered');
is($mongo->count('app', 'logs'), 500, 'what was inserted came, what was deleted stays, what came and went was never sent');
is(py("client['app']['logs'].count_documents({'level': 'changed'})"), 0, 'updates are not sent');
is(sql("SELECT count(*) FROM plinth.sync_verify('logs')"), '0', 'and to sync_verify nothing is wrong with that');
is(sql("SELECT documents_deleted FROM plinth.stat_sync WHERE name = 'logs'"), '0', 'nothing was deleted');
ok(py("[d['_id'] for d in client['app']['logs'].find({'level': 'new'})] == list(range(201, 501))"), 'in the order of their insertion');

# --- what is missing is found and inserted; TRUNCATE, a partition that goes, a new column change nothing ---
py("client['app']['logs'].delete_many({'_id': {'\$in': [7, 300]}}) and 0");
is(sql("SELECT string_agg(key || ' ' || difference, ', ' ORDER BY key) FROM plinth.sync_verify('logs', repair => true)"),
	'300 missing, 7 missing', 'sync_verify finds what is missing');
synced('repaired');
is($mongo->count('app', 'logs'), 500, 'and it is back');
sql('ALTER TABLE logs ADD COLUMN host text DEFAULT $$here$$; INSERT INTO logs VALUES (501, $$new$$)');
synced('a new column');
is(sql("SELECT count(*) FROM plinth.sync_tasks"), '0', 'sends nothing again');
is(py("client['app']['logs'].find_one({'_id': 501})['host']"), 'here', 'and is in what comes after');
ok(!defined py("client['app']['logs'].find_one({'_id': 500}).get('host')"), 'not in what was there');
sql("SELECT plinth.sync_resync('logs')");
synced('everything again');
is($mongo->count('app', 'logs'), 501, 'inserts nothing twice, and sweeps nothing away');
sql('TRUNCATE logs; INSERT INTO logs VALUES (502, $$after$$)');
synced('TRUNCATE');
is($mongo->count('app', 'logs'), 502, 'leaves the documents');

# --- expired: neither sent nor missed ---
sql("INSERT INTO logs VALUES (600, 'late', now() - interval '31 days'), (601, 'fresh', now() - interval '1 day')");
synced('a row of long ago');
is(py("client['app']['logs'].count_documents({'_id': {'\$in': [600, 601]}})"), 1, 'is not sent for MongoDB to remove it');
is(sql("SELECT count(*) FROM plinth.sync_verify('logs')"), '0', 'nor missed');

# --- a crash: what was sent is sent again, and counts as done ---
sql("INSERT INTO logs SELECT g, 'crash' FROM generate_series(1000, 1999) g");
synced('a thousand rows');
my $acked = $proxy->stats->{writes};
py("client['app']['logs'].delete_many({'_id': {'\$in': [1003, 1400, 1999]}}) and 0");
sql("SELECT plinth.sync_resync('logs')");
synced('sent again');
is(py("client['app']['logs'].count_documents({'level': 'crash'})"), 1000, 'what was missing is there, what was there is no error');
is(sql("SELECT count(*) FROM plinth.sync_dead_letters"), '0', 'no dead letters');
$proxy->cut_reply(10);
sql("INSERT INTO logs SELECT g, 'cut' FROM generate_series(2000, 2100) g");
synced('an answer that is lost');
is(py("client['app']['logs'].count_documents({'level': 'cut'})"), 101, 'is asked for again');
is(sql("SELECT count(*) FROM plinth.sync_dirty"), '0', 'no document is written once more for fear of zombies');
$proxy->cut_request(40);
sql("INSERT INTO logs SELECT g, 'unsent' FROM generate_series(2200, 2400) g");
synced('a batch that never arrives');
my $unsent = py("[d['_id'] for d in client['app']['logs'].find({'level': 'unsent'})]");
is("@$unsent", join(' ', 2200 .. 2400), 'is sent again in its order');
sql("INSERT INTO logs SELECT g, 'kill' FROM generate_series(3000, 3500) g");
WorkerTest::signal_worker('KILL', $node, 'postgres', 'lane');
ok(PlinthTest::wait_until(sub { (PlinthTest::ask($node, 'postgres', 'SELECT plinth.sync_wait($$60s$$)') // '') eq 't' }), 'after a crash');
is(py("client['app']['logs'].count_documents({'level': 'kill'})"), 501, 'every row is there once');
my $kill = py("[d['_id'] for d in client['app']['logs'].find({'level': 'kill'})]");
is("@$kill", join(' ', 3000 .. 3500), 'in order');

# --- another unique index: a dead letter, and the rows behind it go on ---
sql(<<'SQL');
CREATE TABLE events (id int PRIMARY KEY, code int);
SELECT plinth.sync_append('events', 'docs', indexes => '{"keys": {"code": 1}, "unique": true, "name": "user_id_1"}');
INSERT INTO events VALUES (1, 1), (2, 2);
SQL
synced('events');
sql('INSERT INTO events VALUES (3, 1), (4, 4)');
synced('one of which another index refuses');
is(sql("SELECT string_agg(key || ' ' || status, ',') FROM plinth.sync_dead_letters"), '{"3"} duplicate_key', 'is a dead letter');
is(py("sorted(d['_id'] for d in client['app']['events'].find())")->[-1], 4, 'the one behind it is there');

# --- what was there before ---
py("client['app']['kept'].insert_many([{'_id': 1, 'was': 'there'}, {'_id': 'x'}]) and 0");
sql('CREATE TABLE kept (id int PRIMARY KEY, was text); INSERT INTO kept VALUES (1, $$row$$), (2, $$row$$)');
sql("SELECT plinth.sync_append('kept', 'docs')");
ok(wait_until(sub { reason_of('kept') =~ /^blocked\|the collection holds documents/ }), 'documents that are there stop it');
sql("SELECT plinth.sync_drop('kept'); SELECT plinth.sync_append('kept', 'docs', on_existing => 'keep')");
synced('with keep');
is_deeply(py("sorted([str(d['_id']), d.get('was') or '-'] for d in client['app']['kept'].find())"),
	[ [ '1', 'there' ], [ '2', 'row' ], [ 'x', '-' ] ], 'they stay as they are');

# --- capped ---
sql('CREATE TABLE ring (id int PRIMARY KEY, v text); INSERT INTO ring SELECT g, g FROM generate_series(1, 20) g');
py("client['app'].create_collection('plain') and 0");
sql("SELECT plinth.sync_append('ring', 'docs', collection => 'plain', name => 'plain', capped_bytes => 4096)");
ok(wait_until(sub { reason_of('plain') =~ /^blocked\|(the collection is there, and it is not capped|MongoDB makes no capped collection)/ }),
	'a collection that is not capped is told') or diag(reason_of('plain'));
sql("SELECT plinth.sync_drop('plain')");
$proxy->command('answer {"ok": 1.0} ring');
sql("SELECT plinth.sync_append('ring', 'docs', capped_bytes => 100000, capped_documents => 15)");
synced('a server that says it made a capped collection is believed');
is($mongo->count('app', 'ring'), 20, 'the rows are there');
py("client['app']['ring'].delete_many({'_id': {'\$lte': 5}}) and 0");
is(sql("SELECT count(*) FROM plinth.sync_verify('ring')"), '0', 'what made way for later ones is not missed');
py("client['app']['ring'].delete_one({'_id': 9}) and 0");
is(sql("SELECT key || ' ' || difference FROM plinth.sync_verify('ring')"), '9 missing', 'what is missing between others is');

$node->stop;
done_testing();
