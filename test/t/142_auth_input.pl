# What clients send that is no text, no time zone or no good intention: bytes that
# are no UTF-8, strange settings of the session, requests that ask to be rolled
# back, and tokens that were there before somebody signed in.
use strict;
use warnings;

use AuditTest;
use PlinthTest qw(psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use RestTest;
use Test::More;

my $listed = PlinthTest::knows_setting('output_plugin_libraries') ? "output_plugin_libraries = 'plinth'" : '';
my $node = PlinthTest::node('main', root_key => 1, conf => <<"CONF");
$listed
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
plinth.trusted_authenticators = 'authenticator'
plinth.trusted_proxies = 'local'
CONF
sub sql { my ($sql, $database) = @_; return $node->safe_psql($database || 'postgres', $sql); }

# The status of a statement: what it returns, or SQLSTATE and message.
sub outcome
{
	my ($sql, $database) = @_;
	my ($rc, $out, $err) = $node->psql($database || 'postgres', "\\set VERBOSITY verbose\n$sql", on_error_stop => 0);
	return $err =~ /ERROR:  (\w+): ([^\n]*)/ ? "$1 $2" : $out;
}

sql("SELECT plinth.signing_key_create('ES256')");
my %user = map { $_ => sql("SELECT user_id FROM plinth.sign_up('$_\@input.test', 'correct horse', '$_')") } 'ann', 'eve';

# ---- bytes that are no UTF-8 ---------------------------------------------------------------
foreach my $call ("plinth.sign_in('\xff', 'x')", "plinth.sign_in('ann', '\xc0\xaf')", "plinth.sign_up('\xed\xa0\x80\@input.test', 'correct horse')",
	"plinth.session_verify('pls_\xff')", "plinth.context_begin('\xfe')", "plinth.jwt_verify('\xff.\xff.\xff')", "plinth.password_reset('\x80', 'correct horse')")
{
	like(outcome("SELECT $call"), qr/^22021 invalid byte sequence/, 'PostgreSQL refuses ' . ($call =~ s/[^ -~]+/?/gr));
}
# A database that takes them: nothing of ours stumbles.
sql("CREATE DATABASE bytes ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
sql("CREATE EXTENSION plinth; SELECT plinth.sign_up('ann\@input.test', 'correct horse'), plinth.signing_key_create('EdDSA')", 'bytes');
my %bytes = (
	"SELECT status FROM plinth.sign_in(E'\\xff', 'x')" => 'invalid_credentials',
	"SELECT status FROM plinth.sign_in('ann\@input.test', E'\\xc0\\xaf')" => 'invalid_credentials',
	"SELECT status FROM plinth.sign_up(E'\\xff \@input.test', 'correct horse')" => 'PT400 email is not valid',
	"SELECT user_id FROM plinth.session_verify(E'pls_\\xff')" => '',
	"SELECT plinth.context_begin(E'\\xfe')" => 'PT401 session is not valid',
	"SELECT plinth.jwt_verify(E'\\xff.\\xff.\\xff')" => 'PT401 token is not valid',
	"SELECT plinth.password_reset(E'plo_\\x80', 'correct horse')" => 'invalid_token',
	"SELECT status FROM plinth.session_refresh(E'plr_\\xff')" => 'invalid_token');
is(outcome($_, 'bytes'), $bytes{$_}, "bytes: $_") foreach sort keys %bytes;
like(outcome("SELECT status FROM plinth.sign_up('ben\@input.test', E'\\xff\\xfe\\xfd\\xfc\\xfb\\xfa\\xf9\\xf8')", 'bytes'), qr/^ok$|^PT400 /, 'bytes: a password of bytes is one, or none');

# ---- what the session has for times ------------------------------------------------------------
my $ann = sql("SELECT token FROM plinth.sign_in('ann', 'correct horse')");
my $jwt = sql("SELECT plinth.jwt_issue('$ann')");
my $exp = sql("SELECT plinth.jwt_verify('$jwt') ->> 'exp'");
foreach my $settings ("SET TimeZone = 'Pacific/Kiritimati'", "SET TimeZone = 'Etc/GMT+12'", "SET TimeZone = '<+167:59>-167:59'", "SET TimeZone = 'ABC12'",
	"SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'", "SET DateStyle = 'SQL, MDY'; SET TimeZone = 'America/Chicago'", "SET extra_float_digits = -15")
{
	is(sql("$settings; SELECT plinth.jwt_verify('$jwt') ->> 'exp', user_id, abs(extract(epoch FROM expires_at - now()) - 30 * 86400) < 600 FROM plinth.session_verify('$ann')"),
		"$exp|$user{ann}|t", "a session under $settings");
	my $other = sql("$settings; SELECT plinth.jwt_issue(token) FROM plinth.sign_in('ann', 'correct horse')");
	cmp_ok(abs(sql("SELECT (plinth.jwt_verify('$other') ->> 'exp')::bigint - extract(epoch FROM now())::bigint") - 900), '<', 120, 'and a token made there');
}
like(outcome("SET TimeZone = 'Nowhere/Else'"), qr/^22023 invalid value/, 'a time zone that is none');
like(outcome("SELECT plinth.user_ban('$user{eve}', '2030-01-01 00:00 Nowhere/Else')"), qr/^22023 time zone "nowhere\/else" not recognized/i, 'nor is anybody banned by one');
is(sql("SELECT status FROM plinth.users WHERE id = '$user{eve}'"), 'active', 'so eve is not');

SKIP:
{
	skip 'no PostgREST for this machine', 12 if RestTest::missing();
	sql("CREATE SCHEMA api; SELECT plinth.api_install('api')");
	my $jwks = $node->basedir . '/jwks.json';
	append_to_file($jwks, sql('SELECT plinth.jwks()'));
	my $rest = RestTest::start($node, 'db-pre-request' => 'plinth.pre_request', 'jwt-secret' => "@@{[$jwks]}", 'db-tx-end' => 'commit-allow-override');
	my $post = sub { return $rest->request('POST', "rpc/$_[0]", $_[2], $_[1]); };

	# ---- requests that ask to be rolled back ----------------------------------------------------
	ok(AuditTest::enable($node), 'events');
	my $since = sql('SELECT plinth.uuid_v7()');
	my $rolled_back = sub { return sql("SELECT count(*) FROM plinth.audit_entries WHERE id > '$since' AND metadata @> '{\"rolled_back\": true}' AND result = '$_[0]'"); };
	my %rollback = (Prefer => 'tx=rollback', 'X-Forwarded-For' => '192.0.2.8');
	is($post->('sign_in', { identifier => 'ann', password => 'wrong' }, \%rollback)->{status}, 401, 'a guess that is rolled back');
	my $answer = $post->('sign_in', { identifier => 'ann', password => 'correct horse' }, \%rollback);
	is($answer->{status}, 200, 'the right password, rolled back');
	is($rest->request('GET', 'rpc/me', { 'X-Plinth-Session' => $answer->{json}{token} })->{status}, 401, 'makes no session');
	ok(wait_until(sub { $rolled_back->('success') == 1 }), 'and both leave an entry');
	is($rolled_back->('failure'), '1', 'each one');
	my @statuses = map { $post->('sign_in', { identifier => 'ann', password => "wrong $_" }, \%rollback)->{status} } 1 .. 8;
	is($statuses[-1], 429, 'and they are counted');

	# ---- a session that was there before --------------------------------------------------------
	my %eve = ('X-Plinth-Session' => sql("SELECT token FROM plinth.sign_in('eve', 'correct horse')"));
	$answer = $post->('sign_in', { identifier => 'ann', password => 'correct horse' }, \%eve);
	is($answer->{status}, 200, "signing in with somebody's token in the request");
	isnt($answer->{json}{token}, $eve{'X-Plinth-Session'}, 'gives another token');
	is($answer->{json}{user_id}, $user{ann}, 'of who signed in');
	is($rest->request('GET', 'rpc/me', \%eve)->{json}{username}, 'eve', 'the other stays whose it was');
	is($post->('refresh_session', { token => $eve{'X-Plinth-Session'} })->{status}, 401, 'and refreshes nothing');
	$rest->stop;
}

$node->stop;
done_testing();
