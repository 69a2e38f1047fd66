# The root key, the bound on hashing, and what must stay out of the log.
use strict;
use warnings;

use PlinthTest qw(psql_ok psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $cheap = "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\n";
my $node = PlinthTest::node('main', root_key => 1, conf => <<"CONF");
$cheap
plinth.password_max_concurrent = 1
log_min_duration_statement = 0
log_statement = all
log_duration = on
debug_print_parse = on
debug_print_plan = on
session_preload_libraries = 'auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_verbose = on
log_error_verbosity = verbose
plinth.signing_key_directory = '$PostgreSQL::Test::Utils::tmp_check'
log_parameter_max_length_on_error = -1
CONF

sub log_since { return slurp_file($node->logfile, $_[0]); }
sub offset { return -s $node->logfile; }

# ---- the log, and pg_stat_activity ----------------------------------------------
my $start = offset();
my $hash = $node->safe_psql('postgres', "SELECT plinth.secret_hash('Secr3t')");
$node->safe_psql('postgres', "SELECT status FROM plinth.sign_up('a\@test.test', 'Secr3t password')");
my $token = $node->safe_psql('postgres', "SELECT token FROM plinth.sign_in('a\@test.test', 'Secr3t password')");
my ($secret_part) = $token =~ /^pls_(.*)$/;
append_to_file("$PostgreSQL::Test::Utils::tmp_check/hs.key", 'a Secr3t that signs, of some length');
chmod 0600, "$PostgreSQL::Test::Utils::tmp_check/hs.key";
$node->safe_psql('postgres', "SELECT plinth.signing_key_create('HS256', 'hs.key')");
$node->safe_psql('postgres', "SELECT status FROM plinth.$_('a\@test.test')") foreach qw(email_verify_request password_reset_request magic_link_request email_code_request);
$node->safe_psql('postgres', "BEGIN; SELECT plinth.context_begin('$token'); SELECT status FROM plinth.email_change_request('b\@test.test'); COMMIT");
my %mailed = map { split /\|/ } split /\n/, $node->safe_psql('postgres', "SELECT kind, token FROM plinth.outbox_claim('mailer')");
is(keys %mailed, 6, 'six messages');
my ($access, $refresh) = split /\|/, $node->safe_psql('postgres', "SELECT access_token, refresh_token FROM plinth.tokens_issue('$token')");
foreach my $sql (
	"SELECT plinth.jwt_issue('$token')",
	"SELECT plinth.jwt_verify('$access')",
	"SELECT plinth.jwt_verify('${access}x')",
	"SELECT plinth.jwt_user_key('$access'), 1 / 0",
	"BEGIN; SELECT plinth.context_begin('$access'); COMMIT",
	"SELECT * FROM plinth.session_refresh('$refresh')",
	"SELECT * FROM plinth.session_refresh('$refresh'), plinth.tokens_issue('$token')",
	"SELECT * FROM plinth.session_refresh('${refresh}x')",
	"PREPARE p AS SELECT plinth.session_refresh('$refresh'); EXECUTE p",
	"SET plinth.refresh_grace = 0; SELECT * FROM plinth.session_refresh('$refresh')",
	"SELECT plinth.password_check('Secr3t password')",
	"SELECT plinth.password_set(id, 'Secr3t password') FROM plinth.users",
	"SELECT plinth.password_set('00000000-0000-7000-8000-000000000000', 'Secr3t password')",
	"BEGIN; SELECT plinth.context_begin('$access'); SELECT plinth.password_change('Secr3t wrong', 'Secr3t password'), 1 / (random() * 0)::int; COMMIT",
	"SELECT plinth.password_change('Secr3t wrong', 'Secr3t password')",
	"SELECT plinth.password_reset('$mailed{password_reset}', 'Secr3t')",
	"SELECT plinth.password_reset('$mailed{password_reset}', 'Secr3t other'), 1 / (random() * 0)::int",
	"SELECT plinth.email_verify('$mailed{email_verify}'), 1 / (random() * 0)::int",
	"SELECT plinth.email_verify('$mailed{email_verify}x')",
	"SELECT plinth.email_change_confirm('$mailed{email_change_old}')",
	"SELECT plinth.email_change_confirm('$mailed{email_change_new}'), 1 / (random() * 0)::int",
	"SELECT plinth.magic_link_sign_in('$mailed{magic_link}', repeat('x', 1000))",
	"SELECT status FROM plinth.magic_link_sign_in('$mailed{magic_link}')",
	"SELECT plinth.email_code_sign_in('a\@test.test', '$mailed{email_code}', repeat('x', 1000))",
	"SELECT plinth.email_code_sign_in('b\@test.test', '$mailed{email_code}')",
	"SELECT count(token), 1 / (random() * 0)::int FROM plinth.outbox_claim('mailer')",
	"SELECT plinth.outbox_fail(id, 'no route'), plinth.outbox_ack(id) FROM plinth.outbox_messages",
	"SELECT plinth.secret_verify('Secr3t', '$hash')",
	"SELECT plinth.secret_verify('Secr3t', '\$argon2id\$v=19\$m=9999999,t=1,p=1\$')",
	"SELECT plinth.secret_verify('Secr3t', 'x'), 1 / 0",
	"SELECT plinth.sign_up('a\@test.test', 'Secr3t password')",
	"SELECT plinth.sign_up('', 'Secr3t password')",
	"SELECT plinth.sign_in('a\@test.test', 'Secr3t wrong')",
	"SELECT plinth.sign_in('b\@test.test', 'Secr3t unknown')",
	"SELECT * FROM plinth.session_verify('$token')",
	"SELECT set_config('request.headers', 'Secr3t', true)",
	"SELECT set_config('request.cookies', 'Secr3t', true), 1 / (random() * 0)::int",
	"BEGIN; SELECT plinth.context_begin('$token'); COMMIT",
	"SELECT plinth.context_begin('${token}x')",
	"PREPARE p AS SELECT plinth.secret_verify('Secr3t', 'x'); EXECUTE p",
	"PREPARE p AS SELECT plinth.secret_verify('Secr3t', 'x');\n\\g\nEXECUTE p",
	"BEGIN;\n\\g\nDECLARE c CURSOR FOR SELECT plinth.secret_verify('Secr3t', 'x');\n\\g\nFETCH c;\n\\g\nCOMMIT",
	"DO \$\$ BEGIN EXECUTE 'SELECT plinth.secret_verify(''Secr3t'', ''x''), 1 / (random() * 0)::int'; END \$\$")
{
	$node->psql('postgres', $sql);
}
$node->safe_psql('postgres', "SELECT 'a mark for the log'");
my $log = log_since($start);
like($log, qr/a mark for the log/, 'ordinary statements are logged');
like($log, qr/division by zero/, 'errors are logged');
like($log, qr/LOG: +00000: duration: [0-9.]+ ms$/m, 'durations are logged');
unlike($log, qr/Secr3t/, 'no secret in the log');
unlike($log, qr/\Q$secret_part\E/, 'no token in the log');
unlike($log, qr/plr_|plo_|eyJ/, 'no refresh token, no mailed one and no JWT');
unlike($log, qr/'$mailed{email_code}'/, 'no code');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'Secr3t|pl[sro]_[A-Za-z0-9]|eyJ' AND pid <> pg_backend_pid()"), '0', 'nor has pg_stat_activity');
# Every table and view, by who may read all of it.
my $tables = $node->safe_psql('postgres', "SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'plinth'::regnamespace AND c.relkind IN ('r', 'p', 'v')");
foreach my $secret ('Secr3t', $secret_part, substr($refresh, 4), map { substr($_, 4) } grep { /^plo_/ } values %mailed)
{
	my @found = grep { $node->safe_psql('postgres', "SELECT count(*) FROM $_ t WHERE t::text ~ '\Q$secret\E'") ne '0' } split /\n/, $tables;
	is("@found", '', 'in no table: ' . substr($secret, 0, 6));
}

# By the extended protocol: parameters.
foreach my $mode (qw(extended prepared))
{
	$start = offset();
	my $script = $node->basedir . "/$mode.sql";
	append_to_file($script, <<'SQL');
SELECT plinth.secret_verify((:secret)::text, 'x');
SELECT :other AS visible;
SELECT "plinth"."secret_verify"((:secret)::text, '$argon2id$v=19$m=9999999,t=1,p=1$');
SQL
	$node->command_checks_all([ 'pgbench', '-n', '-t', '1', '-M', $mode, '-D', 'secret=123456789', '-D', 'other=987654321', '-f', $script, 'postgres' ],
		2, [], [qr/costs m=9999999/], "$mode statements with parameters");
	$log = log_since($start);
	like($log, qr/parameters: \$1 = '987654321'/, "$mode: parameters of other statements are logged");
	unlike($log, qr/123456789/, "$mode: those of ours are not");
	unlike($log, qr/secret_verify/, "$mode: nor are the statements");
}

# What is executed is only compared with what was read before, where portals stand one after the other at one address.
foreach my $mode (qw(extended prepared))
{
	my $fails = '(1 / (random() * (:zero)::int)::int)::text';
	my %scripts = (
		hidden => "SELECT pg_catalog.textregexeq('987654321', (:zero)::text);\nSELECT plinth.secret_verify('123456789', $fails);\n",
		shown => "SELECT plinth.secret_verify((:zero)::text, (:zero)::text);\nSELECT pg_catalog.textregexeq('987654321', $fails);\n");
	local $ENV{PGOPTIONS} = '-c log_statement=none -c log_min_duration_statement=-1';

	foreach my $what (sort keys %scripts)
	{
		$start = offset();
		my $script = $node->basedir . "/known_${mode}_$what.sql";
		append_to_file($script, $scripts{$what});
		$node->command_checks_all([ 'pgbench', '-n', '-t', '1', '-M', $mode, '-D', 'zero=0', '-f', $script, 'postgres' ],
			2, [], [qr/division by zero/], "$mode: one statement after another, $what");
		$log = log_since($start);
		unlike($log, qr/123456789|secret_verify/, "$mode: ours is not logged");
		like($log, qr/STATEMENT: +SELECT pg_catalog.textregexeq\('987654321'/, "$mode: another is") if $what eq 'shown';
	}
}

my $session = $node->background_psql('postgres');
my $pid = $session->query('SELECT pg_backend_pid()');
$session->query("SELECT plinth.secret_verify('Secr3t', 'x')");
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $pid"), '<hidden by plinth>', 'pg_stat_activity does not show it');
$session->query('SELECT 42');
like($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $pid"), qr/^SELECT 42/, 'but the next statement');
$start = offset();
$session->query('SELECT 43');
like(log_since($start), qr/SELECT 43/, 'which is logged');
$session->quit;

# ---- the bound on concurrent hashes ----------------------------------------------
# One place, and a hash that takes as long as one may; it is held up in the middle.
my $slow = '$argon2id$v=19$m=262144,t=16,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3uR9/jaeci4uDtE0BmLj8upc8GqbW7Dibg0sN+5M';
my $holder = $node->background_psql('postgres', on_error_die => 0);
my $holder_pid = $holder->query('SELECT pg_backend_pid()');
my $waiter = $node->background_psql('postgres', on_error_die => 0, on_error_stop => 0);
my $waiter_pid = $waiter->query('SELECT pg_backend_pid()');
$holder->query_until(qr/started/, "\\echo started\nSELECT plinth.secret_verify('x', '$slow');\n");
ok(wait_until(sub { $node->safe_psql('postgres', "SELECT state = 'active' AND query = '<hidden by plinth>' FROM pg_stat_activity WHERE pid = $holder_pid") eq 't' }),
	'a slow hash runs');
kill 'STOP', $holder_pid or die "could not hold up $holder_pid: $!";
$waiter->query_until(qr/started/, "\\echo started\nSELECT plinth.secret_verify('x', '$hash');\n");
ok(wait_until(sub { $node->safe_psql('postgres', "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $waiter_pid") eq 'Extension' }),
	'another one waits');
is($node->safe_psql('postgres', "SELECT pg_cancel_backend($waiter_pid)"), 't', 'it is cancelled');
ok(wait_until(sub { $node->safe_psql('postgres', "SELECT state FROM pg_stat_activity WHERE pid = $waiter_pid") =~ /^idle/ }), 'and stops waiting');
is($node->safe_psql('postgres', "SELECT state FROM pg_stat_activity WHERE pid = $holder_pid"), 'active', 'while the first still runs');
kill 'CONT', $holder_pid or die "could not let go of $holder_pid: $!";
ok(wait_until(sub { $node->safe_psql('postgres', "SELECT state FROM pg_stat_activity WHERE pid = $holder_pid") eq 'idle' }, 600), 'which ends');
is($node->safe_psql('postgres', "SET statement_timeout = '120s'; SELECT plinth.secret_verify('Secr3t', '$hash')"), 't', 'the place is free again');
eval { $_->quit } foreach ($holder, $waiter);

# ---- the root key --------------------------------------------------------------------
my $key = $node->basedir . '/other.key';
sub write_key
{
	my ($content, $mode) = @_;
	unlink $key;
	append_to_file($key, $content);
	chmod $mode, $key;
	return;
}
sub start_fails_like
{
	my ($pattern, $name) = @_;
	my $offset = offset();
	$node->stop('fast');
	is($node->start(fail_ok => 1), 0, "$name: does not start");
	like(log_since($offset), $pattern, "$name: says why");
	return;
}
$node->append_conf('postgresql.conf', "plinth.root_key_file = '$key'");
start_fails_like(qr/could not open root key file.*HINT:.*openssl rand -hex 32/s, 'a file that does not exist');
write_key('x' x 31, 0600);
start_fails_like(qr/root key file .* is too short/, '31 bytes');
write_key('0123456789abcdef' x 2, 0600);
start_fails_like(qr/root key file .* is too short/, '128 bits in hexadecimal');
write_key('x' x 5000, 0600);
start_fails_like(qr/has more than 4096 bytes/, 'a file too large');
write_key('0123456789abcdef' x 4, 0640);
start_fails_like(qr/can be read by others/, 'a file that the group can read');
write_key('0123456789abcdef' x 4, 0604);
start_fails_like(qr/can be read by others/, 'a file that all can read');
unlink $key;
mkdir $key;
start_fails_like(qr/is not a regular file|could not open/, 'a directory');
rmdir $key;
write_key(('0123456789abcdef' x 4) . "\n", 0600);
is($node->start(fail_ok => 1), 1, 'a good file');
is($node->safe_psql('postgres', 'SHOW plinth.root_key_file'), $key, 'which a superuser sees named');
psql_fails_like($node, 'postgres', 'SET ROLE authenticated; SHOW plinth.root_key_file', qr/superuser|permission denied/, 'and others do not');
unlink $key;
$start = offset();
my $victim = $node->background_psql('postgres', on_error_die => 0);
my $victim_pid = $victim->query('SELECT pg_backend_pid()');
kill 'KILL', $victim_pid;
ok(wait_until(sub { log_since($start) =~ /database system is ready to accept connections/ }), 'a crash needs no file: the postmaster has the key');
eval { $victim->quit };

done_testing();
