# Refresh tokens: exchanged once, forgiving of retries, deadly to thieves; and
# what of keys and tokens survives dumps, crashes, standbys and other encodings.
use strict;
use warnings;

use MIME::Base64 qw(encode_base64url decode_base64url);
use PlinthTest qw(psql_ok psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $cheap = "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\n";
my $node = PlinthTest::node('main', root_key => 1, conf => $cheap);

sub sql { return $node->safe_psql($_[1] || 'postgres', $_[0]); }
sub sign_in { return split /\|/, sql("SELECT session_id, token FROM plinth.sign_in('$_[0]\@refresh.test', 'correct horse')"); }
sub begin { return split /\|/, sql("SELECT access_token, refresh_token FROM plinth.tokens_issue('$_[0]')"); }
sub refresh { my ($token, $grace) = @_; return split /\|/, sql((defined $grace ? "SET plinth.refresh_grace = '$grace';" : '') . "SELECT status, access_token, refresh_token_next FROM plinth.session_refresh('$token')"), -1; }
sub status { return (refresh(@_))[0]; }
sub good { return sql("SELECT count(*) FROM plinth.sessions WHERE id = '$_[0]' AND revoked_at IS NULL"); }

sql("SELECT plinth.sign_up(n || '\@refresh.test', 'correct horse') FROM unnest('{ann,bob}'::text[]) n");
my ($sid, $session) = sign_in('ann');
my ($other_sid, $other) = sign_in('ann');
psql_fails_like($node, 'postgres', "SELECT plinth.tokens_issue('$session')", qr/no key that signs/, 'without a key');
is(sql('SELECT count(*) FROM plinth.refresh_tokens'), 0, 'nothing is begun');
sql("SELECT plinth.signing_key_create('ES256')");

# ---- one after the other -----------------------------------------------------------
my ($access, $refresh) = begin($session);
like($refresh, qr/^plr_[A-Za-z0-9_-]{70}$/, 'a refresh token');
is(sql("SELECT plinth.jwt_verify('$access') ->> 'sid'"), $sid, 'and an access token');
is(sql("SELECT refresh_expires_at = s.expires_at, access_expires_at <= clock_timestamp() + interval '15 min' FROM plinth.tokens_issue('$session'), plinth.sessions s WHERE s.id = '$sid'"), 't|t', 'both say until when');
my @chain = ($refresh);
foreach my $i (1 .. 20)
{
	my ($status, $next_access, $next) = refresh($chain[-1]);
	is($status, 'ok', "exchange $i") if $i < 3 || $i == 20;
	push @chain, $next;
	$access = $next_access;
}
my %seen;
is(scalar(grep { $seen{$_}++ } @chain), 0, 'each token is another');
is(sql("SELECT plinth.jwt_verify('$access') ->> 'sid'"), $sid, 'the last access token is good');
is(sql("SELECT max(generation) FROM plinth.refresh_tokens"), 20, 'a family is one row');

# ---- retries within the grace -----------------------------------------------------
foreach my $i (0, 5, 19)
{
	my ($status, $a, $next) = refresh($chain[$i]);
	is($status, 'ok', "token $i, once more");
	is($next, $chain[20], 'gets the newest token');
	is(sql("SELECT plinth.jwt_verify('$a') ->> 'sid'"), $sid, 'and an access token that works');
}
is(sql("SELECT max(generation) FROM plinth.refresh_tokens"), 20, 'nothing moved on');

# ---- reuse ---------------------------------------------------------------------------
my ($status, $a, $next) = refresh($chain[7], 0);
is("$status|$a|$next", 'invalid_token||', 'a token that was exchanged before, without grace');
is(sql("SELECT revoked_reason FROM plinth.sessions WHERE id = '$sid'"), 'a refresh token was used again', 'ends the session');
is(good($other_sid), 1, 'and no other of the user');
is(sql("SELECT result, metadata ->> 'reason', session_id = '$sid', resource = 'session:$sid', actor_user_id IS NOT NULL FROM plinth.audit_entries WHERE action = 'plinth.session_refresh'"),
	'denied|refresh token used again|t|t|t', 'the audit says so');
is(status($chain[20]), 'invalid_token', 'the newest token is worth nothing');
is(status($chain[20], 0), 'invalid_token', 'however it comes');
psql_fails_like($node, 'postgres', "SELECT plinth.jwt_verify('$access')", qr/token is not valid/, 'nor is the access token');
psql_fails_like($node, 'postgres', "SELECT plinth.context_begin('$session')", qr/session is not valid/, 'nor the session token');
is(status($chain[3], 0), 'invalid_token', 'an old one again');
is(sql("SELECT count(*) FROM plinth.audit_entries WHERE action = 'plinth.session_refresh'"), 1, 'makes no second entry');

# Both ways round: whoever comes second, thief or not, ends it for both.
(my $bob_sid, $session) = sign_in('bob');
(undef, $refresh) = begin($session);
my $stolen = $refresh;
(undef, undef, $refresh) = refresh($stolen);
is(status($refresh, 0), 'ok', 'the thief goes on');
is(status($stolen, 0), 'invalid_token', 'the owner comes');
is(good($bob_sid), 0, 'and both are out');

# ---- what is no token -----------------------------------------------------------------
($bob_sid, $session) = sign_in('bob');
(undef, $refresh) = begin($session);
(undef, my $second) = begin($session);
my $bytes = decode_base64url(substr $refresh, 4);
my ($family, $generation, $secret) = unpack 'a16 N a32', $bytes;
sub token { return 'plr_' . encode_base64url(pack 'a16 N a32', @_); }
is(token($family, $generation, $secret), $refresh, 'a token is put together');
my $advanced = (refresh($refresh))[2];
my ($f2, $g2, $s2) = unpack 'a16 N a32', decode_base64url(substr $advanced, 4);
is("$g2", 1, 'the next generation');
foreach my $bad (
	[ 'nothing', '' ], [ 'NULL', undef ], [ 'a word', 'plr_' ], [ 'a session token', $session ], [ 'an access token', $access ],
	[ 'one character more', "${advanced}A" ], [ 'one less', substr($advanced, 0, -1) ], [ 'a space', "$advanced " ], [ 'another prefix', 'pls_' . substr($advanced, 4) ],
	[ 'in capitals', uc $advanced ], [ 'a megabyte', 'plr_' . 'A' x 1000000 ],
	[ 'a generation that is not yet', token($family, 2, $s2) ], [ 'far ahead', token($family, 0x7fffffff, $s2) ], [ 'beyond', token($family, 0xffffffff, $s2) ],
	[ 'a generation back', token($family, 0, $s2) ], [ 'an old secret under the new generation', token($family, 1, $secret) ],
	[ 'no secret', token($family, 1, "\0" x 32) ], [ 'the hash as the secret', token($family, 1, pack 'H*', sql("SELECT encode(token_hash, 'hex') FROM plinth.refresh_tokens WHERE generation = 1 AND session_id = '$bob_sid'")) ],
	[ 'the salt as the secret', token($family, 0, pack 'H*', sql("SELECT encode(salt, 'hex') FROM plinth.refresh_tokens WHERE generation = 1 AND session_id = '$bob_sid'")) ],
	[ 'another family', token((unpack 'a16 N a32', decode_base64url(substr $second, 4))[0], 1, $s2) ],
	[ 'a family that is not there', token("\1" x 16, 0, $secret) ])
{
	my $argument = defined $bad->[1] ? PlinthTest::quote_literal($bad->[1]) : 'NULL';
	is(sql("SET plinth.refresh_grace = 0; SELECT status, access_token IS NULL, refresh_token_next IS NULL FROM plinth.session_refresh($argument)"), 'invalid_token|t|t', "no token: $bad->[0]");
}
is(good($bob_sid), 1, 'none of these ends the session');
is(status($second), 'ok', 'another family of the session goes its own way');
is(status($advanced), 'ok', 'and so does this one');

# ---- rights, transactions, bounds ----------------------------------------------------
psql_fails_like($node, 'postgres', "BEGIN READ ONLY; SELECT plinth.session_refresh('$advanced')", qr/read-only transaction/, 'not in READ ONLY');
psql_fails_like($node, 'postgres', "BEGIN READ ONLY; SELECT plinth.tokens_issue('$session')", qr/read-only transaction/, 'nor is one begun');
is(sql("BEGIN READ ONLY; SELECT plinth.jwt_verify(plinth.jwt_issue('$session')) ->> 'sid'"), $bob_sid, 'but access tokens are');
(undef, $refresh) = begin($session);
is(sql("BEGIN; SELECT status FROM plinth.session_refresh('$refresh'); ROLLBACK; SELECT status FROM plinth.session_refresh('$refresh')"), "ok\nok", 'what was rolled back did not happen');
is(sql("SET ROLE anon; SELECT status FROM plinth.session_refresh('$refresh')"), 'ok', 'anon may');
is(sql("BEGIN; SAVEPOINT a; SELECT status FROM plinth.session_refresh('$refresh'); ROLLBACK TO a; COMMIT; SELECT count(*) FROM plinth.sessions WHERE id = '$bob_sid' AND revoked_at IS NULL"), "ok\n1", 'in savepoints');
my @families = map { (begin($session))[1] } 1 .. 12;
is(sql("SELECT count(*) FROM plinth.refresh_tokens WHERE session_id = '$bob_sid'"), 10, 'a session keeps ten families');
is(join(',', map { status($_) } @families[0, 1, 2, 11]), 'invalid_token,invalid_token,ok,ok', 'the newest');
is(good($bob_sid), 1, 'whoever lost theirs ends nothing');
sql("UPDATE plinth.sessions SET last_active_at = now() - interval '1 h' WHERE id = '$bob_sid'");
is(status($families[11]), 'ok', 'a refresh');
sql('SELECT plinth.session_flush()');
is(sql("SELECT last_active_at > now() - interval '1 min' FROM plinth.sessions WHERE id = '$bob_sid'"), 't', 'is use of the session');
foreach my $end (
	"UPDATE plinth.sessions SET last_active_at = now() - interval '8 d' WHERE id = '$bob_sid'",
	"UPDATE plinth.sessions SET expires_at = now() WHERE id = '$bob_sid'",
	"UPDATE plinth.users SET status = 'banned' WHERE email = 'bob\@refresh.test'",
	"SELECT plinth.session_revoke('$bob_sid')",
	"DELETE FROM plinth.sessions WHERE id = '$bob_sid'")
{
	is((split /\n/, sql("BEGIN; $end; SELECT status FROM plinth.session_refresh('$families[11]')"))[-1], 'invalid_token', "over: $end");
}

# ---- many at once: nobody is logged out --------------------------------------------------
# Each client takes the token that the last one left, or an older one, and leaves its own.
sql("CREATE TABLE jar (token text); INSERT INTO jar SELECT refresh_token FROM plinth.tokens_issue('$session')");
my $script = $node->basedir . '/tabs.sql';
append_to_file($script, <<'SQL');
SELECT token AS token FROM jar \gset
SELECT status, refresh_token_next AS next FROM plinth.session_refresh((:token)::text) \gset
INSERT INTO outcomes VALUES ((:status)::text);
UPDATE jar SET token = (:next)::text;
SQL
sql('CREATE TABLE outcomes (status text)');
{
	local $ENV{PGOPTIONS} = '-c plinth.refresh_grace=3600';
	$node->command_ok([ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '40', '-M', 'extended', '-f', $script, 'postgres' ], 'eight tabs of one browser');
}
is(sql('SELECT status, count(*) FROM outcomes GROUP BY 1'), 'ok|320', 'every refresh worked');
is(good($bob_sid), 1, 'the session goes on');

# ---- what the table tells -------------------------------------------------------------
my $rows = sql("SELECT string_agg(t::text, ' ') FROM plinth.refresh_tokens t");
my $hex = unpack 'H*', (unpack 'a16 N a32', decode_base64url(substr $families[11], 4))[2];
unlike($rows, qr/\Q$hex\E/, 'the table has no token');

# ---- crash, dump, standby, encodings ---------------------------------------------------------
(undef, $refresh) = begin($session);
$refresh = (refresh($refresh))[2];
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
my ($jwt) = begin($session);
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT plinth.jwt_verify('$jwt') ->> 'sid'"), $bob_sid, 'a standby verifies');
is($standby->safe_psql('postgres', "SELECT plinth.jwt_verify(plinth.jwt_issue('$session')) ->> 'sid'"), $bob_sid, 'and signs');
is($standby->safe_psql('postgres', "BEGIN; SELECT plinth.context_begin('$jwt') IS NOT NULL; SELECT plinth.current_session_id()"), "t\n$bob_sid", 'a context there');
psql_fails_like($standby, 'postgres', "SELECT plinth.session_refresh('$refresh')", qr/read-only transaction|during recovery/, 'no refresh');
sql("SELECT plinth.signing_key_create('EdDSA'), plinth.signing_key_rotate()");
my ($by_new) = begin($session);
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT plinth.jwt_verify('$by_new') ->> 'sid', plinth.jwt_verify('$jwt') ->> 'sid'"), "$bob_sid|$bob_sid", 'it follows a rotation');
my $old_kid = sql("SELECT kid FROM plinth.signing_keys WHERE status = 'retired'");
sql("SELECT plinth.signing_key_revoke('$old_kid')");
$node->wait_for_catchup($standby);
psql_fails_like($standby, 'postgres', "SELECT plinth.jwt_verify('$jwt')", qr/token is not valid/, 'it follows the end of a key');
sql("BEGIN; SELECT plinth.context_begin('$session'); SELECT plinth.session_revoke(); COMMIT");
$node->wait_for_catchup($standby);
psql_fails_like($standby, 'postgres', "SELECT plinth.jwt_verify('$by_new')", qr/token is not valid/, 'and of a session');
$standby->stop;

($bob_sid, $session) = sign_in('bob');
(undef, $refresh) = begin($session);
$refresh = (refresh($refresh))[2];
$node->kill9;
ok(PlinthTest::start_again($node), 'after a crash');
is(status($refresh), 'ok', 'refresh tokens are there');

my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
my $text = slurp_file($dump);
like($text, qr/^COPY plinth\.signing_keys/m, 'keys are dumped');
unlike($text, qr/^COPY plinth\.(refresh_tokens|sessions)/m, 'tokens are not');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'and restored');
my ($restored) = sql("SELECT token FROM plinth.sign_in('bob\@refresh.test', 'correct horse')", 'restored');
is(sql("SELECT plinth.jwt_verify(plinth.jwt_issue('$restored')) ->> 'iss'", 'restored'), 'plinth', 'restored keys sign');
psql_fails_like($node, 'restored', "SELECT plinth.jwt_verify('$by_new')", qr/token is not valid/, 'but sessions are gone');
is(sql("SELECT status FROM plinth.session_refresh('$refresh')", 'restored'), 'invalid_token', 'and refresh tokens');

