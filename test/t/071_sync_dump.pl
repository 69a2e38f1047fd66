# What a dump keeps of sync, and what a copy does until somebody adopts it.
use strict;
use warnings;

use PlinthTest qw(psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $node  = PlinthTest::node('dump', conf => 'plinth.sync_checkpoint_interval = 200ms');
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'dump');

sub sql { my ($db, $sql) = @_; return $node->safe_psql($db, $sql); }

sql('postgres', <<'SQL');
CREATE ROLE app;
GRANT USAGE ON FOREIGN SERVER docs TO app;
CREATE TABLE threads (id int PRIMARY KEY, title text, "from" timestamptz);
ALTER TABLE threads OWNER TO app;
INSERT INTO threads SELECT g, 't' || g, now() FROM generate_series(1, 100) g;
SELECT plinth.sync_table('threads', 'docs', filter => 'id > 0', casts => '{"from": "string"}', fields => '{"title": "headline"}');
SELECT plinth.sync_wait('180s');
SELECT plinth.sync_resync('threads', '{1,2}');
SQL
my $row = q{SELECT id, name, relation, owner, server_name, collection, key_columns, columns, fields, casts, filter, on_existing FROM plinth.sync_mappings};
my $before = sql('postgres', $row);

my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $file, $node->connstr('postgres') ], 'pg_dump');
my $dump = slurp_file($file);
unlike($dump, qr/COPY plinth\.sync_(states|tasks|dirty|dead_letters|foreign_ids) /, 'runtime state is not in the dump');
sql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $file, $node->connstr('copy') ], 'restore');

is(sql('copy', $row), $before, 'the mapping is the same in the copy');
is(sql('copy', 'SELECT blocked, blocked_hint FROM plinth.sync_states'), q{restored|SELECT plinth.sync_adopt('docs');},
	'and blocked');
sql('copy', "INSERT INTO threads VALUES (101, 'copy')");
psql_fails_like($node, 'copy', "SELECT plinth.sync_table('threads', 'docs', name => 'other', collection => 'other')",
	qr/this database is a copy of the one that delivers.*plinth\.adopt\(\)/s, 'a copy makes no mappings');
psql_fails_like($node, 'copy', q{SELECT plinth.sync_adopt('docs')}, qr/plinth\.adopt\(\)/, 'nor adopts a server');

# The original goes on meanwhile.
sql('postgres', "INSERT INTO threads VALUES (102, 'original')");
ok(wait_until(sub { $mongo->count('dump', 'threads') == 101 }), 'the original delivers');
is($mongo->eval("client['dump']['threads'].find_one({'_id': 102})['headline']"), 'original', 'its own');

sql('copy', 'SELECT plinth.adopt()');
sql('copy', q{SELECT plinth.sync_wait('180s')});
is(sql('copy', "SELECT * FROM plinth.sync_verify('threads')"), '', 'the adopted copy has made the collection its own');
is($mongo->eval("client['dump']['threads'].find_one({'_id': 101})['headline']"), 'copy', 'what it has');
is($mongo->eval("client['dump']['threads'].find_one({'_id': 102})"), undef, 'and nothing else');

sql('postgres', "INSERT INTO threads VALUES (103, 'late')");
ok(wait_until(sub { sql('postgres', 'SELECT blocked FROM plinth.sync_states') =~ /another database|taken/ }), 'the original is blocked')
  or diag(sql('postgres', 'SELECT * FROM plinth.sync_states'));
# It may have written for one checkpoint interval more; not after that.
sql('copy', "SELECT * FROM plinth.sync_verify('threads', true)");
sql('postgres', "INSERT INTO threads VALUES (104, 'later')");
sql('copy', q{SELECT plinth.sync_wait('180s')});
is(sql('copy', "SELECT * FROM plinth.sync_verify('threads')"), '', 'and writes no more');
cmp_ok(sql('copy', "SELECT plinth.sync_table('threads', 'docs', name => 'other', collection => 'other')"), '>', 1,
	'ids go on where they were');

done_testing();
