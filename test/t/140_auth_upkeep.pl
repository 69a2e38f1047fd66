# What the auth rooms do over a stop: last uses are written, messages sealed
# under another root key wait; and what a request in one statement leaves in the log.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PlinthTest qw(node wait_until psql_fails_like);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = node('upkeep', root_key => 1,
	conf => "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\nplinth.session_flush_interval = '1h'\n");
sub sql { return $node->safe_psql('postgres', @_); }

# ---- a clean stop writes when sessions and API keys were last used ----------------
my $ann = sql("SELECT id FROM plinth.user_create('ann\@upkeep.test', 'ann', password => 'correct horse')");
my $token = sql("SELECT token FROM plinth.sign_in('ann', 'correct horse')");
my $key = sql("SELECT key FROM plinth.api_key_create('script', user_id => '$ann')");
my $unwritten = "SELECT count(*) FROM plinth.sessions WHERE last_active_at < now() - interval '1 hour'";
sub used
{
	sql("UPDATE plinth.sessions SET last_active_at = now() - interval '1 day'; UPDATE plinth.api_keys SET last_used_at = NULL");
	sql("SELECT count(user_id) FROM plinth.session_verify('$token')");
	sql("BEGIN READ ONLY; SELECT plinth.context_begin('$key'); COMMIT");
	is(sql($unwritten), '1', 'the use of a session is in memory only');
	return;
}
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_workers WHERE service = 'session' AND state = 'running'") eq '1' }), 'the service runs');
used();
$node->restart;
is(sql($unwritten), '0', 'a clean stop writes it');
is(sql('SELECT count(last_used_at) FROM plinth.api_keys'), '1', 'and that of an API key');
unlike(slurp_file($node->logfile), qr/could not look after sessions/, 'without a complaint');

# A table that somebody has locked holds the stop up no longer than a moment.
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_workers WHERE service = 'session' AND state = 'running'") eq '1' }), 'the service runs again');
used();
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE plinth.sessions IN ACCESS EXCLUSIVE MODE');
my $pid = sql("SELECT pid FROM plinth.stat_workers WHERE service = 'session'");
sql("SELECT pg_terminate_backend($pid)");
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") eq '0' }), 'the service ends though it cannot write');
$holder->query_safe('COMMIT');
$holder->quit;
is(sql($unwritten), '1', 'nothing is written');

# A stop in the middle of writing: what is being written is not lost.
sql(<<'SQL');
CREATE FUNCTION wait_for_lock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT pg_try_advisory_xact_lock(140) LOOP
        PERFORM pg_sleep(0.02);
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER wait_for_lock AFTER UPDATE ON plinth.sessions FOR EACH STATEMENT EXECUTE FUNCTION wait_for_lock();
SQL
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_workers WHERE service = 'session' AND state = 'running'") eq '1' }), 'the service runs once more');
sql('ALTER TABLE plinth.sessions DISABLE TRIGGER wait_for_lock');
used();
sql('ALTER TABLE plinth.sessions ENABLE TRIGGER wait_for_lock');
$holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(140)');
sql("ALTER SYSTEM SET plinth.session_flush_interval = '100ms'");
sql('SELECT pg_reload_conf()');
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth session' AND wait_event = 'PgSleep'") eq '1' }), 'it is writing');
# Ends the holder as well, and with it what the worker waits for.
$node->stop('fast');
eval { $holder->quit };
$node->start;
sql("DROP TRIGGER wait_for_lock ON plinth.sessions; ALTER SYSTEM RESET plinth.session_flush_interval");
sql('SELECT pg_reload_conf()');
is(sql($unwritten), '0', 'a stop in the middle of writing loses nothing');

# ---- messages that were sealed under another root key --------------------------------
my $file = $node->basedir . '/root.key';
my $root = slurp_file($file);
sql("SELECT status FROM plinth.magic_link_request('ann\@upkeep.test')");
sub keep
{
	my ($content) = @_;
	$node->stop;
	open my $out, '>', $file or die $!;
	print $out $content;
	close $out;
	$node->start;
	return;
}
keep('0' x 63 . "1\n");
my ($rc, $out, $err) = $node->psql('postgres', "SELECT id, token FROM plinth.outbox_claim('sender')");
is("$rc $out", '0 ', 'no message without its token is handed out');
like($err, qr/WARNING:  messages that are sealed under another root key: 1/, 'the sender is told');
is(sql('SELECT attempts, last_error, available_at > now(), secret IS NOT NULL, failed_at FROM plinth.outbox_messages'),
	'1|sealed under another root key|t|t|', 'that was an attempt');
keep($root);
sql('UPDATE plinth.outbox_messages SET available_at = now()');
my $link = sql("SELECT token FROM plinth.outbox_claim('sender')");
$token = sql("SELECT token FROM plinth.magic_link_sign_in('$link')");
like($token, qr/^pls_/, 'with the right key back it is good');

# ---- a request in one statement ---------------------------------------------------------
my $log = -s $node->logfile;
($rc, $out, $err) = $node->psql('postgres', "SELECT plinth.context_begin('$token')");
like($err, qr/WARNING:  the request context ends with this statement/, 'the client is warned');
unlike(slurp_file($node->logfile, $log), qr/the request context ends/, 'the log is not');

# ---- headers that a database's encoding cannot hold ----------------------------------------
sql("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
$node->safe_psql('ascii', 'CREATE EXTENSION plinth');
sub header
{
	my ($headers) = @_;
	($rc, $out, $err) = $node->psql('ascii', "\\set VERBOSITY verbose\nSET request.headers = '$headers';\nSELECT plinth.request_header('x')");
	return $out . ($err =~ /ERROR:  (\w+): ([^\n]*)/ ? "$1 $2" : '');
}
is(header('{"x": "plain \u0041"}'), 'plain A', 'what it can hold');
is(header('{"x": "\u00e9"}'), 'PT400 setting "request.headers" is not a JSON object', 'what it cannot is refused as bad input');
is(header('{"x": '), 'PT400 setting "request.headers" is not a JSON object', 'as what is no JSON');

done_testing();
