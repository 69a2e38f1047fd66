# sync_verify: finds each difference and no other, repairs, ends when it must.
use strict;
use warnings;

use PlinthTest qw(psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node  = PlinthTest::node('verify', conf => "plinth.sync_timeout = '10min'\nplinth.sync_zombie_window = '100ms'");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'verify');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub verify { return sql("SELECT * FROM plinth.sync_verify('$_[0]'" . ($_[1] ? ', true' : '') . ') ORDER BY document_id'); }
sub workers { return sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth verify'"); }

sub tamper
{
	my ($code) = @_;
	return $mongo->eval("db = client['verify']\n$code\nresult = 1", statements => 1);
}

sql(<<'SQL');
CREATE TABLE plain (id int PRIMARY KEY, name text, at timestamptz DEFAULT now());
INSERT INTO plain SELECT g, 'n' || g FROM generate_series(1, 1200) g;
CREATE TABLE parts (a int, b text, c numeric, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (1000);
INSERT INTO parts SELECT g, 'k "' || g || '\,{}', g / 7.0 FROM generate_series(1, 150) g;
CREATE TABLE kept (id int PRIMARY KEY, visible boolean);
INSERT INTO kept SELECT g, g % 2 = 0 FROM generate_series(1, 20) g;
SQL
tamper(q{db.kept.insert_many([{'_id': 1000}, {'_id': 'foreign'}])});
sql(<<'SQL');
SELECT plinth.sync_table('plain', 'docs');
SELECT plinth.sync_table('parts', 'docs');
SELECT plinth.sync_table('kept', 'docs', filter => 'visible', on_existing => 'keep');
SQL

# It waits for the snapshot by itself.
is(verify('plain'), '', 'equal after the snapshot');
is(verify('parts'), '', 'equal: partitions, a key of two columns');
is(verify('kept'),  '', 'equal: filter; documents that were there before are not reported');
is($mongo->count('verify', 'kept'), 12, 'rows that do not match the filter were not sent');

tamper(<<'PY');
db.plain.delete_one({'_id': 5})
db.plain.update_one({'_id': 1200}, {'$set': {'name': 'other'}})
db.plain.insert_many([{'_id': 5000, 'name': 'x'}, {'_id': 'text'}])
row = db.parts.find_one({'_id.a': 7})
db.parts.delete_one({'_id': row['_id']})
db.kept.insert_one({'_id': 3, 'visible': False})
PY
my $plain = join "\n", sort
  '|extra|{ "_id" : "text" }', '1200|different|{ "_id" : 1200 }', '5|missing|{ "_id" : 5 }', '5000|extra|{ "_id" : 5000 }';
is(join("\n", sort split /\n/, verify('plain')), $plain, 'each difference is found');
like(verify('parts'), qr/^\{"7","k \\"7\\\\,\{\}"\}\|missing\|\{ "_id" : \{ "a" : 7, "b" : .*\} \}$/, 'composite key');
is(verify('kept'), '3|extra|{ "_id" : 3 }', 'a document of a row that does not match the filter');

# A server that keeps the order of the fields of the document before: nothing differs.
sql('CREATE TABLE turned (id int PRIMARY KEY, a int, b int[]); INSERT INTO turned SELECT g, g, ARRAY[1, 2] FROM generate_series(1, 3) g');
sql("SELECT plinth.sync_table('turned', 'docs'); SELECT plinth.sync_wait('60s')");
tamper(q{db.turned.delete_many({}); db.turned.insert_many([dict([('_id', n), ('b', [1, 2]), ('a', n)]) for n in (1, 2)] + [{'_id': 3, 'b': [2, 1], 'a': 3}])});
is_deeply($mongo->eval("list(client['verify']['turned'].find_one({'_id': 1}))"), [qw(_id b a)], 'fields stand in another order');
is(verify('turned'), '3|different|{ "_id" : 3 }', 'their order is no difference, that of the elements of one is');

# Read only without repair; what was only looked at stays.
is(join("\n", sort split /\n/, sql("BEGIN READ ONLY; SELECT * FROM plinth.sync_verify('plain')")), $plain, 'in a read-only transaction');
verify($_, 1) foreach qw(plain parts kept);
is(verify('plain'), '|extra|{ "_id" : "text" }', 'repaired, but for what is not ours');
is(verify('parts'), '', 'repaired: composite key');
is(verify('kept'),  '', 'repaired: filter');
is($mongo->eval("client['verify']['plain'].find_one({'_id': 5})['name']"), 'n5', 'the document is back');
tamper(q{db.plain.delete_one({'_id': 'text'})});
my ($key) = split /\|/, sql(q{SELECT a || '|' FROM parts WHERE a = 7});
is($key, 7, 'the row was not touched');

# What is under way is no difference.
{
	my $script = PostgreSQL::Test::Utils::tempdir() . '/write.sql';
	append_to_file($script, <<'SQL');
\set id random(1, 1300)
INSERT INTO plain VALUES (:id, 'w') ON CONFLICT (id) DO UPDATE SET name = 'w' || random(), at = now();
DELETE FROM plain WHERE id = :id % 100;
SQL
	my ($out, $err) = ('', '');
	my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '4', '-T', '12', '-f', $script, $node->connstr('postgres') ],
		'>', \$out, '2>', \$err);
	sleep 1;
	my $runs = 0;
	my $end  = time() + 9;
	my $bad  = '';
	while (time() < $end && $bad eq '')
	{
		$bad = verify('plain');
		$runs++;
	}
	is($bad, '', "nothing is reported while four clients write ($runs runs)");
	$bench->finish;
	is(verify('plain'), '', 'equal afterwards');
}

# A row that cannot become a document.
sql(q{INSERT INTO plain VALUES (7777, repeat('x', 17000000))});
ok(wait_until(sub { sql(q{SELECT count(*) FROM plinth.sync_dead_letters}) == 1 }), 'a dead letter');
is(verify('plain'), '7777|different|', 'a row that is too large for a document');
sql('DELETE FROM plain WHERE id = 7777');
is(verify('plain'), '', 'and gone again');

sql(q{CREATE TABLE odd (id int PRIMARY KEY, d int); INSERT INTO odd VALUES (1, 1), (2, 0), (3, 3);
	SELECT plinth.sync_table('odd', 'docs', filter => '10 / d > 1')});
is(verify('odd'), '2|different|', 'a row that cannot be read');
is(verify('odd', 1), '2|different|', 'which no repair helps');
sql('UPDATE odd SET d = 2 WHERE id = 2');
is(verify('odd'), '', 'but a change of the row does');

# Refusals.
psql_fails_like($node, 'postgres', "SELECT * FROM plinth.sync_verify('nosuch')", qr/sync mapping "nosuch" does not exist/, 'unknown');
psql_fails_like($node, 'postgres', "BEGIN; INSERT INTO plain VALUES (-1, ''); SELECT * FROM plinth.sync_verify('plain')",
	qr/in a transaction that has written/, 'after a write');
psql_fails_like($node, 'postgres', "BEGIN READ ONLY; SELECT * FROM plinth.sync_verify('plain', true)",
	qr/read-only transaction/, 'repair in a read-only transaction');
sql("SELECT plinth.sync_pause('plain')");
psql_fails_like($node, 'postgres', "SELECT * FROM plinth.sync_verify('plain')", qr/it is paused/, 'paused');
sql("SELECT plinth.sync_resume('plain')");
sql('CREATE ROLE stranger; GRANT USAGE ON SCHEMA plinth TO stranger');
psql_fails_like($node, 'postgres', "SET ROLE stranger; SELECT * FROM plinth.sync_verify('plain')",
	qr/permission denied for sync mapping/, 'a stranger');
ok(wait_until(sub { workers() == 0 }), 'no worker is left');

# MongoDB away: it says so.
$proxy->blackhole;
PlinthTest::within_ok(3, 'cancelled in time', sub {
	psql_fails_like($node, 'postgres', "SET statement_timeout = '1s'; SELECT * FROM plinth.sync_verify('plain')",
		qr/canceling statement due to statement timeout/, 'statement_timeout') });
ok(wait_until(sub { workers() == 0 }), 'its worker ends with it');

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_until(qr//, "SELECT * FROM plinth.sync_verify('plain');\n");
ok(wait_until(sub { workers() == 1 }), 'it runs');
sql("SELECT pg_terminate_backend($pid)");
ok(wait_until(sub { workers() == 0 }), 'the worker ends with its session');
eval { $session->quit; };

# Nor does it hold up a shutdown.
$session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_until(qr//, "SELECT * FROM plinth.sync_verify('plain');\n");
ok(wait_until(sub { workers() == 1 }), 'it runs');
PlinthTest::within_ok(3, 'stopped in time', sub { $node->stop('fast') });
eval { $session->quit; };
$proxy->pass;
$node->start;
is(verify('plain'), '', 'equal after the restart');

$proxy->stop;
psql_fails_like($node, 'postgres', "SELECT * FROM plinth.sync_verify('plain')", qr/could not read collection "plain": /, 'MongoDB away');

done_testing();