# Another root key: what was sealed cannot be opened, and nothing else breaks.
my $key = $node->basedir . '/root.key';
rename $key, "$key.old" or die $!;
append_to_file($key, ('fedcba9876543210' x 4) . "\n");
chmod 0600, $key;
$node->restart;
psql_fails_like($node, 'postgres', "SELECT plinth.jwt_issue('$session')", qr/cannot be opened.*HINT:.*plinth\.root_key_file/s, 'another root key');
psql_fails_like($node, 'postgres', "SELECT plinth.session_refresh('$refresh')", qr/cannot be opened/, 'no refresh');
sql("SELECT plinth.signing_key_create('ES256'), plinth.signing_key_rotate()");
is(status($refresh), 'ok', 'a new key signs, and the refresh token waited');
$node->adjust_conf('postgresql.conf', 'plinth.root_key_file', "''");
$node->restart;
psql_fails_like($node, 'postgres', "SELECT plinth.signing_key_create('HS256')", qr/no root key is configured/, 'no root key');
psql_fails_like($node, 'postgres', "SELECT plinth.jwt_issue('$session')", qr/no root key is configured/, 'nothing is signed');
is(sql("SELECT jsonb_array_length(plinth.jwks() -> 'keys')"), 2, 'public keys are there');
unlink $key;
rename "$key.old", $key or die $!;
$node->adjust_conf('postgresql.conf', 'plinth.root_key_file', "'$key'");
$node->restart;

