# Rows as MongoDB holds them, read by another implementation of BSON: casts by
# field, keys as _id in every form, and answers of the server that concern one
# document or all.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use JSON::PP;
use Test::More;

my $node = PlinthTest::node('documents', conf => <<'CONF');
plinth.sync_connect_timeout = '2s'
plinth.sync_timeout = '5s'
plinth.sync_retry_max = '300ms'
CONF
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'documents');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub documents
{
	return [ map { JSON::PP->new->canonical->encode(JSON::PP->new->decode($_)) } @{ $mongo->docs('documents', $_[0]) } ];
}

sub arrive
{
	my ($collection, $name, @expected) = @_;
	my $found;
	@expected = sort map { JSON::PP->new->canonical->encode(JSON::PP->new->decode($_)) } @expected;
	wait_until(sub { $found = [ sort @{ documents($collection) } ]; "@$found" eq "@expected" });
	is_deeply($found, \@expected, $name);
	return;
}

# Casts by field.
sql(<<'SQL');
CREATE TABLE casts (id int PRIMARY KEY, a text, b text[], c timestamptz, d numeric, e text, f int8, g timestamptz, h uuid, i text, j text, k int);
SELECT plinth.sync_table('casts', 'docs', casts => '{"a": "objectId", "b": "objectId", "c": "micros", "d": "double", "e": "json", "f": "string",
    "g": "string", "h": "string", "i": "decimal", "j": "date", "k": "bool"}');
INSERT INTO casts VALUES (1, '507f1f77bcf86cd799439011', '{507F1F77BCF86CD799439012,NULL}', '1969-12-31 23:59:59.999999+00', 0.1, '{"x": [1, null]}', 12,
    '2020-01-01 00:00+00', '00112233-4455-6677-8899-aabbccddeeff', '1.50', '1970-01-01 00:00:01.5+00', 2);
INSERT INTO casts (id) VALUES (2);
SQL
arrive('casts', 'casts by field, and NULLs', <<'JSON', <<'JSON2');
{"_id": {"$numberInt": "1"}, "a": {"$oid": "507f1f77bcf86cd799439011"}, "b": [{"$oid": "507f1f77bcf86cd799439012"}, null],
 "c": {"$date": {"$numberLong": "-1"}}, "cMicros": {"$numberInt": "999"}, "d": {"$numberDouble": "0.1"},
 "e": {"x": [{"$numberInt": "1"}, null]}, "f": "12", "g": "2020-01-01 00:00:00+00", "h": "00112233-4455-6677-8899-aabbccddeeff",
 "i": {"$numberDecimal": "1.50"}, "j": {"$date": {"$numberLong": "1500"}}, "k": true}
JSON
{"_id": {"$numberInt": "2"}, "a": null, "b": null, "c": null, "cMicros": null, "d": null, "e": null, "f": null, "g": null, "h": null, "i": null, "j": null, "k": null}
JSON2

# A value that its cast refuses, and a document that is too large, are dead letters, and pass nobody.
sql("INSERT INTO casts (id, a) VALUES (3, 'no ObjectId'), (4, '507f1f77bcf86cd799439014'); INSERT INTO casts (id, e) VALUES (5, '\"' || repeat('x', 16777216) || '\"')");
ok(wait_until(sub { $mongo->eval("client['documents']['casts'].count_documents({'_id': 4})") == 1 }), 'the row beside it arrives');
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dead_letters') == 2 }), 'rows that cannot be converted are dead letters');
like(sql("SELECT string_agg(reason, ' ' ORDER BY key::text) FROM plinth.sync_dead_letters"), qr/ObjectId.*larger than MongoDB allows/s, 'with the reason');
sql("UPDATE casts SET a = '507f1f77bcf86cd799439013' WHERE id = 3; DELETE FROM casts WHERE id = 5");
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dead_letters') == 0 }), 'a new change mends them');

