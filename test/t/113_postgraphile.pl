# PostGraphile serves what api_install made, by pre_request as PostgREST does.
use strict;
use warnings;

use HTTP::Tiny;
use JSON::PP;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'no PostGraphile' unless -d "$ENV{PLINTH_SERVERS}/npm/node_modules/postgraphile";

my $node = PlinthTest::node('main', root_key => 1, conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
plinth.trusted_authenticators = 'authenticator'
plinth.trusted_proxies = 'local'
plinth.allowed_origins = 'https://app.test'
CONF
$node->safe_psql('postgres', "SELECT plinth.signing_key_create('ES256'); CREATE SCHEMA api; SELECT plinth.api_install('api')");
my $server = bless { port => 0 }, 'PlinthTest::Server';
$server->_spawn('node', "$ENV{PLINTH_ROOT}/test/servers/postgraphile.mjs", "$ENV{PLINTH_SERVERS}/npm/node_modules", $node->host, $node->port);
my $http = HTTP::Tiny->new(timeout => 60);
my $json = JSON::PP->new->utf8->canonical;

# The data of an answer as JSON, or the SQLSTATE and message of its error.
sub ask
{
	my ($query, %headers) = @_;
	my $answer = $http->post("http://127.0.0.1:$server->{port}/graphql",
		{ headers => { 'Content-Type' => 'application/json', %headers }, content => $json->encode({ query => $query }) });
	my $body = eval { $json->decode($answer->{content}) } or return "$answer->{status} $answer->{content}";
	return "$body->{errors}[0]{errcode} $body->{errors}[0]{message}" if $body->{errors} && $body->{errors}[0]{errcode};
	return $body->{errors} ? $json->encode($body->{errors}) : $json->encode($body->{data});
}

# ---- all of them are there -----------------------------------------------------
my $schema = $json->decode(ask('{ __schema { queryType { fields { name } } mutationType { fields { name } } } }'))->{__schema};
my %served = map { $_->{name} => 'query' } @{ $schema->{queryType}{fields} };
$served{ $_->{name} } = 'mutation' foreach @{ $schema->{mutationType}{fields} };
foreach my $row (split /\n/, $node->safe_psql('postgres', "SELECT proname, provolatile FROM pg_proc WHERE pronamespace = 'api'::regnamespace ORDER BY 1"))
{
	my ($name, $volatility) = split /\|/, $row;
	is($served{ $name =~ s/_([a-z])/\u$1/gr } // 'nothing', $volatility eq 'v' ? 'mutation' : 'query', $name);
}

# ---- and work -----------------------------------------------------------------------
my $sign_up = 'mutation { signUp(input: { email: "%s", password: "secret password", username: "%s" }) { string } }';
is(ask(sprintf $sign_up, 'ann@test.test', 'ann'), '{"signUp":{"string":"ok"}}', 'signing up');
is(ask(sprintf $sign_up, 'ann@test.test', 'other'), '{"signUp":{"string":"ok"}}', 'a known address');
is(ask(sprintf $sign_up, 'b@test.test', 'ann'), '{"signUp":{"string":"username_taken"}}', 'a username of somebody else');
is(ask('mutation { signIn(input: { identifier: "ann", password: "x" }) { result { status token } } }'),
	'{"signIn":{"result":{"status":"invalid_credentials","token":null}}}', 'a wrong password');
my ($token) = ask('mutation { signIn(input: { identifier: "ann", password: "secret password" }) { result { status token } } }') =~ /"(pls_[^"]*)"/;
ok($token, 'signing in');
my %ann = ('X-Plinth-Session' => $token);
is(ask('{ me { username roles } }', %ann), '{"me":{"roles":["user"],"username":"ann"}}', 'me');
is(ask('{ me { username } }'), '42501 permission denied for function me', 'not signed in');
is(ask('{ me { username } }', 'X-Plinth-Session' => 'pls_x'), '[{"message":"session is not valid"}]', 'a bad token');
is(ask('mutation { updateMe(input: { fullName: "Ann" }) { boolean } }', %ann), '{"updateMe":{"boolean":true}}', 'a change');
is(ask('{ me { fullName } mySessions { nodes { isCurrent } } }', %ann), '{"me":{"fullName":"Ann"},"mySessions":{"nodes":[{"isCurrent":true}]}}', 'is made');
is(ask('mutation { updateMe(input: { fullName: "Eve" }) { boolean } }', Cookie => "__Host-plinth_session=$token", Origin => 'https://evil.test'),
	'[{"message":"origin is not allowed"}]', 'another page');
is(ask('{ usersSearch { nodes { email } } }', %ann), 'PT403 not permitted', 'no administrator');
is(ask('mutation { signOut(input: {}) { boolean } }', %ann), '{"signOut":{"boolean":true}}', 'signing out');
is(ask('{ me { username } }', %ann), '[{"message":"session is not valid"}]', 'is the end');

undef $server;
$node->stop('fast');
done_testing();
