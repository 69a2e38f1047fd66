# pre_request behind a real PostgREST: which credentials of a request count,
# what a cookie may do, whose address is believed; and by a client that
# imitates PostgREST.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use PostgreSQL::Test::Utils;
use RestTest;
use Test::More;

plan skip_all => 'no PostgREST for this machine' if RestTest::missing();

my $node = PlinthTest::node('main', root_key => 1, conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
plinth.trusted_authenticators = 'authenticator'
plinth.trusted_proxies = 'local, 10.0.0.0/8'
plinth.allowed_origins = 'https://app.test, http://localhost:3000'
log_statement = all
log_parameter_max_length_on_error = -1
CONF
$node->safe_psql('postgres', <<'SQL');
SELECT plinth.signing_key_create('ES256');
CREATE SCHEMA api;
CREATE TABLE api.notes (owner_id uuid NOT NULL DEFAULT plinth.current_user_id(), note text);
ALTER TABLE api.notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON api.notes USING (owner_id = (SELECT plinth.current_user_id()));
CREATE FUNCTION api.look() RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('role', current_user, 'user', plinth.current_user_id(), 'session', plinth.current_session_id(),
        'aal', plinth.current_aal(), 'read_only', current_setting('transaction_read_only'))
$$;
CREATE FUNCTION api.act() RETURNS json LANGUAGE sql VOLATILE AS 'SELECT api.look()';
SELECT plinth.rate_limit_create('by_address', 2, '100 days', scope => 'address');
CREATE FUNCTION api.address() RETURNS boolean LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT allowed FROM plinth.rate_limit_check('by_address') $$;
GRANT USAGE ON SCHEMA api TO anon, authenticated;
GRANT SELECT, INSERT ON api.notes TO authenticated;
SQL

my (%user, %session, %token, %jwt);
foreach my $name ('ann', 'ben')
{
	$user{$name} = $node->safe_psql('postgres', "SELECT user_id FROM plinth.sign_up('$name\@test.test', 'secret password')");
	($token{$name}, $session{$name}) = split /\|/, $node->safe_psql('postgres', "SELECT token, session_id FROM plinth.sign_in('$name\@test.test', 'secret password')");
	$jwt{$name} = $node->safe_psql('postgres', "SELECT plinth.jwt_issue('$token{$name}')");
}
my $jwks = $node->basedir . '/jwks.json';
append_to_file($jwks, $node->safe_psql('postgres', 'SELECT plinth.jwks()'));
my $rest = RestTest::start($node, 'db-pre-request' => 'plinth.pre_request', 'jwt-secret' => "@@{[$jwks]}");

sub cookie { return (Cookie => "theme=dark; __Host-plinth_session=$_[0]"); }

# Who the server says it is, or the status and message of a refusal.
sub who
{
	my ($method, %headers) = @_;
	my $answer = $rest->request($method, $method eq 'GET' ? 'rpc/look' : 'rpc/act', \%headers);
	my $body = $answer->{json};
	return "$answer->{status} $body->{code} $body->{message}" if $answer->{status} != 200;
	return "$body->{role} " . ($body->{user} // 'nobody') . ' ' . ($body->{session} // 'none') . " $body->{aal} $body->{read_only}";
}
my $invalid = '401 PT401 session is not valid';
my $ann = "authenticated $user{ann} $session{ann} 1";

# ---- one credential -----------------------------------------------------------
is(who('GET'), 'anon nobody none 0 on', 'no credential: anonymous');
is(who('POST'), 'anon nobody none 0 off', 'no credential, POST');
is(who('GET', 'X-Plinth-Session' => $token{ann}), "$ann on", 'our header, READ ONLY');
is(who('POST', 'X-Plinth-Session' => $token{ann}), "$ann off", 'our header, POST');
is(who('POST', 'X-Plinth-Session' => $jwt{ann}), "$ann off", 'an access token in our header');
is(who('GET', 'Authorization' => "Bearer $jwt{ann}"), "$ann on", 'Bearer with an access token');
is(who('GET', 'Authorization' => 'Basic YTpi'), 'anon nobody none 0 on', 'another scheme is none of ours');
is(who('GET', cookie($token{ann})), "$ann on", 'a cookie, GET');
like(who('GET', 'Authorization' => "Bearer $token{ann}"), qr/^401 PGRST301 /, 'PostgREST itself refuses a Bearer that is no JWT');
is(who('GET', 'X-Plinth-Session' => $_), $invalid, "a bad one: \"$_\"") foreach '', 'x', substr($token{ann}, 0, -1), "$token{ann}x", $session{ann};
is(who('GET', 'X-Plinth-Session' => 'a.b.c'), '401 PT401 token is not valid', 'what looks like a JWT');
is(who('GET', 'X-Plinth-Session' => 'x' x 5000), $invalid, 'a long one');
is(who('GET', cookie($jwt{ann})), $invalid, 'a cookie holds no access token');

my $answer = $rest->request('GET', 'rpc/look', { cookie('x') });
is($answer->{status}, 401, 'a bad cookie');
is($answer->{headers}{'set-cookie'}, '__Host-plinth_session=; Path=/; Secure; HttpOnly; Max-Age=0', 'is taken away');
is($rest->request('GET', 'rpc/look', { 'X-Plinth-Session' => 'x' })->{headers}{'set-cookie'}, undef, 'a header is not');

# ---- several ---------------------------------------------------------------------
is(who('GET', 'Authorization' => "Bearer $jwt{ann}", 'X-Plinth-Session' => $token{ann}, cookie($token{ann})), "$ann on", 'all of one session');
my $two = '400 PT400 request has two different credentials';
is(who('GET', 'Authorization' => "Bearer $jwt{ann}", 'X-Plinth-Session' => $token{ben}), $two, 'Bearer and header of two');
is(who('GET', 'X-Plinth-Session' => $token{ann}, cookie($token{ben})), $two, 'header and cookie of two');
is(who('GET', 'X-Plinth-Session' => $token{ann}, cookie('x')), $invalid, 'one good and one bad');
is(who('POST', 'X-Plinth-Session' => 'x', cookie($token{ann}), Origin => 'https://app.test'), $invalid, 'one bad and one good');

# ---- what a cookie may do -----------------------------------------------------------
my $origin = '403 PT403 origin is not allowed';
my %origin = ('https://app.test' => 1, 'HTTPS://App.Test' => 1, 'https://app.test:443' => 1, 'http://localhost:3000' => 1,
	'http://app.test' => 0, 'https://app.test:8443' => 0, 'https://app.test.evil.test' => 0, 'https://evil.test/https://app.test' => 0,
	'https://app.test/' => 0, 'null' => 0, '' => 0, '*' => 0, 'https://evil.test, https://app.test' => 0, 'https://app.test https://evil.test' => 0,
	'http://localhost' => 0, 'https://app.testx' => 0);
is(who('POST', cookie($token{ann}), Origin => $_), $origin{$_} ? "$ann off" : $origin, "POST by a cookie from \"$_\"") foreach sort keys %origin;
is(who('POST', cookie($token{ann})), $origin, 'POST by a cookie without Origin');
is(who('POST', cookie($token{ann}), Referer => 'https://app.test/'), $origin, 'Referer is no Origin');
is(who('POST', cookie($token{ann}), Origin => 'https://app.test', 'Sec-Fetch-Site' => 'same-site'), "$ann off", 'from the same site');
is(who('POST', cookie($token{ann}), Origin => 'https://app.test', 'Sec-Fetch-Site' => 'cross-site'), $origin, 'from another site');
is(who('POST', cookie('x')), $origin, 'nobody learns from elsewhere whether a cookie is good');
is(who('POST', cookie($token{ann}), 'X-Plinth-Session' => $token{ann}), "$ann off", 'a header beside the cookie shows that no other page sent it');
is($rest->request('POST', 'notes', { cookie($token{ann}), Origin => 'https://evil.test' }, { note => 'x' })->{status}, 403, 'a table too');
is($rest->request('POST', 'notes', { cookie($token{ann}), Origin => 'https://app.test' }, { note => 'hello' })->{status}, 201, 'a row');
is_deeply($rest->request('GET', 'notes?select=note', { cookie($token{ann}) })->{json}, [ { note => 'hello' } ], 'that its owner reads');
is_deeply($rest->request('GET', 'notes', { 'X-Plinth-Session' => $token{ben} })->{json}, [], 'and nobody else');
is($rest->request('GET', 'notes')->{status}, 401, 'nor somebody who is not signed in');

# ---- what has ended ends at once -------------------------------------------------------
my $soon = $node->safe_psql('postgres', "SELECT token FROM plinth.sign_in('ann\@test.test', 'secret password')");
my $soon_jwt = $node->safe_psql('postgres', "SELECT plinth.jwt_issue('$soon')");
like(who('GET', Authorization => "Bearer $soon_jwt"), qr/^authenticated $user{ann}/, 'another session');
$node->safe_psql('postgres', "UPDATE plinth.sessions SET revoked_at = now(), revoked_reason = 'test' WHERE user_id = '$user{ann}' AND id <> '$session{ann}'");
like(who('GET', Authorization => "Bearer $soon_jwt"), qr/^401 PT401 /, 'its access token ends with it');
is(who('GET', 'X-Plinth-Session' => $soon), $invalid, 'and its token');

# ---- the address -----------------------------------------------------------------------
sub allowed
{
	my ($forwarded, %headers) = @_;
	return $rest->request('POST', 'rpc/address', { 'X-Forwarded-For' => $forwarded, %headers })->{content};
}
is(allowed('192.0.2.1'), 'true', 'an address that a trusted proxy forwarded') for 1 .. 2;
is(allowed('192.0.2.1'), 'false', 'counts');
is(allowed('192.0.2.2'), 'true', 'another address');
is(allowed('192.0.2.9, 192.0.2.1'), 'false', 'what its client wrote before does not count');
is(allowed('192.0.2.1, 10.1.2.3'), 'false', 'a proxy before the proxy is passed over');
is(allowed('2001:db8::1'), 'true', 'IPv6') for 1 .. 2;
is(allowed('2001:db8::2'), 'false', 'counts by /64');
is(allowed('192.0.2.1', 'X-Plinth-Session' => $token{ben}), 'false', 'for who is signed in too');
is($node->safe_psql('postgres', "SELECT DISTINCT plinth.current_user_id() IS NULL"), 't', 'nothing stays in the server');
$rest->stop;

# ---- a client that imitates PostgREST ---------------------------------------------------
sub client
{
	my ($sql, %opts) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0,
		connstr => $node->connstr('postgres') . ' user=' . ($opts{user} || 'authenticator'));
	my ($error) = $err =~ /ERROR:  ([^\n]*)/;
	return (split /\n/, $out)[-1] // '' unless defined $error;
	return $error;
}
sub headers { return "SET LOCAL request.headers = '$_[0]'; SELECT plinth.pre_request();"; }
my $look = q(SELECT concat_ws(' ', current_user, coalesce(plinth.current_user_id()::text, 'nobody')););

is(client("BEGIN; SELECT plinth.pre_request(); $look"), 'authenticator nobody', 'no settings at all: anonymous');
is(client("BEGIN; SET LOCAL request.headers = ''; SELECT plinth.pre_request(); $look"), 'authenticator nobody', 'an empty setting');
is(client('BEGIN; ' . headers($_) . $look), 'setting "request.headers" is not a JSON object', "malformed: $_")
  foreach '{', '[]', '1', '"x"', 'null', '{"a": "\u0000"}', "Bearer $token{ann}";
is(client('BEGIN; ' . headers($_) . $look), 'authenticator nobody', "nothing that counts: $_")
  foreach '{}', '{"x-plinth-session": 1}', '{"x-plinth-session": {"a": 1}}', '{"X-Plinth-Session": "x"}', '{"authorization": null}';
is(client('BEGIN; ' . headers(qq({"x-plinth-session": "$token{ben}"})) . $look), "authenticated $user{ben}", 'a token that it holds');
is(client('BEGIN; ' . headers(qq({"x-plinth-session": "$session{ann}"})) . $look), 'session is not valid', 'an id that it knows');
is(client(qq(BEGIN; SET LOCAL request.jwt.claims = '{"sub": "$user{ann}"}'; ) . headers('{}') . $look), 'authenticator nobody', 'claims beside an anonymous request');
is(client('BEGIN; ' . headers('{}') . qq(SET LOCAL request.jwt.claims = '{"sub": "$user{ann}"}'; $look)), 'authenticator nobody', 'and after it');
is(client('BEGIN; ' . headers(qq({"x-plinth-session": "$token{ben}"})) . headers(qq({"x-plinth-session": "$token{ann}"})) . $look),
	'another request context was begun in this transaction', 'another identity later');
is(client('BEGIN; ' . headers('{}') . "SELECT plinth.context_begin('$token{ann}')"), 'another request context was begun in this transaction', 'somebody after nobody');
is(client('BEGIN; ' . headers(qq({"x-plinth-session": "$token{ben}"})) . headers(qq({"x-plinth-session": "$token{ben}"})) . $look),
	"authenticated $user{ben}", 'the same again');
is(client(qq(BEGIN; SET LOCAL request.cookies = '{"__Host-plinth_session": "$token{ben}"}'; SELECT plinth.pre_request(); $look)), 'origin is not allowed',
	'a cookie without a method is as one with an unsafe method');
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION as_definer() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT plinth.pre_request()';
SQL
is(client('BEGIN; SELECT as_definer()'), 'plinth.pre_request() cannot run within a security-definer function', 'within a security-definer function');

# Whose word about the address counts: the login's and the peer's, both.
sub address_of
{
	my ($login) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', <<'SQL', connstr => $node->connstr('postgres') . " user=$login");
BEGIN;
SET LOCAL request.headers = '{"x-forwarded-for": "192.0.2.77"}';
SELECT status FROM plinth.sign_in('ann@test.test', 'secret password', label => 'address');
COMMIT;
SQL
	is($err, '', "$login signs in");
	return $node->safe_psql('postgres', "SELECT coalesce(host(address), 'none') FROM plinth.sessions ORDER BY created_at DESC LIMIT 1");
}
$node->safe_psql('postgres', 'CREATE ROLE other LOGIN; GRANT authenticated TO other');
is(address_of('authenticator'), '192.0.2.77', 'a trusted login from a trusted peer is believed');
is(address_of('other'), 'none', 'another login from there is not');
$node->append_conf('postgresql.conf', "plinth.trusted_proxies = '127.0.0.1'");
$node->reload;
wait_until(sub { $node->safe_psql('postgres', 'SHOW plinth.trusted_proxies') eq '127.0.0.1' });
is(address_of('authenticator'), 'none', 'nor a trusted login from elsewhere');

# ---- nothing of it in the log --------------------------------------------------------------
my $log = slurp_file($node->logfile);
like($log, qr/hidden by plinth|parameters|statement:/, 'the log has statements');
unlike($log, qr/\Q$_\E/, 'but no credential') foreach values %token, values %jwt;

$node->stop('fast');
done_testing();
