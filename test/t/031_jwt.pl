# Access tokens: what others make of ours and we of theirs, with all four
# algorithms, and every attack of RFC 8725 and of the lists that follow it.
use strict;
use warnings;

use JoseTest;
use JSON::PP;
use MIME::Base64 qw(encode_base64url decode_base64url);
use PlinthTest qw(psql_ok psql_fails_like);
use PostgreSQL::Test::Utils;
use Test::More;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $node = PlinthTest::node('main', root_key => 1, conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
plinth.jwt_issuer = 'https://db.test/'
plinth.jwt_audience = 'app'
plinth.jwt_leeway = '5 min'
CONF
my $directory = $node->basedir . '/signing';
mkdir $directory;
my $python = JoseTest::python($directory);
my $js = JoseTest::node();
my $jwks = $python->ask('jwks');
my $secret = $python->ask('secret');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Makes a key sign, whatever did before.
sub sign_with
{
	my ($alg, $file) = @_;
	my $kid = sql("SELECT plinth.signing_key_create('$alg'" . ($file ? ", '$file'" : '') . ')');
	sql('SELECT plinth.signing_key_rotate()') if sql("SELECT status FROM plinth.signing_keys WHERE kid = '$kid'") eq 'next';
	return $kid;
}

# ---- files ----------------------------------------------------------------------
psql_fails_like($node, 'postgres', "SELECT plinth.signing_key_create('ES256', 'es_own.pem')", qr/no directory of signing keys/, 'no directory');
$node->append_conf('postgresql.conf', "plinth.signing_key_directory = '$directory'");
$node->reload;
foreach my $bad (
	[ 'ES256', 'absent.pem', qr/could not open signing key file/ ],
	[ 'ES256', '../root.key', qr/is not the name of a file/ ],
	[ 'ES256', '/etc/passwd', qr/is not the name of a file/ ],
	[ 'ES256', '.hidden', qr/is not the name of a file/ ],
	[ 'RS256', 'es.pem', qr/holds no key for RS256/ ],
	[ 'ES256', 'rs.pem', qr/holds no key for ES256/ ],
	[ 'ES256', 'p384.pem', qr/holds no key for ES256/ ],
	[ 'EdDSA', 'es.pem', qr/holds no key for EdDSA/ ],
	[ 'RS256', 'weak.pem', qr/holds no key for RS256/ ],
	[ 'ES256', 'hs.key', qr/holds no key for ES256/ ],
	[ 'ES256', 'locked.pem', qr/holds no key for ES256/ ],
	[ 'HS256', 'short.key', qr/at least 32 bytes/ ])
{
	psql_fails_like($node, 'postgres', "SELECT plinth.signing_key_create('$bad->[0]', '$bad->[1]')", $bad->[2], "$bad->[1] for $bad->[0]");
}
chmod 0644, "$directory/rs.pem";
psql_fails_like($node, 'postgres', "SELECT plinth.signing_key_create('RS256', 'rs.pem')", qr/can be read by others/, 'a file that others can read');
chmod 0600, "$directory/rs.pem";

# ---- real peers -------------------------------------------------------------------
sql("SELECT plinth.sign_up('ann\@jwt.test', 'correct horse'), plinth.sign_up('bob\@jwt.test', 'correct horse')");
my ($ann, $sid, $session) = split /\|/, sql("SELECT user_id, session_id, token FROM plinth.sign_in('ann\@jwt.test', 'correct horse')");
my ($bob, $bob_sid) = split /\|/, sql("SELECT user_id, session_id FROM plinth.sign_in('bob\@jwt.test', 'correct horse')");
my %file = (HS256 => 'hs.key', EdDSA => 'ed_own.pem', ES256 => 'es_own.pem', RS256 => 'rs_own.pem');
my %key  = (HS256 => 'hs', EdDSA => 'ed_own', ES256 => 'es_own', RS256 => 'rs_own');
my %kid;

sub claims
{
	my (%other) = @_;
	my $now = time();
	return {
		iss => 'https://db.test/', aud => 'app', sub => $ann, sid => $sid, role => 'authenticated', roles => ['user'],
		aal => 1, iat => $now, nbf => $now, exp => $now + 3600, jti => 'by hand', %other };
}

# Tokens, tried in one go: "ok", or the error.
sql(<<'SQL');
CREATE FUNCTION public.attempt(token text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM plinth.jwt_verify(token);
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$
SQL
sub attempt
{
	my @tokens = @_;
	my $array = join ', ', map { PlinthTest::quote_literal($_) } @tokens;
	return split /\n/, sql("SELECT public.attempt(t) FROM unnest(ARRAY[$array]) WITH ORDINALITY u (t, n) ORDER BY n");
}
my $refused = 'PT401 token is not valid';

foreach my $alg (sort keys %file)
{
	$kid{$alg} = sign_with($alg, $file{$alg});
	foreach my $where ('a file', 'the database')
	{
		sign_with($alg) if $where eq 'the database' && $alg ne 'HS256';
		my $token = sql("SELECT plinth.jwt_issue('$session')");
		my $header = $json->decode(decode_base64url((split /\./, $token)[0]));
		my $public = $json->decode(sql('SELECT plinth.jwks()'));
		my ($jwk) = grep { $_->{kid} eq $header->{kid} } @{ $public->{keys} };
		my @with = $alg eq 'HS256' ? (secret => $secret) : (jwk => $jwk);

		is($header->{alg}, $alg, "$alg: the header says so");
		my $theirs = $python->ask('decode', token => $token, alg => $alg, audience => 'app', issuer => 'https://db.test/', @with);
		is($theirs->{sub}, $ann, "$alg in $where: PyJWT verifies ours") or diag($json->encode($theirs));
		is($theirs->{sid}, $sid, "$alg in $where: and finds the session");
		$theirs = $js->ask('verify', token => $token, issuer => 'https://db.test/', audience => 'app', typ => 'at+jwt',
			$alg eq 'HS256' ? (secret => $secret) : (jwks => $public));
		is($theirs->{sub}, $ann, "$alg in $where: jose verifies ours") or diag($json->encode($theirs));
		is_deeply($theirs->{roles}, ['user'], "$alg in $where: and finds the roles");
		ok(!defined $jwk, 'a secret is not shown') if $alg eq 'HS256';
		is($js->ask('thumbprint', jwk => $jwk), $jwk->{kid}, "$alg in $where: jose has the same thumbprint") if $alg ne 'HS256';
	}
	my $headers = { kid => $kid{$alg}, typ => 'at+jwt' };
	my $by_python = $python->ask('encode', key => $key{$alg}, alg => $alg, claims => claims(), headers => $headers);
	my $by_js = $js->ask('sign', alg => $alg, header => { %$headers, alg => $alg }, claims => claims(),
		$alg eq 'HS256' ? (secret => $secret) : (pem => slurp_file("$directory/$key{$alg}.pem")));
	is(join(', ', attempt($by_python, $by_js)), 'ok, ok', "$alg: what PyJWT and jose sign is verified");
}

# ---- another issuer, as Clerk is -----------------------------------------------------
my $issuer = 'https://issuer.test';
my $set = $json->encode({ keys => [ (map { { %{ $jwks->{$_} }, kid => $_ } } qw(rs es ed)),
	{ kty => 'RSA', kid => 'enc', use => 'enc', n => $jwks->{rs_own}{n}, e => 'AQAB' },
	{ kty => 'RSA', kid => 'pss', alg => 'PS256', n => $jwks->{rs}{n}, e => 'AQAB' },
	{ kty => 'EC', kid => 'p384', crv => 'P-384', x => 'AA', y => 'AA' } ] });
is(sql("SELECT plinth.jwt_issuer_set('$issuer', '$set', authorized_parties => '{https://app.test}')"), 3, 'three of six keys can verify');

sub foreign
{
	my (%other) = @_;
	return { iss => $issuer, sub => 'user_2abc', azp => 'https://app.test', exp => time() + 3600, %other };
}
my %foreign_alg = (rs => 'RS256', es => 'ES256', ed => 'EdDSA');
foreach my $key (sort keys %foreign_alg)
{
	my $token = $python->ask('encode', key => $key, alg => $foreign_alg{$key}, claims => foreign(), headers => { kid => $key });
	is(sql("SELECT plinth.jwt_verify('$token') ->> 'azp', plinth.jwt_user_key('$token')"), 'https://app.test|user_2abc', "another issuer's $foreign_alg{$key}");
	psql_fails_like($node, 'postgres', "SELECT plinth.context_begin('$token')", qr/user is not known here/, 'which begins no context of somebody unknown');
}

# ---- attacks ------------------------------------------------------------------------
# A token of our own issuer, whose private keys the attacker has here, so that
# what is refused is refused for what it says.
sub forge
{
	my ($header, $claims, $key, $alg) = @_;
	my $input = JoseTest::parts($header, $claims);
	return "$input." . $python->ask('sign', key => $key, alg => $alg, input => $input);
}
sub own
{
	my (%other) = @_;
	my %change = (header => {}, claims => {}, %other);
	my %header = (alg => 'ES256', kid => $kid{ES256}, typ => 'at+jwt', %{ $change{header} });
	my $claims = ref $change{claims} ? claims(%{ $change{claims} }) : $change{claims};
	foreach my $hash (\%header, ref $claims ? $claims : {})
	{
		delete $hash->{$_} foreach grep { !ref $hash->{$_} && defined $hash->{$_} && $hash->{$_} eq 'DELETE' } keys %$hash;
	}
	return forge($change{raw_header} || \%header, $claims, 'es_own', 'ES256');
}
sub theirs
{
	my ($header, $claims, $key, $alg) = @_;
	return forge({ alg => 'RS256', kid => 'rs', %$header }, foreign(%$claims), $key || 'rs', $alg || 'RS256');
}
# With the own claims as JSON text, changed by hand.
sub raw_claims { my ($change) = @_; my $text = $json->encode(claims()); local $_ = $text; $change->(); return own(claims => $_); }
sub raw_header
{
	my ($change) = @_;
	local $_ = $json->encode({ alg => 'ES256', kid => $kid{ES256}, typ => 'at+jwt' });
	$change->();
	return own(raw_header => $_);
}

my $good = own();
my ($h, $p, $s) = split /\./, $good;
my ($rs_pem, $rs_der) = @{ $python->ask('public', key => 'rs_own') };
my $rs_input = JoseTest::parts({ alg => 'HS256', kid => $kid{RS256}, typ => 'at+jwt' }, claims());
my $none = JoseTest::parts({ alg => 'none', kid => $kid{ES256}, typ => 'at+jwt' }, claims());
my $es_sig = decode_base64url($s);
my $order = pack 'H*', 'ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551';
my $zero = "\0" x 32;
sub with_signature { return "$h.$p." . encode_base64url($_[0]); }
my $ed_input = JoseTest::parts({ alg => 'EdDSA', kid => $kid{EdDSA}, typ => 'at+jwt' }, claims());
my $ed_sig = decode_base64url($python->ask('sign', key => 'ed_own', alg => 'EdDSA', input => $ed_input));

# S + L, which is the same to a verifier that does not look (RFC 8032 section 5.1.7).
sub add_order
{
	my @order = map { hex } reverse unpack '(A2)*', '1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed';
	my @s = unpack 'C*', substr($_[0], 32);
	my $carry = 0;
	foreach my $i (0 .. 31)
	{
		my $sum = $s[$i] + $order[$i] + $carry;
		$s[$i] = $sum & 255;
		$carry = $sum >> 8;
	}
	return substr($_[0], 0, 32) . pack 'C*', @s;
}
my $now = time();
my $deep = sub { my ($n) = @_; return ('[' x $n) . (']' x $n); };

my @good = (
	[ 'the token that the attacks change', $good ],
	[ 'typ in capitals', own(header => { typ => 'AT+JWT' }) ],
	[ 'typ as a media type', own(header => { typ => 'application/at+jwt' }) ],
	[ 'an unknown header member', own(header => { foo => { bar => 1 } }) ],
	[ 'a certificate thumbprint', own(header => { 'x5t#S256' => 'AAAA' }) ],
	[ 'aud is an array', own(claims => { aud => [ 'other', 'app' ] }) ],
	[ 'a claim of ours nobody knows', own(claims => { 'http://x' => [ { a => [1] } ] }) ],
	[ 'exp with a fraction', raw_claims(sub { s/"exp":(\d+)/"exp":$1.5/ }) ],
	[ 'exp with an exponent', raw_claims(sub { s/"exp":\d+/"exp":2.5e11/ }) ],
	[ 'expired within the leeway', own(claims => { exp => $now - 5 }) ],
	[ 'nbf and iat within the leeway', own(claims => { nbf => $now + 10, iat => $now + 10 }) ],
	[ 'white space in the JSON', raw_claims(sub { s/^/ \r\n\t/; s/$/ \n/ }) ],
	[ 'escapes in the JSON', raw_claims(sub { s/"sub"/"\\u0073ub"/ }) ],
	[ 'letters beyond ASCII', own(claims => { name => "\x{e4}\x{1F600}" }) ],
	[ 'eight levels', own(claims => "{\"x\":" . $deep->(7) . ',' . substr($json->encode(claims()), 1)) ],
	[ 'a hundred members', own(claims => { map { ("x$_" => 1) } 1 .. 89 }) ],
	[ 'a number of forty digits', raw_claims(sub { s/\}$/',"x":' . '1' x 40 . '}'/e }) ],
	[ 'theirs', theirs({}, {}) ],
	[ 'theirs, JWT', theirs({ typ => 'JWT' }, {}) ],
	[ 'theirs, with other members', theirs({ cat => 'cl_B7d4PD111AAA', x5t => 'x' }, {}) ],
);

my @bad = (
	# RFC 8725 section 2.1, 3.1: the algorithm
	[ 'alg none, unsigned', "$none." ],
	[ 'alg none, signed', $none . '.' . $python->ask('sign', key => 'es_own', alg => 'ES256', input => $none) ],
	(map { [ "alg $_", own(header => { alg => $_ }) ] } qw(None NONE nOnE HS256 RS256 EdDSA ES384 ES256K es256), '', ' ES256'),
	[ 'no alg', own(header => { alg => 'DELETE' }) ],
	[ 'alg is null', own(header => { alg => undef }) ],
	[ 'alg is a number', own(header => { alg => 256 }) ],
	[ 'alg is an array', own(header => { alg => ['ES256'] }) ],
	[ 'HS256 with the RSA key in PEM', "$rs_input." . $python->ask('hmac', secret => $rs_pem, input => $rs_input) ],
	[ 'HS256 with the RSA key in DER', "$rs_input." . $python->ask('hmac', secret => $rs_der, input => $rs_input) ],
	[ 'HS256 with the modulus', "$rs_input." . $python->ask('hmac', secret => $jwks->{rs_own}{n}, input => $rs_input) ],
	[ 'HS256 with the kid', "$rs_input." . $python->ask('hmac', secret => encode_base64url($kid{RS256}), input => $rs_input) ],
	[ 'HS256 with nothing', "$rs_input." . $python->ask('hmac', secret => '', input => $rs_input) ],
	[ 'HS256 by the right secret, the kid of another key',
		forge({ alg => 'HS256', kid => $kid{ES256}, typ => 'at+jwt' }, claims(), 'hs', 'HS256') ],
	[ 'RS256 with alg PS256', forge({ alg => 'PS256', kid => $kid{RS256}, typ => 'at+jwt' }, claims(), 'rs_own', 'RS256') ],
	[ 'PS256 by an RS256 key', forge({ alg => 'PS256', kid => $kid{RS256}, typ => 'at+jwt' }, claims(), 'rs_own', 'PS256') ],
	[ 'PS256 that says RS256', forge({ alg => 'RS256', kid => $kid{RS256}, typ => 'at+jwt' }, claims(), 'rs_own', 'PS256') ],
	[ 'RS512 by an RS256 key', forge({ alg => 'RS512', kid => $kid{RS256}, typ => 'at+jwt' }, claims(), 'rs_own', 'RS512') ],
	[ 'RS512 that says RS256', forge({ alg => 'RS256', kid => $kid{RS256}, typ => 'at+jwt' }, claims(), 'rs_own', 'RS512') ],
	# 3.3, 2.6: tokens in tokens
	[ 'cty JWT', own(header => { cty => 'JWT' }) ],
	[ 'a token as the payload', own(claims => $good) ],
	[ 'a token as a string', own(claims => $json->encode($good)) ],
	[ 'encrypted, in five parts', "$good.AA.AA" ],
	[ 'a JWE header', own(header => { enc => 'A256GCM' }) ],
	# 2.3, 3.4: signatures
	[ 'a signature of zeros', with_signature($zero x 2) ],
	[ 'r is zero', with_signature($zero . substr($es_sig, 32)) ],
	[ 's is zero', with_signature(substr($es_sig, 0, 32) . $zero) ],
	[ 'r and s are the order', with_signature($order x 2) ],
	[ 's is the order', with_signature(substr($es_sig, 0, 32) . $order) ],
	[ 'ES256 in DER', "$h.$p." . $python->ask('sign', key => 'es_own', alg => 'DER', input => "$h.$p") ],
	[ 'a byte more', with_signature("$es_sig\0") ],
	[ 'a byte less', with_signature(substr($es_sig, 0, 63)) ],
	[ 'half', with_signature(substr($es_sig, 0, 32)) ],
	[ 'no signature', "$h.$p." ],
	[ 'another token\'s signature', "$h.$p." . (split /\./, own(claims => { jti => 'other' }))[2] ],
	[ 'EdDSA with S + L', "$ed_input." . encode_base64url(add_order($ed_sig)) ],
	[ 'RS256 with a zero in front', do { my ($a, $b, $c) = split /\./, theirs({}, {}); "$a.$b." . encode_base64url("\0" . decode_base64url($c)) } ],
	[ 'an own kid, another\'s key', forge({ alg => 'ES256', kid => $kid{ES256}, typ => 'at+jwt' }, claims(), 'es', 'ES256') ],
	# 3.6, 2.4: what changes the meaning
	[ 'compressed', own(header => { zip => 'DEF' }) ],
	[ 'crit', own(header => { crit => ['exp'], exp => $now + 600 }) ],
	[ 'crit, empty', own(header => { crit => [] }) ],
	[ 'crit, not understood', own(header => { crit => ['http://x'], 'http://x' => 1 }) ],
	[ 'b64', own(header => { b64 => JSON::PP::false, crit => ['b64'] }) ],
	[ 'b64 without crit', own(header => { b64 => JSON::PP::false }) ],
	# 3.7: UTF-8
	[ 'Latin-1', own(claims => do { my $t = $json->encode(claims()); $t =~ s/by hand/by h\xe4nd/; $t }) ],
	[ 'overlong UTF-8', own(claims => do { my $t = $json->encode(claims()); $t =~ s/by hand/by \xc0\xaf/; $t }) ],
	[ 'a surrogate in UTF-8', own(claims => do { my $t = $json->encode(claims()); $t =~ s/by hand/\xed\xa0\x80/; $t }) ],
	[ 'half a surrogate pair, escaped', raw_claims(sub { s/by hand/\\ud800/ }) ],
	[ 'UTF-16', own(claims => join '', map { "\0$_" } split //, $json->encode(claims())) ],
	[ 'a byte order mark', own(claims => "\xef\xbb\xbf" . $json->encode(claims())) ],
	[ 'a zero byte', own(claims => $json->encode(claims()) . "\0") ],
	[ 'a zero byte inside', raw_claims(sub { s/by hand/by\0hand/ }) ],
	[ 'a zero, escaped', raw_claims(sub { s/by hand/by\\u0000hand/ }) ],
	# 3.8, 3.9: who, and for whom
	[ 'another issuer', own(claims => { iss => 'https://evil.test' }) ],
	[ 'an issuer without a slash', own(claims => { iss => 'https://db.test' }) ],
	[ 'no issuer', own(claims => { iss => 'DELETE' }) ],
	[ 'issuer is an array', own(claims => { iss => ['https://db.test/'] }) ],
	[ 'another issuer\'s iss by our key', own(claims => { iss => $issuer, aud => 'DELETE', azp => 'https://app.test' }) ],
	[ 'our iss by another issuer\'s key', forge({ alg => 'RS256', kid => 'rs', typ => 'at+jwt' }, claims(), 'rs', 'RS256') ],
	[ 'another audience', own(claims => { aud => 'ap' }) ],
	[ 'other audiences', own(claims => { aud => [ 'App', 'app ' ] }) ],
	[ 'no audience', own(claims => { aud => 'DELETE' }) ],
	[ 'no audience in an array', own(claims => { aud => [] }) ],
	[ 'audience is an object', own(claims => { aud => { app => 1 } }) ],
	[ 'a number among audiences', own(claims => { aud => [ 'app', 1 ] }) ],
	[ 'no sub', own(claims => { sub => 'DELETE' }) ],
	[ 'sub is another user', own(claims => { sub => $bob }) ],
	[ 'sub in another form', own(claims => { sub => "{$ann}" }) ],
	[ 'sub with something behind', own(claims => { sub => "${ann}0" }) ],
	[ 'sub in capitals', own(claims => { sub => uc $ann }) ],
	[ 'no sid', own(claims => { sid => 'DELETE' }) ],
	[ 'another user\'s sid', own(claims => { sid => $bob_sid }) ],
	[ 'a sid that is not there', own(claims => { sid => '01a1fd39-07d8-70e7-83af-8de60a9f6b88' }) ],
	[ 'sid is a token', own(claims => { sid => $session }) ],
	[ 'no jti', own(claims => { jti => 'DELETE' }) ],
	[ 'jti is a number', own(claims => { jti => 1 }) ],
	[ 'no aal', own(claims => { aal => 'DELETE' }) ],
	[ 'aal 4', own(claims => { aal => 4 }) ],
	[ 'aal is a string', own(claims => { aal => '1' }) ],
	# 3.10: what a token brings along
	[ 'jwk', own(header => { jwk => { %{ $jwks->{es} } } }) ],
	[ 'jwk and its key', forge({ alg => 'ES256', kid => $kid{ES256}, typ => 'at+jwt', jwk => $jwks->{es} }, claims(), 'es', 'ES256') ],
	[ 'jku', own(header => { jku => 'https://evil.test/jwks' }) ],
	[ 'x5u', own(header => { x5u => 'https://evil.test/cert' }) ],
	[ 'x5c', own(header => { x5c => ['MIIB'] }) ],
	[ 'an ephemeral key', own(header => { epk => $jwks->{es} }) ],
	[ 'a party to agree with', own(header => { apu => 'AA' }) ],
	[ 'another party', own(header => { apv => 'AA' }) ],
	[ 'no kid', own(header => { kid => 'DELETE' }) ],
	[ 'kid is null', own(header => { kid => undef }) ],
	[ 'kid is a number', own(header => { kid => 1 }) ],
	[ 'kid is an object', own(header => { kid => { '$ne' => '' } }) ],
	(map { [ "kid: $_", own(header => { kid => $_ }) ] } '', "' OR '1'='1", "x' UNION SELECT 'AA' -- ", '../../../../dev/null', '/dev/null',
		'rs', '%', "$kid{ES256} ", '$(id)', "\n", 'x' x 256, 'x' x 5000),
	[ 'kid with a zero', raw_header(sub { s/"kid":"/"kid":"\\u0000/ }) ],
	# 3.11, 3.12: of what type
	[ 'typ JWT', own(header => { typ => 'JWT' }) ],
	[ 'typ of an ID token', own(header => { typ => 'id_token+jwt' }) ],
	[ 'typ of a logout token', own(header => { typ => 'logout+jwt' }) ],
	[ 'no typ', own(header => { typ => 'DELETE' }) ],
	[ 'typ is a number', own(header => { typ => 1 }) ],
	[ 'theirs, a logout token', theirs({ typ => 'logout+jwt' }, {}) ],
	# times
	[ 'no exp', own(claims => { exp => 'DELETE' }) ],
	[ 'expired', own(claims => { exp => $now - 301 }) ],
	[ 'expired long ago', own(claims => { exp => 0 }) ],
	[ 'exp is a string', own(claims => { exp => '9999999999' }) ],
	[ 'exp is null', own(claims => { exp => undef }) ],
	[ 'exp is true', own(claims => { exp => JSON::PP::true }) ],
	[ 'exp is an array', own(claims => { exp => [ $now + 600 ] }) ],
	[ 'exp is negative', own(claims => { exp => -1 }) ],
	(map { my $n = $_; [ "exp is $n", raw_claims(sub { s/"exp":\d+/"exp":$n/ }) ] }
		qw(NaN Infinity -Infinity 1e400 1e308 1e20 99999999999999999999 253402300800 18446744073709551617 0x7fffffff 1e 1. .5 01 +1 1e99999999999), '9' x 41, '1' . ('0' x 5000)),
	[ 'another claim is 1e400', raw_claims(sub { s/\}$/,"x":1e400}/ }) ],
	[ 'another claim is -1e400', raw_claims(sub { s/\}$/,"x":[-1e400]}/ }) ],
	[ 'nbf is ahead', own(claims => { nbf => $now + 900 }) ],
	[ 'no nbf', own(claims => { nbf => 'DELETE' }) ],
	[ 'nbf is a string', own(claims => { nbf => '0' }) ],
	[ 'iat is ahead', own(claims => { iat => $now + 900 }) ],
	[ 'nbf is negative', own(claims => { nbf => -1 }) ],
	[ 'iat is negative', own(claims => { iat => -1 }) ],
	[ 'no iat', own(claims => { iat => 'DELETE' }) ],
	# JSON
	[ 'alg twice', raw_header(sub { s/\}$/,"alg":"ES256"}/ }) ],
	[ 'alg twice, none first', raw_header(sub { s/^\{/{"alg":"none",/ }) ],
	[ 'kid twice', raw_header(sub { s/^\{/{"kid":"x",/ }) ],
	[ 'sub twice', raw_claims(sub { s/\}$/,"sub":"$bob"}/ }) ],
	[ 'sub twice, the first another', raw_claims(sub { s/^\{/{"sub":"$bob",/ }) ],
	[ 'sub twice, once escaped', raw_claims(sub { s/\}$/,"\\u0073ub":"$bob"}/ }) ],
	[ 'exp twice', raw_claims(sub { s/\}$/,"exp":9999999999}/ }) ],
	[ 'a member twice, deep inside', raw_claims(sub { s/\}$/,"x":[{"y":{"a":1,"a":1}}]}/ }) ],
	[ 'nine levels', own(claims => "{\"x\":" . $deep->(8) . ',' . substr($json->encode(claims()), 1)) ],
	[ 'very deep', own(claims => "{\"x\":" . $deep->(2000) . ',' . substr($json->encode(claims()), 1)) ],
	[ 'very deep and open', own(claims => '{"x":' . '[' x 5000) ],
	[ 'objects, very deep', own(claims => '{"x":' x 1000) ],
	[ '101 members', own(claims => { map { ("x$_" => 1) } 1 .. 90 }) ],
	[ 'a number of 41 digits', raw_claims(sub { s/\}$/',"x":' . '1' x 41 . '}'/e }) ],
	[ 'two objects', own(claims => $json->encode(claims()) . '{}') ],
	[ 'something behind', own(claims => $json->encode(claims()) . 'x') ],
	[ 'something behind the header', raw_header(sub { s/$/,/ }) ],
	[ 'a comment', raw_claims(sub { s/^\{/{ \/* x *\/ / }) ],
	[ 'a comma too many', raw_claims(sub { s/\}$/,}/ }) ],
	[ 'single quotes', raw_claims(sub { tr/"/'/ }) ],
	[ 'claims are an array', own(claims => '[]') ],
	[ 'claims are null', own(claims => 'null') ],
	[ 'claims are a number', own(claims => '1') ],
	[ 'claims are nothing but a space', own(claims => ' ') ],
	[ 'the header is an array', own(raw_header => '["alg"]') ],
	[ 'the header is a string', own(raw_header => '"alg"') ],
	[ 'a control character', raw_claims(sub { s/by hand/by\thand/ }) ],
	# base64url, and the form as a whole
	[ 'padding', "$h=.$p.$s" ],
	[ 'padding of the signature', "$good==" ],
	[ 'base64 instead', do { my $t = with_signature($es_sig); my $c = $s; $c =~ tr{-_}{+/}; $c eq $s ? "$h.$p.$s+" : "$h.$p.$c" } ],
	[ 'a newline behind', "$good\n" ],
	[ 'a space in front', " $good" ],
	[ 'a newline inside', "$h.\n$p.$s" ],
	[ 'set bits behind the signature', do { my $t = $good; my @a = ('A' .. 'Z', 'a' .. 'z', 0 .. 9, '-', '_'); my %v; @v{@a} = 0 .. 63; my $l = chop $t; $t . $a[ $v{$l} | 1 ] } ],
	[ 'two parts', "$h.$p" ],
	[ 'four parts', "$good.x" ],
	[ 'a dot in front', ".$good" ],
	[ 'an empty header', ".$p.$s" ],
	[ 'an empty payload', "$h..$s" ],
	[ 'nothing', '' ],
	[ 'dots', '..' ],
	[ 'many dots', '.' x 8000 ],
	[ 'JSON serialization', $json->encode({ payload => $p, protected => $h, signature => $s }) ],
	[ 'Bearer in front', "Bearer $good" ],
	[ 'too long', own(claims => { x => 'y' x 8000 }) ],
	[ 'a megabyte', 'eyJh.' x 200000 ],
	[ 'a session token', $session ],
	# another issuer's
	[ 'theirs, another azp', theirs({}, { azp => 'https://evil.test' }) ],
	[ 'theirs, no azp', theirs({}, { azp => undef }) ],
	[ 'theirs, with an audience', theirs({}, { aud => 'app' }) ],
	[ 'theirs, expired', theirs({}, { exp => $now - 301 }) ],
	[ 'theirs, no exp', theirs({}, { exp => undef }) ],
	[ 'theirs, another kid', theirs({ kid => 'es' }, {}) ],
	[ 'theirs, alg of another of its keys', theirs({ alg => 'ES256' }, {}) ],
	[ 'theirs, by a key for encryption', theirs({ kid => 'enc' }, {}, 'rs_own') ],
	[ 'theirs, by a key for PS256', theirs({ kid => 'pss' }, {}) ],
	[ 'theirs, by a key for PS256, as that', theirs({ kid => 'pss', alg => 'PS256' }, {}, 'rs', 'PS256') ],
	[ 'theirs, by our key', theirs({ kid => $kid{RS256} }, {}, 'rs_own') ],
);
my @results = attempt(map { $_->[1] } @good);
is($results[$_], 'ok', "good: $good[$_][0]") foreach 0 .. $#good;
@results = attempt(map { $_->[1] } @bad);
is($results[$_], $refused, "refused: $bad[$_][0]") foreach 0 .. $#bad;

# Every character of a token, changed to another one.
my @changed;
foreach my $i (0 .. length($good) - 1)
{
	my $t = $good;
	substr($t, $i, 1) = substr($t, $i, 1) eq 'A' ? 'B' : 'A';
	push @changed, $t;
}
is(join(',', grep { $_ ne $refused } attempt(@changed)), '', 'no character can be changed');
is(join(',', grep { $_ ne $refused } attempt(map { substr($good, 0, $_) } 0 .. length($good) - 1)), '', 'none can be left out at the end');

# ---- what ends a token -----------------------------------------------------------------
my $token = sql("SELECT plinth.jwt_issue('$session')");
foreach my $end (
	[ 'revoked', "UPDATE plinth.sessions SET revoked_at = now(), revoked_reason = 'test' WHERE id = '$sid'" ],
	[ 'expired', "UPDATE plinth.sessions SET expires_at = now() - interval '1 s' WHERE id = '$sid'" ],
	[ 'idle', "UPDATE plinth.sessions SET last_active_at = now() - interval '8 d' WHERE id = '$sid'" ],
	[ 'removed', "DELETE FROM plinth.sessions WHERE id = '$sid'" ],
	[ 'the user is locked', "UPDATE plinth.users SET status = 'locked' WHERE id = '$ann'" ],
	[ 'the user is deleted', "UPDATE plinth.users SET deleted_at = now() WHERE id = '$ann'" ])
{
	my ($name, $change) = @$end;
	is(sql("BEGIN; $change; SELECT public.attempt('$token')"), $refused, "a session that is over ends its tokens: $name");
	psql_fails_like($node, 'postgres', "BEGIN; $change; SELECT plinth.context_begin('$token')", qr/ERROR:  token is not valid/, "no context: $name");
}
is((attempt($token))[0], 'ok', 'the token itself is good');

# Contexts: the role of now, the lower assurance level.
sub context
{
	my ($jwt, $before) = @_;
	return sql("BEGIN; $before; SELECT plinth.context_begin('$jwt') = '$ann'; SELECT plinth.current_session_id() = '$sid', plinth.current_aal(), plinth.has_role('boss'), current_user") =~ s/^t\n//r;
}
is(context($token, 'SELECT'), 't|1|f|authenticated', 'an access token begins a context');
is(context($token, "UPDATE plinth.users SET role = 'boss' WHERE id = '$ann'"), 't|1|t|authenticated', 'a role counts at once');
is(context($token, "UPDATE plinth.sessions SET aal = 2 WHERE id = '$sid'"), 't|1|f|authenticated', 'a step-up does not raise what was signed before');
is(context(own(claims => { aal => 3 }), 'SELECT'), 't|1|f|authenticated', 'nor does a token raise the session');
is(sql("BEGIN READ ONLY; SELECT plinth.context_begin('$token') = '$ann'; SELECT plinth.jwt_verify('$token') ->> 'sid' = '$sid'"), "t\nt", 'in READ ONLY too');
psql_fails_like($node, 'postgres', "BEGIN; SELECT plinth.context_begin('$token'); SELECT plinth.context_begin('"
	. own(claims => { sub => $bob, sid => $bob_sid }) . "')", qr/another request context/, 'one identity a transaction');

# Lifetime, and impersonation.
sub claim { my ($before, $what) = @_; return sql("$before; SELECT plinth.jwt_verify(plinth.jwt_issue('$session')) $what"); }
is(claim("SET plinth.jwt_lifetime = '2 min'", "->> 'exp'") - time() <= 120, 1, 'the lifetime is set');
is(claim("BEGIN; UPDATE plinth.sessions SET expires_at = now() + interval '1 min' WHERE id = '$sid'", "->> 'exp'") - time() <= 60, 1, 'no token outlives its session');
is(claim("BEGIN; SET client_min_messages = warning; DO \$\$BEGIN PERFORM plinth.user_permission_grant('$bob', 'plinth:admin'); END\$\$; "
	. "UPDATE plinth.sessions SET impersonator_id = '$bob', impersonation_reason = 'help' WHERE id = '$sid'", "#>> '{act,sub}'"), $bob, 'act names who impersonates');
is(sql("SET plinth.jwt_audience = 'other'; SELECT public.attempt('$token')"), $refused, 'for another audience');
is(sql("SET plinth.jwt_issuer = 'other'; SELECT public.attempt('$token')"), $refused, 'of another issuer');
psql_fails_like($node, 'postgres', "SET plinth.jwt_issuer = ''", qr/invalid value/, 'an issuer has a name');
psql_fails_like($node, 'postgres', "SET ROLE authenticated; SET plinth.jwt_issuer = 'x'", qr/permission denied/, 'which clients cannot set');

# ---- other issuers: what is taken ------------------------------------------------------------
sub set_of { return $json->encode({ keys => [@_] }); }
foreach my $bad (
	[ 'no object', '[]', qr/not a JWK set/ ],
	[ 'no keys', '{"keys": {}}', qr/not a JWK set/ ],
	[ 'no key', set_of(), qr/no key of the set/ ],
	[ 'a key that is none', '{"keys": [1]}', qr/not a JSON object/ ],
	[ 'no kid', set_of($jwks->{es}), qr/has no kid/ ],
	[ 'two of one kid', set_of({ %{ $jwks->{es} }, kid => 'x' }, { %{ $jwks->{ed} }, kid => 'x' }), qr/same kid/ ],
	[ 'a private key', set_of({ %{ $jwks->{es} }, kid => 'x', d => 'AA' }), qr/private key/ ],
	[ 'a secret', set_of({ kty => 'oct', kid => 'x', k => 'AAAA' }), qr/private key or a secret/ ],
	[ 'a weak key', set_of({ %{ $jwks->{weak} }, kid => 'x' }), qr/malformed or too weak/ ],
	[ 'a point off the curve', set_of({ %{ $jwks->{es} }, kid => 'x', y => $jwks->{es_own}{y} }), qr/malformed/ ],
	[ 'a point of small order', set_of({ kty => 'OKP', crv => 'Ed25519', kid => 'x', x => 'A' x 43 }), qr/malformed/ ],
	[ 'only others', set_of({ kty => 'EC', crv => 'P-521', kid => 'x', x => 'AA', y => 'AA' }), qr/no key of the set/ ])
{
	psql_fails_like($node, 'postgres', "SELECT plinth.jwt_issuer_set('https://x.test', '$bad->[1]')", $bad->[2], "a set: $bad->[0]");
}
psql_fails_like($node, 'postgres', "SELECT plinth.jwt_issuer_set('https://db.test/', '$set')", qr/this database itself/, 'not our own issuer');
my $for_aud = theirs({}, { aud => [ 'x', 'app' ], uid => 42 });
is((attempt($for_aud))[0], $refused, 'a token with an audience');
sql("SELECT plinth.jwt_issuer_set('$issuer', '$set', '{app, other}', user_key_claim => 'uid')");
is(join(',', attempt($for_aud, theirs({}, {}), theirs({}, { aud => 'y' }))), "ok,$refused,$refused", 'once audiences are named, one is asked for');
is(sql("SELECT plinth.jwt_user_key('$for_aud')"), '42', 'the claim that holds the key of the user');
psql_fails_like($node, 'postgres', "SELECT plinth.jwt_user_key('" . theirs({}, { aud => 'app' }) . "')", qr/token is not valid/, 'which must be there');
is(sql("UPDATE plinth.jwt_issuers SET jwks = jsonb_set(jwks, '{keys}', (jwks -> 'keys') || (jwks -> 'keys' -> 0)); SELECT public.attempt('$for_aud')"), $refused, 'a set with one kid twice');
sql("SELECT plinth.jwt_issuer_set('$issuer', '$set', '{app}')");
is(sql("SELECT plinth.jwt_issuer_remove('$issuer'), plinth.jwt_issuer_remove('$issuer'), public.attempt('$for_aud')"), "t|f|$refused", 'an issuer that is removed');

done_testing();
