# The functions of api_install through a real PostgREST: from signing up to
# signing out, by token, cookie and access token; statuses, headers, cookies,
# OpenAPI; nothing secret in the log.
use strict;
use warnings;

use PlinthTest;
use PostgreSQL::Test::Utils;
use RestTest;
use Test::More;

plan skip_all => 'no PostgREST for this machine' if RestTest::missing();

my $node = PlinthTest::node('main', root_key => 1, conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
plinth.trusted_authenticators = 'authenticator'
plinth.trusted_proxies = 'local'
plinth.allowed_origins = 'https://app.test'
log_statement = all
log_min_duration_statement = 0
log_parameter_max_length_on_error = -1
CONF
$node->safe_psql('postgres', <<'SQL');
SELECT plinth.signing_key_create('ES256');
CREATE SCHEMA api;
SELECT plinth.api_install('api', same_site => 'Strict');
SQL
my $jwks = $node->basedir . '/jwks.json';
append_to_file($jwks, $node->safe_psql('postgres', 'SELECT plinth.jwks()'));
my $rest = RestTest::start($node, 'db-pre-request' => 'plinth.pre_request', 'jwt-secret' => "@@{[$jwks]}");
my $password = 'correct horse battery';
my @secrets = ($password);

sub post { return $rest->request('POST', "rpc/$_[0]", $_[2], $_[1]); }
sub get { return $rest->request('GET', $_[0] eq '' ? '' : "rpc/$_[0]", $_[1]); }

# The status, and the short message or status in the body.
sub short
{
	my ($answer) = @_;
	my $body = $answer->{json};
	my $what = ref $body eq 'HASH' ? $body->{message} // $body->{status} : $body;
	return "$answer->{status} " . ($what // 'null');
}
my @page = (Origin => 'https://app.test', 'Sec-Fetch-Site' => 'same-site');

# ---- signing up ---------------------------------------------------------------
my %ann = (email => 'ann@test.test', password => $password, username => 'ann', full_name => 'Ann', metadata => { lang => 'en' });
is(short(post('sign_up', \%ann)), '200 ok', 'signing up');
is(short(post('sign_up', { %ann, username => 'other' })), '200 ok', 'a known e-mail address answers alike');
is(short(post('sign_up', { %ann, email => 'ANN@TEST.TEST', username => undef })), '200 ok', 'in another case too');
is($node->safe_psql('postgres', "SELECT count(*) FROM plinth.users WHERE username = 'other'"), '0', 'and makes nobody');
is(short(post('sign_up', { %ann, email => 'b@test.test', username => 'ANN' })), '409 username_taken', 'a username of somebody else');
is(short(post('sign_up', { %ann, email => 'b@test.test', password => 'short' })), '400 password is too short', 'a short password');
is(post('sign_up', { %ann, email => 'b@test.test', password => 'p' x 1_000_000 })->{status}, 400, 'a password of 1 MB');
is(post('sign_up', { %ann, email => $_ })->{status}, 400, 'no address: ' . ($_ // 'NULL')) foreach undef, '', 'ann';
is(post('sign_up', { %ann, metadata => [] })->{status}, 400, 'metadata that is no object');
is(post('sign_up', '{"email": "a\u0000@b.test", "password": "xxxxxxxxxx"}')->{status}, 400, 'a zero in the address');
is(post('sign_up', '{"email": ')->{status}, 400, 'a body that is no JSON');
is(get("sign_up?email=c\@test.test&password=correct-horse")->{status}, 405, 'not by GET');
is($node->safe_psql('postgres', "SELECT count(*) FROM plinth.audit_entries WHERE action = 'plinth.sign_up' AND result = 'failure'"), '3', 'what was refused by a status is recorded');

# ---- signing in -----------------------------------------------------------------
my %in = (identifier => 'ann', password => $password);
is(short(post('sign_in', { %in, password => 'wrong' })), '401 invalid_credentials', 'a wrong password');
is(short(post('sign_in', { %in, identifier => 'nobody' })), '401 invalid_credentials', 'an unknown user');
is(short(post('sign_in', { %in, password => undef })), '400 password is missing', 'no password');
is(short(post('sign_in', { %in, transport => 'pigeon' })), '400 transport is not valid', 'another transport');
my $answer = post('sign_in', { %in, label => 'phone', device_type => 'mobile' }, { 'User-Agent' => 'Test/1.0', 'X-Forwarded-For' => '192.0.2.5' });
is(short($answer), '200 ok', 'signing in');
my $token = $answer->{json}{token};
like($token, qr/^pls_[\w-]{43}$/, 'gives a token');
is($answer->{headers}{'set-cookie'}, undef, 'and no cookie');
is($answer->{json}{access_token}, undef, 'and no access token');
my %by_token = ('X-Plinth-Session' => $token);
push @secrets, $token;

is(short(post('sign_in', { %in, transport => 'cookie' }, { Origin => 'https://evil.test' })), '403 origin is not allowed', 'no cookie for another page');
is(short(post('sign_in', { %in, transport => 'cookie' })), '403 origin is not allowed', 'nor for none');
$answer = post('sign_in', { %in, transport => 'cookie' }, {@page});
is(short($answer), '200 ok', 'signing in for a cookie');
is($answer->{json}{token}, undef, 'whose token is not shown');
like($answer->{headers}{'set-cookie'}, qr/^__Host-plinth_session=pls_[\w-]{43}; Path=\/; Secure; HttpOnly; SameSite=Strict; Max-Age=25919\d\d$/, 'Set-Cookie');
my ($cookie) = $answer->{headers}{'set-cookie'} =~ /^([^;]*)/;
my %by_cookie = (Cookie => $cookie, @page);
push @secrets, $cookie =~ /=(.*)/;

$answer = post('sign_in', { %in, transport => 'jwt' });
is(short($answer), '200 ok', 'signing in for access and refresh token');
is($answer->{json}{token}, undef, 'whose session token is not shown');
my ($access, $refresh) = @{ $answer->{json} }{ 'access_token', 'refresh_token' };
my %by_jwt = (Authorization => "Bearer $access");
push @secrets, $access, $refresh;

# ---- who is signed in ---------------------------------------------------------------
foreach my $by ([ 'token', \%by_token ], [ 'cookie', \%by_cookie ], [ 'access token', \%by_jwt ])
{
	my ($how, $headers) = @$by;
	my $me = get('me', $headers);
	is("$me->{status} $me->{json}{username} $me->{json}{email} @{$me->{json}{roles}} $me->{json}{aal}", '200 ann ann@test.test user 1', "me by $how");
	is(post('update_me', { full_name => "Ann by $how" }, $headers)->{status}, 200, "a change by $how");
	is(get('me', $headers)->{json}{full_name}, "Ann by $how", 'is made');
}
is(get('me')->{status}, 401, 'me, not signed in');
is(post('update_me', { username => 'b d' }, \%by_token)->{status}, 400, 'a username that cannot be');
is(short(post('update_me', { full_name => 'Mallory' }, { %by_cookie, Origin => 'https://evil.test' })), '403 origin is not allowed', 'a change from another page');
is(post('update_me', { full_name => 'Mallory' }, { Authorization => 'Bearer x.y.z' })->{status}, 401, 'a forged access token');

post('sign_up', { %ann, email => 'ben@test.test', username => 'ben' });
$answer = post('sign_in', { %in, identifier => 'ben@test.test' });
my %ben = ('X-Plinth-Session' => $answer->{json}{token});
my $ben = $answer->{json}{user_id};
is(short(post('update_me', { username => 'Ann' }, \%ben)), '409 username is taken', 'a username of somebody else');
is(short(get('me', { %by_token, Cookie => "__Host-plinth_session=$ben{'X-Plinth-Session'}" })), '400 request has two different credentials', 'two at once');

# ---- sessions ---------------------------------------------------------------------------
my $sessions = get('my_sessions', \%by_token)->{json};
is(join(' ', map { $_->{is_current} ? 1 : 0 } sort { $a->{created_at} cmp $b->{created_at} } @$sessions), '1 0 0', 'three sessions, one of them this');
my ($phone) = grep { $_->{is_current} } @$sessions;
is("@{$phone}{qw(label device_type user_agent address)}", 'phone mobile Test/1.0 192.0.2.5', 'with the device and the address');
is(short(post('revoke_session', { session_id => $phone->{id} }, \%ben)), '404 session not found', 'of somebody else');
is(post('label_session', { session_id => $phone->{id}, label => 'my phone' }, \%by_token)->{content}, 'true', 'naming one');
is((grep { $_->{is_current} } @{ get('my_sessions', \%by_token)->{json} })[0]{label}, 'my phone', 'shows');
is(short(post('label_session', { session_id => $phone->{id}, label => 'x' }, \%ben)), '404 session not found', 'not of somebody else');
is(post('revoke_session', { session_id => 'x' }, \%by_token)->{status}, 400, 'no id');
is(get('my_sessions')->{status}, 401, 'not signed in');

# ---- refresh ------------------------------------------------------------------------------
$answer = post('refresh_session', { token => $refresh });
is(short($answer), '200 ok', 'refreshing');
push @secrets, @{ $answer->{json} }{ 'access_token', 'refresh_token' };
is(get('me', { Authorization => "Bearer $answer->{json}{access_token}" })->{json}{username}, 'ann', 'gives another access token');
is(short(post('refresh_session', { token => $_ // undef })), '401 invalid_token', 'no good refresh token') foreach undef, '', 'plr_x', $token;

# ---- an end ---------------------------------------------------------------------------------
my $jwt_session = (grep { !$_->{is_current} } @{ get('my_sessions', \%by_cookie)->{json} })[0]{id};
$answer = post('sign_out', {}, \%by_cookie);
is("$answer->{status} $answer->{headers}{'set-cookie'}", '200 __Host-plinth_session=; Path=/; Secure; HttpOnly; Max-Age=0', 'signing out takes the cookie away');
$answer = get('me', \%by_cookie);
is("$answer->{status} $answer->{headers}{'set-cookie'}", '401 __Host-plinth_session=; Path=/; Secure; HttpOnly; Max-Age=0', 'and its session is over');
is(post('sign_out', {}, { Origin => 'https://app.test' })->{status}, 401, 'signing out twice');
is(post('revoke_other_sessions', {}, \%by_token)->{content}, '1', 'ending the others');
is(get('me', \%by_jwt)->{status}, 401, 'an access token ends with its session');
is(short(post('refresh_session', { token => $refresh })), '401 invalid_token', 'and so does the refresh token');
$answer = post('sign_out', {}, \%by_token);
is("$answer->{status} $answer->{content}", '200 true', 'signing out by token');
is($answer->{headers}{'set-cookie'}, undef, 'has no cookie to take away');
is(get('me', \%by_token)->{status}, 401, 'and is over');

# ---- administrators ---------------------------------------------------------------------------
is(get('users_search', \%ben)->{status}, 403, 'no administrator');
is(get('users_search')->{status}, 401, 'nobody');
$node->safe_psql('postgres', "SELECT plinth.role_create('admin', permissions => '{plinth:admin}'); UPDATE plinth.users SET role = 'admin' WHERE username = 'ben'");
is(join(' ', map { $_->{username} } @{ get('users_search?query=ann', \%ben)->{json} }), 'ann', 'an administrator searches');
my $ann = get('users_search?query=ann', \%ben)->{json}[0]{id};
is(post('user_lock', { user_id => $ann, reason => 'test' }, \%ben)->{content}, 'true', 'locks');
is(short(post('sign_in', \%in)), '403 locked', 'and who is locked learns it with the right password');
is(post('user_unlock', { user_id => $ann }, \%ben)->{content}, 'true', 'unlocks');
is(post('user_lock', { user_id => '00000000-0000-0000-0000-000000000000' }, \%ben)->{status}, 404, 'an unknown user');
is(post('user_create', { email => 'ann@test.test' }, \%ben)->{status}, 409, 'an address that is taken');
$answer = post('sign_in', { %in, device_fingerprint => 'stolen' });
my %stolen = ('X-Plinth-Session' => $answer->{json}{token});
push @secrets, $answer->{json}{token};
is(post('device_ban', { device_fingerprint => 'stolen', user_id => $ann }, \%stolen)->{status}, 403, 'no administrator');
is(post('device_ban', { device_fingerprint => 'stolen', user_id => $ann }, \%ben)->{content}, '1', 'bans a device');
is(get('me', \%stolen)->{status}, 401, 'whose session ends');
is(post('device_unban', { device_fingerprint => 'stolen', user_id => $ann }, \%ben)->{content}, 'true', 'ends the ban');
is(post('user_identity_link', { user_id => $ann, provider => 'clerk', subject => 'user_1' }, \%ben)->{content}, 'true', 'links an identity');
my %ann_in = ('X-Plinth-Session' => post('sign_in', \%in)->{json}{token});
is(get('my_identities', \%ann_in)->{json}[0]{subject}, 'user_1', 'which the user sees');
is(short(post('link_identity', { provider_token => 'x.y.z' }, \%ann_in)), '401 token is not valid', 'a token that is none');
is(post('unlink_identity', { provider => 'clerk', subject => 'user_1' }, \%ann_in)->{content}, 'true', 'and takes away');
is(short(post('unlink_identity', { provider => 'clerk', subject => 'user_1' }, \%ann_in)), '404 identity not found', 'once');
is(post('user_identity_unlink', { user_id => $ann, provider => 'clerk', subject => 'user_1' }, \%ben)->{content}, 'false', 'so is none left');

# ---- by mail ------------------------------------------------------------------------------------
# What the sender of mail would be handed.
sub mailed
{
	my ($kind) = @_;
	my $token = $node->safe_psql('postgres', "SELECT token FROM plinth.outbox_claim('test', 1000) WHERE kind = '$kind'");
	push @secrets, $token if length $token > 6;
	return $token;
}
is(short(post($_, { email => 'nobody@test.test' })), '200 ok', "$_ for an unknown address") foreach qw(password_reset_request magic_link_request email_code_request email_verify_request);
is($node->safe_psql('postgres', "SELECT count(*) FROM plinth.outbox_claim('test', 1000)"), '0', 'mails nothing');
is(short(post('password_reset_request', { email => 'ann@test.test' })), '200 ok', 'and answers alike for a known one');
my $reset = mailed('password_reset');
is(post('password_reset', { token => $reset, new_password => 'x' })->{status}, 400, 'a short password');
is(short(post('password_reset', { token => $reset, new_password => "$password 2" })), '200 ok', 'a reset');
is(short(post('password_reset', { token => $reset, new_password => "$password 3" })), '401 invalid_token', 'only once');
$in{password} = "$password 2";
my $signed_in = post('sign_in', \%in);
%by_token = ('X-Plinth-Session' => $signed_in->{json}{token});
is(short(post('password_change', { current_password => 'wrong', new_password => "$password 4" }, \%by_token)), '401 invalid_credentials', 'a change by a wrong password');
is(short(post('password_change', { current_password => "$password 2", new_password => $password }, \%by_token)), '200 ok', 'a change');
$in{password} = $password;
is(short(post('magic_link_request', { email => 'ann@test.test' })), '200 ok', 'a magic link');
$answer = post('magic_link_sign_in', { link_token => mailed('magic_link'), transport => 'cookie' }, {@page});
is(short($answer), '200 ok', 'signs in');
like($answer->{headers}{'set-cookie'}, qr/^__Host-plinth_session=pls_/, 'by a cookie');
is(short(post('email_code_sign_in', { email => 'ann@test.test', code => '000000' })), '401 invalid_credentials', 'no such code');

# ---- API keys --------------------------------------------------------------------------------------
$answer = post('api_key_create', { name => 'ci', scopes => ['reports:read'] }, \%by_token);
my ($key, $key_id) = @{ $answer->{json} }{ 'key', 'id' };
push @secrets, $key;
my %by_key = ('X-API-Key' => $key);
$answer = get('me', \%by_key);
is("$answer->{status} $answer->{json}{username} " . ($answer->{json}{session_id} // 'none'), '200 ann none', 'me by an API key');
is(get('me', { 'X-API-Key' => $_ })->{status}, 401, 'none is ' . substr($_, 0, 4)) foreach 'x', "${key}x", $by_token{'X-Plinth-Session'};
is(short(get('me', { %by_key, %by_token })), '400 request has two different credentials', 'beside a session');
is(post('api_key_create', { name => 'more' }, \%by_key)->{status}, 403, 'it makes no other');
is(short(get('my_sessions', \%by_key)), '403 not with an API key', 'and sees no sessions');
is(short(get('my_identities', \%by_key)), '403 not with an API key', 'nor linked identities');
$node->safe_psql('postgres', "UPDATE plinth.sessions SET authenticated_at = now() - interval '1 day' WHERE user_id = '$ann'");
is(short(post('api_key_create', { name => 'more' }, \%by_token)), '403 recent sign-in required', 'nor does one who signed in long ago');
is(get('api_keys_list', \%by_token)->{json}[0]{name}, 'ci', 'in the list');
is(post('api_key_revoke', { key_id => $key_id }, \%ben)->{status}, 200, 'an administrator ends it');
is(post('api_key_revoke', { key_id => $key_id }, \%by_token)->{status}, 404, 'only once');
is(get('me', \%by_key)->{status}, 401, 'and it is over');

# ---- verification -------------------------------------------------------------------------------------
my $request = post('verification_request', { kind => 'company', documents => [ { url => 's3://x' } ] }, \%by_token)->{json};
is(post('verification_request', { kind => 'company' }, \%by_token)->{status}, 409, 'another request while one is pending');
is(get('verifications_search', \%ben)->{json}[0]{id}, $request, 'an administrator finds it');
is(post('verification_approve', { request_id => $request, reason => 'good' }, \%ben)->{content}, 'true', 'approves');
is(get('verifications_list', \%by_token)->{json}[0]{request_status}, 'approved', 'and the user sees it');

# ---- too many tries -----------------------------------------------------------------------------
for my $try (1 .. 50)
{
	$answer = post('sign_in', { identifier => 'carl', password => "wrong $try" }, { 'X-Forwarded-For' => '198.51.100.7' });
	last if $answer->{status} != 401;
}
is($answer->{status}, 429, 'guessing ends');
like($answer->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'with Retry-After');
is(short(post('sign_in', \%in, { 'X-Forwarded-For' => '203.0.113.4' })), '200 ok', 'and not for others');

# ---- OpenAPI, and for whom it shows what ---------------------------------------------------------
my $paths = get('')->{json}{paths};
is(join(' ', grep { $_ ne '/' } sort keys %$paths), join(' ', map { "/rpc/$_" } qw(email_change_confirm email_code_request email_code_sign_in email_verify
	email_verify_request jwks magic_link_request magic_link_sign_in password_reset password_reset_request refresh_session sign_in sign_up)), 'what anybody can call');
is($paths->{'/rpc/sign_in'}{post}{summary}, 'Signs in with e-mail address or username, and password.', 'the summary');
like($paths->{'/rpc/sign_in'}{post}{description}, qr/^transport: how the session comes\./, 'the description');
$paths = get('', \%ben)->{json}{paths};
ok(!!$paths->{'/rpc/me'}, 'more for who is signed in');
is_deeply([ grep { $_ ne '/' && !$paths->{$_}{post}{summary} } sort keys %$paths ], [], 'each has a summary');
is(get('jwks')->{json}{keys}[0]{alg}, 'ES256', 'the public keys');
$rest->stop;

# ---- no secret in the log --------------------------------------------------------------------------
my $log = slurp_file($node->logfile);
like($log, qr/duration: \d/, 'statements were logged');
unlike($log, qr/\Q$_\E/, 'without ' . substr($_, 0, 8)) foreach @secrets;

$node->stop('fast');
done_testing();
