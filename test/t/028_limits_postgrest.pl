# Rate limits behind a real PostgREST: 429 with its headers, headers of what is
# allowed, POST and GET (READ ONLY), each caller for itself.
use strict;
use warnings;

use PlinthTest;
use RestTest;
use Test::More;

plan skip_all => 'no PostgREST for this machine' if RestTest::missing();

my $node = PlinthTest::node('main', conf => "plinth.trusted_proxies = 'local'\nplinth.trusted_authenticators = 'authenticator'\n");
$node->safe_psql('postgres', <<'SQL');
SELECT plinth.rate_limit_create('rest', 3, '100 days', scope => 'endpoint');
SELECT plinth.rate_limit_create('also', 1000, '100 days');
CREATE SCHEMA api;
CREATE FUNCTION api.act() RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth.rate_limit_require('rest');
    PERFORM plinth.rate_limit_require('also');
    PERFORM plinth.rate_limit_require('also');
    RETURN 'done';
END
$$;
CREATE FUNCTION api.look() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth.rate_limit_require('rest');
    RETURN current_setting('transaction_read_only');
END
$$;
GRANT USAGE ON SCHEMA api TO anon;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA api TO anon;
SQL

my $rest = RestTest::start($node);

sub request
{
	my ($method, $name, $address) = @_;
	return $rest->request($method, $name, { 'X-Forwarded-For' => $address });
}

my $answer = request('POST', 'rpc/act', '192.0.2.1');
is("$answer->{status} $answer->{content}", '200 "done"', 'allowed');
is($answer->{headers}{'ratelimit-policy'}, '"rest";q=3;w=8640000, "also";q=1000;w=8640000', 'RateLimit-Policy of both, once each');
like($answer->{headers}{'ratelimit'}, qr/^"rest";r=2;t=2880000, "also";r=998;t=172[78]\d$/, 'RateLimit of both, as they are at the end');

$answer = request('GET', 'rpc/look', '192.0.2.1');
is("$answer->{status} $answer->{content}", '200 "on"', 'a GET is READ ONLY, and another endpoint');
is($answer->{headers}{'ratelimit'}, '"rest";r=2;t=2880000', 'with headers of its own');

request('POST', 'rpc/act', '192.0.2.1') for 1 .. 2;
$answer = request('POST', 'rpc/act', '192.0.2.1');
is($answer->{status}, 429, 'denied');
is($answer->{headers}{'ratelimit-policy'}, '"rest";q=3;w=8640000', 'with RateLimit-Policy');
like($answer->{headers}{'ratelimit'}, qr/^"rest";r=0;t=\d+$/, 'RateLimit');
like($answer->{headers}{'retry-after'}, qr/^28[78]\d{4}$/, 'Retry-After');
my $body = $answer->{json};
is($body->{code}, 'PT429', 'its code');
is($body->{message}, 'Too many requests', 'its message');
like($body->{details}, qr/^Limit "rest" allows this again in \d+ s\.$/, 'its details');

is(request('POST', 'rpc/act', '192.0.2.2')->{status}, 200, 'another address has its own');
is(request('POST', 'rpc/act', '2001:db8::1')->{status}, 200, 'IPv6') for 1 .. 3;
is(request('POST', 'rpc/act', '2001:db8::2')->{status}, 429, 'counts by /64');
is(request('POST', 'rpc/act', '198.51.100.1, 192.0.2.1')->{status}, 429, 'what a client writes into the header itself does not count');

$rest->stop;
$node->stop('fast');

done_testing();
