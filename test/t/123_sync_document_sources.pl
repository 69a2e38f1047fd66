# The tables that documents are made of, in every form: partitioned, with large
# and missing values on the way, with several columns in the key, and altered.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use Test::More;

my $node = PlinthTest::node('sources', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_retry_max = '500ms'
jit = off
CONF
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub stat_of { return sql("SELECT $_[1] FROM plinth.stat_sync WHERE name = '$_[0]'"); }
my %expected = (
	shops => q{SELECT json_build_object('_id', json_build_object('country', s.country, 'id', s.id), 'name', s.name, 'sold', (SELECT coalesce(sum(n), 0) FROM sales x
		WHERE x.country = s.country AND x.shop = s.id)) FROM shops s},
	tags => q{SELECT json_build_object('_id', t.tag, 'notes', (SELECT count(*) FROM notes n WHERE n.tag = t.tag)) FROM tags t});
sub arrives
{
	my ($name) = @_;
	is(sql("SELECT plinth.sync_wait('180s')"), 't', "$name: delivered") or diag(sql('SELECT * FROM plinth.stat_sync'));
	equal_ok($node, 'postgres', $expected{$_}, $mongo, 'app', $_, "$name: $_", 0) for sort keys %expected;
	return;
}

sql(<<'SQL');
CREATE TABLE shops (country text, id int, name text, PRIMARY KEY (country, id)) PARTITION BY LIST (country);
CREATE TABLE shops_de PARTITION OF shops FOR VALUES IN ('de');
CREATE TABLE shops_fr (name text, id int NOT NULL, country text NOT NULL, PRIMARY KEY (country, id));
ALTER TABLE shops ATTACH PARTITION shops_fr FOR VALUES IN ('fr');
CREATE TABLE sales (day int, country text, shop int, n int) PARTITION BY RANGE (day);
CREATE TABLE sales_1 PARTITION OF sales FOR VALUES FROM (0) TO (100);
-- Another order of columns, and a hole.
CREATE TABLE sales_2 (n int, gone int, shop int, country text, day int);
ALTER TABLE sales_2 DROP COLUMN gone;
ALTER TABLE sales ATTACH PARTITION sales_2 FOR VALUES FROM (100) TO (200);
CREATE INDEX ON sales (country, shop);
ALTER TABLE sales REPLICA IDENTITY FULL;
ALTER TABLE sales_1 REPLICA IDENTITY FULL;
ALTER TABLE sales_2 REPLICA IDENTITY FULL;
INSERT INTO shops SELECT c, g, c || g FROM unnest('{de,fr}'::text[]) c, generate_series(1, 5) g;
INSERT INTO sales SELECT g, CASE g % 2 WHEN 0 THEN 'de' ELSE 'fr' END, 1 + g % 5, g FROM generate_series(1, 199) g;
-- Values on the way that are stored out of line.
CREATE TABLE tags (tag text PRIMARY KEY);
CREATE TABLE notes (id int PRIMARY KEY, tag text, body text);
ALTER TABLE notes REPLICA IDENTITY FULL;
ALTER TABLE notes ALTER tag SET STORAGE EXTERNAL;
INSERT INTO tags SELECT repeat(chr(96 + g), 2500) FROM generate_series(1, 3) g;
INSERT INTO notes SELECT g, repeat(chr(97 + g % 3), 2500), 'b' FROM generate_series(1, 9) g;
SELECT plinth.sync_document('shops', 'docs', 'shops', 'shops', $q$
	SELECT s.country, s.id, s.name, (SELECT coalesce(sum(x.n), 0)::int FROM sales x WHERE x.country = s.country AND x.shop = s.id) AS sold
	  FROM shops s$q$);
SELECT plinth.sync_document('tags', 'docs', 'tags', 'tags', $q$
	SELECT t.tag, (SELECT count(*) FROM notes n WHERE n.tag = t.tag) AS notes FROM tags t$q$);
SQL
arrives('snapshot');

for (
	[ 'a row of each partition'      => q{INSERT INTO sales VALUES (50, 'de', 1, 7), (150, 'fr', 2, 8)} ],
	[ 'rows move between partitions' => 'UPDATE sales SET day = day + 100 WHERE day IN (3, 5)' ],
	[ 'rows move to another root'    => q{UPDATE sales SET country = 'fr', shop = 3 WHERE day = 120} ],
	[ 'values are NULL'              => 'UPDATE sales SET shop = NULL WHERE day IN (10, 110)' ],
	[ 'and not any more'             => 'UPDATE sales SET shop = 4 WHERE shop IS NULL' ],
	[ 'rows go'                      => 'DELETE FROM sales WHERE day IN (20, 121)' ],
	[ 'a root moves between partitions' => q{UPDATE shops SET country = 'fr', id = 10 WHERE country = 'de' AND id = 2} ],
	[ 'a partition is detached'      => 'ALTER TABLE sales DETACH PARTITION sales_1' ],
	[ 'changed and attached'         => 'UPDATE sales_1 SET n = n + 1; ALTER TABLE sales ATTACH PARTITION sales_1 FOR VALUES FROM (0) TO (100)' ],
	[ 'one more, with rows'          => q{BEGIN; CREATE TABLE sales_3 (LIKE sales); INSERT INTO sales_3 VALUES (202, 'fr', 3, 900);
		ALTER TABLE sales ATTACH PARTITION sales_3 FOR VALUES FROM (200) TO (300); COMMIT; INSERT INTO sales VALUES (201, 'de', 3, 1000)} ],
	[ 'its rows do not tell what they were' => 'DELETE FROM sales WHERE day = 201' ],
	[ 'a partition is truncated'     => 'TRUNCATE sales_2' ],
	[ 'a partition is dropped'       => 'DROP TABLE sales_1' ],
	[ 'a large value stays'          => q{UPDATE notes SET body = 'changed', id = id + 100 WHERE id = 1} ],
	[ 'a large value changes'        => q{UPDATE notes SET tag = repeat('c', 2500) WHERE id = 3} ],
	[ 'a large value goes'           => 'DELETE FROM notes WHERE id = 4; UPDATE notes SET tag = NULL WHERE id = 5' ],
	[ 'old rows do not tell any more' => 'ALTER TABLE notes REPLICA IDENTITY DEFAULT' ],
	[ 'and all is sent again'        => q{UPDATE notes SET tag = repeat('a', 2500) WHERE id = 6; DELETE FROM notes WHERE id = 7} ],
	[ 'they do'                      => q{ALTER TABLE notes REPLICA IDENTITY FULL; DELETE FROM notes WHERE id = 8} ])
{
	sql($_->[1]);
	arrives($_->[0]);
}
my $tasks = sql('SELECT last_value FROM plinth.sync_tasks_id_seq');
sql('CREATE TABLE sales_4 PARTITION OF sales FOR VALUES FROM (300) TO (400)');
arrives('an empty partition');
sql(q{INSERT INTO sales VALUES (301, 'de', 3, 1000)});
arrives('a row of it');
is(sql('SELECT last_value FROM plinth.sync_tasks_id_seq'), $tasks, 'for neither all is sent again');
is(sql(q{SELECT count(*) FROM plinth.sync_verify('shops')}), '0', 'sync_verify finds nothing');

# ---- the document as one column ----
sql(<<'SQL');
CREATE TYPE card AS (title text, sizes int[]);
CREATE TABLE items (id int PRIMARY KEY, title text, size int);
INSERT INTO items SELECT g, 'item ' || g, g FROM generate_series(1, 3) g;
SELECT plinth.sync_document('json', 'docs', 'json', 'items', $q$
	SELECT i.id, CASE i.id WHEN 3 THEN '[1]' WHEN 2 THEN '{"_id": 5}' ELSE jsonb_build_object('title', i.title, 'size', i.size) END AS document FROM items i$q$);
SELECT plinth.sync_document('composite', 'docs', 'composite', 'items', $q$
	SELECT i.id, ROW(i.title, ARRAY[i.size, 0])::card AS document FROM items i$q$);
SQL
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'one column');
is_deeply(PlinthTest::value($mongo, "list(client['app']['json'].find())"), [ { _id => 1, size => 1, title => 'item 1' } ], 'members of jsonb are fields');
is_deeply(PlinthTest::value($mongo, "list(client['app']['composite'].find().sort('_id'))"),
	[ map { { _id => $_, title => "item $_", sizes => [ $_, 0 ] } } 1 .. 3 ], 'attributes of a composite are');
is(sql("SELECT string_agg(reason, ', ' ORDER BY key) FROM plinth.sync_dead_letters"),
	'a field cannot be named "_id", the document is not a JSON object', 'what is no such document is a dead letter');

# ---- a table of the query is dropped ----
sql('DROP TABLE notes');
ok(wait_until(sub { stat_of('tags', 'state') eq 'blocked' }), 'a table of the query was dropped: blocked');
like(stat_of('tags', 'reason'), qr/its query cannot be used: .*notes/, 'which says why');
sql(q{UPDATE items SET size = 100 WHERE id = 1; INSERT INTO tags VALUES ('z')});
is(sql("SELECT plinth.sync_wait('180s')"), 'f', 'others go on');
is(PlinthTest::value($mongo, "client['app']['json'].find_one({'_id': 1})['size']"), 100, 'and arrive');
done_testing();