# Other encodings: claims are UTF-8 in any case.
foreach my $encoding ('LATIN1', 'SQL_ASCII', 'EUC_JP')
{
	my $db = lc $encoding;
	sql("CREATE DATABASE $db ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
	sql("CREATE EXTENSION plinth; SELECT plinth.sign_up('ann\@refresh.test', 'correct horse'), plinth.signing_key_create('EdDSA')", $db);
	my ($there) = sql("SELECT token FROM plinth.sign_in('ann\@refresh.test', 'correct horse')", $db);
	my $set = $encoding eq 'SQL_ASCII' ? "'app'" : "U&'" . ($encoding eq 'EUC_JP' ? '\\3042' : '\\00e4') . "'";
	my $name = sql("SELECT set_config('plinth.jwt_audience', $set, false); SELECT plinth.jwt_issue('$there')", $db) =~ s/^.*\n//r;
	my $payload = decode_base64url((split /\./, $name)[1]);
	like($payload, $encoding eq 'LATIN1' ? qr/"\xc3\xa4"/ : $encoding eq 'EUC_JP' ? qr/"\xe3\x81\x82"/ : qr/"app"/, "$encoding: claims are UTF-8");
	is((split /\n/, sql("SELECT set_config('plinth.jwt_audience', $set, false); SELECT plinth.jwt_verify('$name') ->> 'aud' = $set", $db))[-1], 't', "$encoding: and come back");
	if ($encoding eq 'LATIN1')
	{
		my @parts = split /\./, $name;
		my $claims = decode_base64url($parts[1]) =~ s/\{/{"x": "\xe2\x82\xac", /r;
		psql_fails_like($node, $db, "SELECT plinth.jwt_verify('$parts[0]." . encode_base64url($claims) . ".$parts[2]')", qr/token is not valid/, "$encoding: what has no place in it");
		$claims = decode_base64url($parts[1]) =~ s/\{/{"x": "\\u20ac", /r;
		psql_fails_like($node, $db, "SELECT plinth.jwt_verify('$parts[0]." . encode_base64url($claims) . ".$parts[2]')", qr/token is not valid/, "$encoding: nor as an escape");
	}
}
done_testing();
