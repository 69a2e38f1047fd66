# Sixteen who guess at the same time get as many tries as one, whether they commit
# or not; others are not kept out; and a restart forgets nothing.
use strict;
use warnings;

use IPC::Run;
use PlinthTest qw(wait_until);
use Test::More;

my $node = PlinthTest::node('main', root_key => 1, conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
plinth.trusted_proxies = 'local'
plinth.trusted_authenticators = 'postgres'
max_connections = 60
CONF

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub from { my ($address, $sql) = @_; return sql(qq(SET request.headers = '{"x-forwarded-for": "$address"}'; $sql)); }
sub sign_in { my ($address, $name, $password) = @_; return from($address, "SELECT status FROM plinth.sign_in('$name', '$password')"); }

# Each guesses five times as soon as all are ready; every second one rolls back.
sub guess
{
	my ($address, $call) = @_;
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(115)');
	my (@out, @runs);
	foreach my $n (0 .. 15)
	{
		my ($begin, $end) = $n % 2 ? ('BEGIN;', 'ROLLBACK;') : ('', '');
		my $sql = qq(SET request.headers = '{"x-forwarded-for": "$address"}'; SELECT FROM pg_advisory_lock_shared(115););
		$sql .= "$begin SELECT ($call).status; $end" =~ s/GUESS/g$n-$_/r for 1 .. 5;
		push @runs, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), map { ('-c', $_) } split /(?<=;) */, $sql ],
			'<', '/dev/null', '>', \$out[$n], '2>&1');
	}
	ok(wait_until(sub { sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 115 AND NOT granted") == 16 }), 'sixteen wait');
	$gate->query_safe('SELECT pg_advisory_unlock(115)');
	$gate->quit;
	$_->finish foreach @runs;
	my %count;
	$count{$_}++ foreach map { split /\n/ } @out;
	delete $count{''};
	return join ' ', map { "$_=$count{$_}" } sort keys %count;
}

my $user = sql("SELECT user_id FROM plinth.sign_up('ann\@test.test', 'correct horse', 'ann')");
# However long this takes, no try comes back.
sql("SELECT plinth.rate_limit_alter('plinth.lockout_1', period => '1 day')");

is(guess('192.0.2.1', "plinth.sign_in('ann\@test.test', 'GUESS')"), 'invalid_credentials=5 locked=75', 'five tries of eighty at an account');
is(guess('192.0.2.50', "plinth.sign_in('nobody\@test.test', 'GUESS')"), 'invalid_credentials=5 locked=75', 'and at one that does not exist');
is(guess('2001:db8::1', "plinth.sign_in('ann\@test.test', 'GUESS')"), 'invalid_credentials=5 locked=75', 'from another network');
is(sign_in('2001:db8::ffff', 'ann@test.test', 'correct horse'), 'locked', 'which is a /64');
is(sign_in('192.0.2.1', 'ANN@test.test', 'correct horse'), 'locked', 'the right password neither');
is(sign_in('192.0.2.2', 'ann@test.test', 'correct horse'), 'ok', 'the owner elsewhere is not kept out');
is(sign_in('192.0.2.1', 'ben@test.test', 'guess'), 'invalid_credentials', 'nor are other accounts');
is(from('192.0.2.1', "SELECT status, retry_after BETWEEN '20 hours' AND '1 day' FROM plinth.sign_in('ann\@test.test', 'x')"), 'locked|t', 'and it is told how long');

# Codes: five for one, by whomever.
sql("SELECT plinth.rate_limit_alter('plinth.lockout_1', enabled => false), plinth.rate_limit_alter('plinth.lockout_2', enabled => false)");
sql("SELECT plinth.rate_limit_alter('plinth.lockout_3', enabled => false)");
# A first proof of the address would end the password.
sql("UPDATE plinth.users SET email_verified_at = now() WHERE email = 'ann\@test.test'");
sql("SELECT status FROM plinth.email_code_request('ann\@test.test')");
my $code = sql("SELECT token FROM plinth.outbox_claim('test')");
my $wrong = $code eq '111111' ? '222222' : '111111';
is(guess('192.0.2.3', "plinth.email_code_sign_in('ann\@test.test', '$wrong')"), 'invalid_credentials=80', 'wrong codes');
is(from('192.0.2.4', "SELECT status FROM plinth.email_code_sign_in('ann\@test.test', '$code')"), 'invalid_credentials', 'use the right one up');
sql("SELECT status FROM plinth.email_code_request('ann\@test.test')");
$code = sql("SELECT token FROM plinth.outbox_claim('test')");
is(guess('192.0.2.5', "plinth.email_code_sign_in('ann\@test.test', '$code')") =~ s/=.*//r, 'invalid_credentials', 'the right one brought by many');
is(sql("SELECT count(*) <= 1 FROM plinth.audit_entries WHERE action = 'plinth.email_code_sign_in' AND result = 'success'"), 't', 'lets in one at most');

# A restart, and a crash after what was counted is saved.
sql("SELECT plinth.rate_limit_drop('plinth.lockout_$_')") foreach 1 .. 3;
sql("SELECT plinth.rate_limit_alter('plinth.lockout_1', period => '2 days')");
sign_in('192.0.2.9', 'ann@test.test', 'guess') foreach 1 .. 5;
is(sign_in('192.0.2.9', 'ann@test.test', 'correct horse'), 'locked', 'locked');
$node->restart;
is(sign_in('192.0.2.9', 'ann@test.test', 'correct horse'), 'locked', 'after a restart too');

# By address, whichever account.
sql("SELECT plinth.rate_limit_alter('plinth.sign_in_address', 1, '1 day', 3), plinth.rate_limit_alter('plinth.sign_up_address', 1, '1 day', 2)");
is(join(' ', map { sign_in('192.0.2.20', "user$_\@test.test", 'guess') } 1 .. 4), 'invalid_credentials invalid_credentials invalid_credentials rate_limited', 'sign-ins of one address');
is(sign_in('192.0.2.20', 'ann@test.test', 'correct horse'), 'rate_limited', 'the right password neither');
is(sign_in('192.0.2.21', 'ann@test.test', 'correct horse'), 'ok', 'another address is another');
is(join(' ', map { from('192.0.2.20', "SELECT status FROM plinth.sign_up('u$_\@test.test', 'correct horse')") } 1 .. 3), 'ok ok rate_limited', 'sign-ups of one address');
is(from('192.0.2.20', "SELECT user_id IS NULL, retry_after > '20 hours' FROM plinth.sign_up('u9\@test.test', 'correct horse')"), 't|t', 'and it is told how long');
# A header that is missing or none of ours is no way around.
is(sql("SELECT string_agg(status, ' ') FROM (SELECT (plinth.sign_in('cat\@test.test', 'x' || n)).status FROM generate_series(1, 6) n) s"),
	'invalid_credentials invalid_credentials invalid_credentials invalid_credentials invalid_credentials locked', 'without a header');
is(from('nonsense', "SELECT status FROM plinth.sign_in('cat\@test.test', 'x')"), 'locked', 'with one that is no address');

$node->stop;
done_testing();
