
# What one mapping, one document or one filter may not do: stop the others.

use strict;
use warnings;
use PlinthTest;
use Test::More;

my $node = PlinthTest::node('main', conf => "plinth.sync_zombie_window = 300\nplinth.sync_checkpoint_interval = 200\nplinth.sync_retry_max = 500");
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'forum');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub equal
{
	my ($table, $name) = @_;
	return PlinthTest::equal_ok($node, 'postgres',
		"SELECT json_build_object('_id', id, 'body', body) FROM $table", $mongo, 'forum', $table, $name);
}

sub stat_is
{
	my ($mapping, $pattern, $name) = @_;
	my $stat;
	return ok(
		PlinthTest::wait_until(sub {
			$stat = sql("SELECT concat_ws(' | ', state, reason, hint) FROM plinth.stat_sync WHERE name = '$mapping'");
			return $stat =~ $pattern;
		}), $name) || diag($stat);
}

# ---- more pairs of server and owner than there are lanes ----
sql(q{CREATE TABLE t1 (id int PRIMARY KEY, body text); INSERT INTO t1 SELECT i, 'n' || i FROM generate_series(1, 50) i;
	SELECT plinth.sync_table('t1', 'docs')});
for my $i (2 .. 17)
{
	PlinthTest::sync_server($node, "s$i", $mongo->uri, 'forum');
	sql("CREATE TABLE t$i AS TABLE t1; ALTER TABLE t$i ADD PRIMARY KEY (id)");
}
sql("SELECT plinth.sync_table('t$_', 's$_')") for 2 .. 16;
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'as many as there are lanes');
equal("t$_", "t$_ is there") for 1, 16;
# As a dump brings one more.
sql(q{INSERT INTO plinth.sync_mappings (name, relation, owner, server_name, collection, key_columns)
	VALUES ('t17', 't17', current_user::regrole, 's17', 't17', '{id}')});
sql("UPDATE t$_ SET body = 'with one more'") for 1, 16, 17;
equal("t$_", "t$_ goes on") for 1, 16;
# Its state cannot be written as long as somebody holds it, which delays nothing.
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM plinth.sync_states s JOIN plinth.sync_mappings m ON m.id = s.mapping_id
	WHERE m.name = 't17' FOR KEY SHARE OF s");
sql("SELECT plinth.sync_adopt('s17')");
sql("UPDATE t$_ SET body = 'while held'") for 1, 16, 17;
equal("t$_", "t$_ goes on") for 1, 16;
is(sql("SELECT count(*) FROM plinth.sync_states WHERE blocked IS NOT NULL"), 0, 'the state is held');
$holder->query_safe('COMMIT');
stat_is('t17', qr/^blocked \| more than 16 pairs.*\| .*sync_drop/, 'one more is blocked, and says why');
sql("UPDATE t$_ SET body = 'once more'") for 1, 16, 17;
equal("t$_", "t$_ goes on") for 1, 16;
sql("SELECT plinth.sync_resync('t17')");
stat_is('t17', qr/^blocked \| more than 16/, 'and stays so as long as there are too many');
sql("SELECT plinth.sync_drop('t2'); SELECT plinth.sync_resync('t17')");
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'with one less it is delivered');
equal("t$_", "t$_ is there") for 1, 16, 17;
sql("SELECT plinth.sync_drop('t$_'); DROP TABLE t$_") for 3 .. 17;
$holder->quit;

# ---- a document over which the server closes the connection ----
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'cut', $proxy->uri, 'forum');
sql("CREATE TABLE $_ (id int PRIMARY KEY, body text); INSERT INTO $_ SELECT i, 'n' || i FROM generate_series(1, 3000) i;
	SELECT plinth.sync_table('$_', 'cut')") for 'good', 'bad';
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'two tables behind a proxy');
sub dead { return sql(q{SELECT coalesce(string_agg(translate(key, '{}"', '') || ' ' || status, ',' ORDER BY key DESC), '-') FROM plinth.sync_dead_letters}) }
$proxy->command('cut-if POISON');
sql("BEGIN; UPDATE bad SET body = CASE WHEN id IN (777, 2222) THEN 'POISON' ELSE 'changed' END; COMMIT; UPDATE good SET body = 'changed'");
equal('good', 'the other table goes on');
ok(PlinthTest::wait_until(sub { dead() eq '777 unreachable,2222 unreachable' }), 'the two documents become dead letters')
  or diag(dead(), "\n", sql('SELECT * FROM plinth.stat_sync'));
like(sql('SELECT min(reason) FROM plinth.sync_dead_letters'), qr/closes the connection/, 'and say why');
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'nothing else is owed');
is(PlinthTest::value($mongo, "client['forum']['bad'].count_documents({'body': 'changed'})"), 2998, 'all others are there');
sql("UPDATE bad SET body = 'mended' WHERE body = 'POISON'");
equal('bad', 'mended, they arrive');
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'and are there');
is(dead(), '-', 'no dead letter is left');
# In a snapshot, and as the only one that is owed.
sql("CREATE TABLE first AS SELECT id, CASE id WHEN 1234 THEN 'POISON' ELSE 'first' END AS body FROM generate_series(1, 2500) id;
	ALTER TABLE first ADD PRIMARY KEY (id); SELECT plinth.sync_table('first', 'cut'); UPDATE good SET body = 'once more'");
equal('good', 'the other table goes on');
ok(PlinthTest::wait_until(sub { dead() eq '1234 unreachable' }), 'a row of a snapshot becomes a dead letter') or diag(dead());
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'the snapshot ends');
is(PlinthTest::value($mongo, "client['forum']['first'].count_documents({})"), 2499, 'with all others');
sql("UPDATE first SET body = 'POISON again' WHERE id = 77");
ok(PlinthTest::wait_until(sub { dead() eq '77 unreachable,1234 unreachable' }), 'the only one that changed becomes one too') or diag(dead());
$proxy->pass;
sql("SELECT plinth.sync_retry(id) FROM plinth.sync_dead_letters");
equal('first', 'tried again without the fault, they arrive');

$node->stop('fast');
done_testing();
