# The test servers themselves: what a proxy is told to do is what happens.
use strict;
use warnings;

use PlinthTest;
use Test::More;
use Time::HiRes qw(time);

my $mongo = PlinthTest::mongo_start(embedded => 1);
my $proxy = PlinthTest::proxy_start($mongo);

# PyMongo code that runs over the proxy; retryWrites would hide what happens.
sub through
{
	my ($code, %wait) = @_;
	my $options = join '&', 'retryWrites=false', map { "${_}TimeoutMS=" . ($wait{$_} || 60000) } qw(socket serverSelection);
	return PlinthTest::mongo_eval(
		$proxy->uri . "?$options",
		<<"PY", statements => 1);
c = client.db.c
try:
    $code
    result = 'ok'
except Exception as e:
    result = type(e).__name__
PY
}

sub ids { return [ map { /"_id": \{"\$numberInt": "(\d+)"/ } @{ $mongo->docs('db', 'c') } ]; }

is(through('c.insert_one({"_id": 1})'), 'ok', 'pass');
is_deeply(ids(), [1], 'and the document is there');
is_deeply($mongo->docs('db', 'c'), ['{"_id": {"$numberInt": "1"}}'], 'as canonical extended JSON');

$proxy->cut_request(40);
is(through('c.insert_one({"_id": 2})'), 'AutoReconnect', 'cut in a request');
is_deeply(ids(), [1], 'which was not done');

$proxy->cut_reply(10);
is(through('c.insert_one({"_id": 3})'), 'AutoReconnect', 'cut in a reply');
is_deeply(ids(), [ 1, 3 ], 'which was done');

$proxy->command('cut-reply 10 other');
is(through('c.insert_one({"_id": 4})'), 'ok', 'another collection is not cut');
is(through('client.db.other.insert_one({"_id": 4})'), 'AutoReconnect', 'the named one is');

$proxy->hold;
is(through('c.insert_one({"_id": 5})', socket => 500), 'NetworkTimeout', 'held: the client gives up');
ok(PlinthTest::wait_until(sub { $proxy->stats->{holding} == 1 }), 'and it is still held');
is(through('c.insert_one({"_id": 6})'), 'ok', 'the next write passes');
is_deeply(ids(), [ 1, 3, 4, 6 ], 'the held one was not done');
is($proxy->release, 1, 'released');
ok(PlinthTest::wait_until(sub { $mongo->count('db', 'c') == 5 }), 'and done long after its client left');

$proxy->blackhole;
is(through('c.insert_one({"_id": 7})', serverSelection => 500), 'ServerSelectionTimeoutError', 'black hole');
$proxy->pass;
is(through('c.insert_one({"_id": 8})'), 'ok', 'pass after it');

$proxy->refuse;
is(through('c.insert_one({"_id": 9})', serverSelection => 500), 'ServerSelectionTimeoutError', 'refused');
$proxy->pass;
is(through('c.insert_one({"_id": 10})'), 'ok', 'pass after that');

my $start = time();
$proxy->delay(200);
is(through('c.insert_one({"_id": 11})'), 'ok', 'delayed');
cmp_ok(time() - $start, '>', 0.4, 'by as much as asked');
$proxy->pass;

$proxy->command('answer {"ok": 0, "code": 10107, "errmsg": "not master"} c');
like(through('c.insert_one({"_id": 12})'), qr/^Not(Master|Primary)Error$/, 'an answer made up');
is_deeply([ grep { $_ == 12 } @{ ids() } ], [], 'instead of the write');
$proxy->command('answer-after {"ok": 1, "n": 1, "writeConcernError": {"code": 64, "errmsg": "timed out"}}');
is(through('c.insert_one({"_id": 13})'), 'WriteConcernError', 'an answer made up');
is_deeply([ grep { $_ == 13 } @{ ids() } ], [13], 'after the write');
$proxy->command('answer-all {"ok": 0, "code": 91, "errmsg": "shutting down"}');
isnt(through('c.insert_one({"_id": 14})'), 'ok', 'always: once') for 1 .. 2;
$proxy->pass;
is(through('c.insert_one({"_id": 14})'), 'ok', 'until pass');

my $tls = PlinthTest::mongo_start(tls => 1);
is($tls->count('db', 'c'), 0, 'a server that speaks TLS');

my $file = PostgreSQL::Test::Utils::tempdir() . '/mongo.h2';
my $h2 = PlinthTest::mongo_start(h2 => $file);
$h2->eval('client.db.c.insert_one({"_id": 1}).acknowledged');
$h2->restart;
is($h2->count('db', 'c'), 1, 'the H2 server comes back with its data');

done_testing();
