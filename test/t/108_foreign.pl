# Request contexts by tokens of an outside issuer, whose users are known, made
# at first sight, or the application's own.
use strict;
use warnings;

use JoseTest;
use JSON::PP;
use PlinthTest qw(psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $node = PlinthTest::node('main', root_key => 1);
my $directory = $node->basedir . '/signing';
mkdir $directory;
my $python = JoseTest::python($directory);
my $js     = JoseTest::node();
my $jwks   = $python->ask('jwks');
my $issuer = 'https://clerk.test';
my $set    = $json->encode({ keys => [ map { { %{ $jwks->{$_} }, kid => $_ } } qw(rs es ed) ] });

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub claims
{
	my ($sub, %other) = @_;
	return { iss => $issuer, sub => $sub, azp => 'https://app.test', exp => time() + 3600, %other };
}

# By npm's jose, as Clerk's own tokens are made.
sub token
{
	my ($sub, %other) = @_;
	return $js->ask('sign', alg => 'RS256', pem => slurp_file("$directory/rs.pem"), header => { alg => 'RS256', kid => 'rs', typ => 'JWT' },
		claims => claims($sub, %other));
}

sub accept_issuer { return sql("SELECT plinth.jwt_issuer_set('$issuer', '$set', authorized_parties => '{https://app.test}', $_[0])"); }

# What a request with a token sees; a client's login role, in a transaction of its own.
sql(q{CREATE ROLE client LOGIN NOINHERIT IN ROLE anon, authenticated; GRANT USAGE ON SCHEMA plinth TO client;
	GRANT EXECUTE ON FUNCTION plinth.context_begin(text) TO client});
sub request
{
	my ($token, $what, $mode) = @_;
	return $node->safe_psql('postgres', 'BEGIN ' . ($mode || '') . "; SELECT plinth.context_begin('$token') AS \"user\" \\gset\n$what; COMMIT",
		connstr => $node->connstr('postgres') . ' user=client');
}
sub refused
{
	my ($token, $like, $why, $mode) = @_;
	return psql_fails_like($node, 'postgres', 'BEGIN ' . ($mode || '') . "; SELECT plinth.context_begin('$token'); COMMIT", $like, $why);
}

# ---- known by an identity ------------------------------------------------------------
accept_issuer("provider => 'clerk'");
my $ann = sql("SELECT id FROM plinth.user_create('ann\@foreign.test', tier => 'pro')");
refused(token('user_1'), qr/user is not known here/, 'nobody whom we know');
sql("SELECT plinth.identity_link('$ann', 'clerk', 'user_1'), plinth.role_create('editor', permissions => '{posts:write}')");
is(request(token('user_1'), 'SELECT plinth.current_user_id(), plinth.current_session_id(), plinth.current_aal(), plinth.current_tier(), plinth.current_user_key(), current_user'),
	"$ann||1|pro|$ann|authenticated", 'a context without a session');
foreach my $key (qw(rs es ed))
{
	my %alg = (rs => 'RS256', es => 'ES256', ed => 'EdDSA');
	my $token = $python->ask('encode', key => $key, alg => $alg{$key}, claims => claims('user_1'), headers => { kid => $key });
	is(request($token, 'SELECT email FROM plinth.me()', 'READ ONLY'), 'ann@foreign.test', "PyJWT's $alg{$key}, in READ ONLY");
}
is(request(token('user_1'), "SELECT plinth.has_permission('posts:write')"), 'f', 'with the permissions of the user');
sql("UPDATE plinth.users SET role = 'editor' WHERE id = '$ann'");
is(request(token('user_1'), "SELECT plinth.has_permission('posts:write')"), 't', 'as they are now');
is(sql("SELECT last_used_at > created_at FROM plinth.identities WHERE subject = 'user_1'"), 't', 'its use is noted');
my $noted = sql("SELECT last_used_at FROM plinth.identities WHERE subject = 'user_1'");
request(token('user_1'), 'SELECT 1');
is(sql("SELECT last_used_at FROM plinth.identities WHERE subject = 'user_1'"), $noted, 'and not at every request');
is(request(token('user_1'), "SELECT full_name FROM plinth.user_update_me('Ann')"), 'Ann', 'the user manages their account');

# ---- what ends it --------------------------------------------------------------------
foreach my $end ([ "user_lock('$ann')", "user_unlock('$ann')" ], [ "user_ban('$ann')", "user_unban('$ann')" ], [ "user_delete('$ann')", "user_restore('$ann')" ])
{
	my $token = token('user_1');
	sql("SELECT plinth.$end->[0]");
	refused($token, qr/token is not valid/, "after $end->[0]");
	sql("SELECT plinth.$end->[1]");
	is(request($token, 'SELECT 1'), '1', "and again after $end->[1]");
}
refused(token('user_1', exp => time() - 3600), qr/token is not valid/, 'an expired token');
refused(token('user_1', azp => 'https://other.test'), qr/token is not valid/, "another party's token");
refused(token(''), qr/token is not valid/, 'an empty subject');
refused(token("user_1' OR true --"), qr/user is not known here/, 'a subject that would be SQL');
refused(token('x' x 2000), qr/user is not known here/, 'a subject of 2 kB');

# ---- made at first sight ---------------------------------------------------------------
accept_issuer("provider => 'clerk', create_users => true");
refused(token('user_2'), qr/user is not known here.*must be one that may write/s, 'not in READ ONLY', 'READ ONLY');
is(request(token('user_2', email => 'Ben@foreign.test', email_verified => JSON::PP::true, name => 'Ben'), 'SELECT email, email_verified_at IS NOT NULL, full_name FROM plinth.me()'),
	'Ben@foreign.test|t|Ben', 'with what the issuer verified');
is(request(token('user_2', email => 'other@foreign.test', email_verified => JSON::PP::true), 'SELECT email FROM plinth.me()'), 'Ben@foreign.test', 'once');
is(request(token('user_3', email => 'cee@foreign.test'), 'SELECT email FROM plinth.me()'), '', 'no address that was not verified');
is(request(token('user_4', email => 'ANN@foreign.test', email_verified => JSON::PP::true), 'SELECT email, id FROM plinth.me()') =~ /^\|(?!$ann)/, 1, 'nor one that somebody has');
is(request(token('user_5', email => 'no address', email_verified => JSON::PP::true, name => [ 1 ]), 'SELECT email, full_name FROM plinth.me()'), '|', 'nor what is none');
sql("SELECT plinth.user_delete(plinth.identity_user('clerk', 'user_5'))");
refused(token('user_5'), qr/token is not valid/, 'who was deleted is not made anew');

# Two first requests at once: the second waits for the first and is the same user.
my $one = $node->background_psql('postgres');
my $two = $node->background_psql('postgres', on_error_stop => 0);
my $new = token('user_6', email => 'six@foreign.test', email_verified => JSON::PP::true);
my $first = $one->query_safe("BEGIN; SELECT plinth.context_begin('$new')");
$two->query_until(qr/begun/, "\\echo begun\nBEGIN; SELECT plinth.context_begin('$new') AS id \\gset\nCOMMIT;\n\\echo second :id\n");
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'postgres'") == 1 }), 'the second waits');
$one->query_safe('COMMIT');
my $second = $two->query_until(qr/second \S+/, '');
like($second, qr/second \Q$first\E/, 'and is the same user');
is(sql("SELECT count(*) FROM plinth.users WHERE email = 'six\@foreign.test'"), 1, 'there is one');
$_->quit foreach $one, $two;

# ---- a user links an identity themselves, by its token ------------------------------------
my $dora = sql("SELECT id FROM plinth.user_create('dora\@foreign.test', 'dora', password => 'correct horse')");
my $session = sql("SELECT token FROM plinth.sign_in('dora', 'correct horse')");
my $key = sql("SELECT key FROM plinth.api_key_create('x', user_id => '$dora')");
my $mine = token('user_9');
is(request($session, "SELECT plinth.identity_link_me('$mine'), plinth.identity_link_me('$mine')"), 't|f', 'linked');
is(request($mine, 'SELECT plinth.current_user_id()'), $dora, 'and who comes by it is the same user');
sub link_refused
{
	my ($by, $token, $like, $why) = @_;
	return psql_fails_like($node, 'postgres', "BEGIN; SELECT plinth.context_begin('$by'); SELECT plinth.identity_link_me($token); COMMIT", $like, $why);
}
link_refused($session, "'" . token('user_1') . "'", qr/identity is another user's/, "another user's");
link_refused($session, "'" . token('user_10', exp => 1) . "'", qr/token is not valid/, 'one that expired');
link_refused($session, 'NULL', qr/token is not valid/, 'none');
sql("UPDATE plinth.sessions SET authenticated_at = now() - interval '1 day'");
link_refused($session, "'" . token('user_10') . "'", qr/recent sign-in required/, 'by who signed in long ago');
link_refused($key, "'" . token('user_10') . "'", qr/an identity needs the user's own sign-in/, 'by an API key');
psql_fails_like($node, 'postgres', "SELECT plinth.identity_link_me('$mine')", qr/not signed in/, 'by nobody');

# ---- the application's own keys --------------------------------------------------------
sql(qq{CREATE TABLE accounts (id int PRIMARY KEY, plinth_id uuid UNIQUE);
	INSERT INTO accounts VALUES (42, '$ann'); SELECT plinth.user_key_source('accounts', 'id', 'plinth_id')});
is(request(token('user_1'), 'SELECT plinth.current_user_key()'), '42', 'the key of a user known by an identity');
accept_issuer('by_user_key => true');
is(request(token('42'), 'SELECT plinth.current_user_id()'), $ann, 'a subject that is the key');
refused(token('user_1'), qr/user is not known here/, 'not one that is an identity');
sql('DELETE FROM accounts');
refused(token('42'), qr/user is not known here/, 'nor a key that is gone');
sql("SELECT plinth.jwt_issuer_set('$issuer', '$set', authorized_parties => '{https://app.test}', user_key_claim => 'uid', by_user_key => true); INSERT INTO accounts VALUES (7, '$ann')");
is(request(token('x', uid => 7), 'SELECT plinth.current_user_key()'), '7', 'in a claim that is a number');
refused(token('7'), qr/token is not valid/, 'a token without the claim');
done_testing();