# Keys.
sql(<<'SQL');
CREATE TABLE k_stamp (at timestamptz PRIMARY KEY);
CREATE TABLE k_numeric (n numeric PRIMARY KEY);
CREATE TABLE k_pair (b text, a int, PRIMARY KEY (a, b));
CREATE TABLE k_prefix (id int8 PRIMARY KEY);
CREATE TABLE k_object (id text PRIMARY KEY);
CREATE TABLE k_uuid (id uuid PRIMARY KEY);
CREATE TABLE k_date (id date PRIMARY KEY);
CREATE TABLE k_array (id int[] PRIMARY KEY);
SELECT plinth.sync_table(name, 'docs') FROM unnest(ARRAY['k_stamp', 'k_numeric', 'k_pair', 'k_uuid', 'k_date', 'k_array']::regclass[]) name;
SELECT plinth.sync_table('k_prefix', 'docs', id_prefix => 'user:'), plinth.sync_table('k_object', 'docs', id_cast => 'objectId');
INSERT INTO k_stamp VALUES ('2020-01-01 00:00:00.000001+00'), ('2020-01-01 00:00:00.000002+00'), ('infinity');
INSERT INTO k_numeric VALUES (1.50), ('NaN'), (12345678901234567890123456789012345.0), (-1e-7);
INSERT INTO k_pair VALUES ('x', 1), ('x', 2);
INSERT INTO k_prefix VALUES (7), (-8);
INSERT INTO k_object VALUES ('507f1f77bcf86cd799439011');
INSERT INTO k_uuid VALUES ('00112233-4455-6677-8899-aabbccddeeff');
INSERT INTO k_date VALUES ('1969-12-31'), ('-infinity');
INSERT INTO k_array VALUES ('{1,NULL}');
SQL
my %keys = (
	k_stamp => [ '"2020-01-01 00:00:00.000001+00"', '"2020-01-01 00:00:00.000002+00"', '"infinity"' ],
	k_numeric => [ '{"$numberDecimal": "1.5"}', '{"$numberDecimal": "NaN"}', '"12345678901234567890123456789012345"', '{"$numberDecimal": "-1E-7"}' ],
	k_pair => [ map { qq({"a": {"\$numberInt": "$_"}, "b": "x"}) } 1, 2 ],
	k_prefix => [ '"user:7"', '"user:-8"' ],
	k_object => ['{"$oid": "507f1f77bcf86cd799439011"}'],
	k_uuid => ['{"$binary": {"base64": "ABEiM0RVZneImaq7zN3u/w==", "subType": "04"}}'],
	k_date => [ '{"$date": {"$numberLong": "-86400000"}}', '{"$minKey": 1}' ],
	k_array => ['"{1,NULL}"']);
foreach my $name (sort keys %keys)
{
	arrive($name, "$name as _id", map { qq({"_id": $_}) } @{ $keys{$name} });
}

# From _ids back to keys: a sweep finds what is gone, of every kind of key.
sql('TRUNCATE ' . join(', ', sort keys %keys));
foreach my $name (sort keys %keys)
{
	arrive($name, "$name after TRUNCATE");
}

# What the server answers.
sql("CREATE TABLE answers (id int PRIMARY KEY, v text); SELECT plinth.sync_table('answers', 'docs'); INSERT INTO answers VALUES (0, 'first')");
arrive('answers', 'before', '{"_id": {"$numberInt": "0"}, "v": "first"}');
my $id = 0;
foreach my $case (
	[ 'not primary', '{"ok": 0, "code": 10107, "errmsg": "not primary"}', 'not_primary' ],
	[ 'shutting down', '{"ok": 0, "code": 91, "errmsg": "shutdown in progress"}', 'not_primary' ],
	[ 'unauthorized', '{"ok": 0, "code": 13, "errmsg": "not authorized"}', 'auth' ],
	[ 'another error', '{"ok": 0, "code": 8, "errmsg": "unknown"}', 'other' ],
	[ 'too slow', '{"ok": 0, "code": 50, "errmsg": "operation exceeded time limit"}', 'other' ],
	[ 'write concern failed', '{"ok": 1, "n": 1, "nModified": 0, "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}', 'write_concern' ])
{
	my ($name, $answer, $kind) = @$case;
	$id++;
	$proxy->command("answer-all $answer answers");
	sql("INSERT INTO answers VALUES ($id, '$name')");
	my $seen = '';
	ok(wait_until(sub { ($seen = sql("SELECT last_error FROM plinth.stat_sync WHERE name = 'answers'")) =~ /^$kind: / }), "$name is told as $kind")
	  or diag($seen);
	$proxy->pass;
	ok(wait_until(sub { $mongo->eval("client['documents']['answers'].count_documents({'_id': $id})") == 1 }), "$name: tried again");
}
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), '0', 'none of these is a dead letter');

done_testing();
