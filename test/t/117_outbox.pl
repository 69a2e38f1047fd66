# Senders that share the outbox, die, and come back; nothing of it in a dump; what is over is forgotten by itself.
use strict;
use warnings;

use IPC::Run;
use PlinthTest qw(wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', root_key => 1, conf => "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql("INSERT INTO plinth.users (email) SELECT 'u' || i || '\@test.test' FROM generate_series(1, 300) i");
sql("SELECT count(status) FROM generate_series(1, 300) i, plinth.magic_link_request('u' || i || '\@test.test')");

# ---- four at once, each message to one ------------------------------------------
sql('CREATE TABLE sent (id uuid, sender text, token text)');
my @senders = map {
	IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', <<"SQL" ], '<', '/dev/null', '2>&1')
DO \$\$
DECLARE
    n int;
BEGIN
    LOOP
        INSERT INTO sent SELECT id, 'sender$_', token FROM plinth.outbox_claim('sender$_', 7, '1 hour');
        GET DIAGNOSTICS n = ROW_COUNT;
        EXIT WHEN n = 0;
        COMMIT;
    END LOOP;
END
\$\$
SQL
} 1 .. 4;
$_->finish foreach @senders;
is(sql('SELECT count(*), count(DISTINCT id), count(DISTINCT token) FROM sent'), '300|300|300', 'each message went to one sender');
is(sql('SELECT count(*) FROM sent, plinth.magic_link_sign_in(sent.token) s WHERE s.status = $$ok$$'), '300', 'each token is good');
is(sql('SELECT count(*) FROM sent, plinth.magic_link_sign_in(sent.token) s WHERE s.status = $$ok$$'), '0', 'once');
is(sql('SELECT count(*) FILTER (WHERE plinth.outbox_ack(id)) FROM sent'), '300', 'all are acknowledged');
is(sql('SELECT count(secret) FROM plinth.outbox_messages'), '0', 'and their tokens forgotten');

# ---- senders that die ---------------------------------------------------------------
sql("SELECT status FROM plinth.magic_link_request('u1\@test.test')");
my $sender = $node->background_psql('postgres', on_error_die => 0);
my $pid = $sender->query('SELECT pg_backend_pid()');
is($sender->query("BEGIN; SELECT count(token) FROM plinth.outbox_claim('dies')"), '1', 'claimed in a transaction');
is(sql("SELECT count(*) FROM plinth.outbox_claim('other')"), '0', 'nobody else gets it');
sql("SELECT pg_terminate_backend($pid)");
eval { $sender->quit };
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") eq '0' }), 'the sender is gone');
is(sql("SELECT attempt FROM plinth.outbox_claim('dies', lease => '1 hour')"), '1', 'what was not committed is claimed as if for the first time');
is(sql("SELECT count(*) FROM plinth.outbox_claim('other')"), '0', 'claimed and committed: its lease holds');
# The lease is over.
sql("UPDATE plinth.outbox_messages SET available_at = now() WHERE claimed_by = 'dies'");
my ($id, $attempt, $token) = split /\|/, sql("SELECT id, attempt, token FROM plinth.outbox_claim('other', lease => '1 hour')");
is($attempt, 2, 'then the next sender gets it');
is(sql("SELECT plinth.outbox_fail('$id', 'no route', 1)"), 'f', 'who lost the lease does not speak for it');
is(sql("SELECT plinth.outbox_ack('$id')"), 't', 'who has it does');
# A lease of one second ends by itself.
sql("SELECT status FROM plinth.magic_link_request('u2\@test.test')");
sql("SELECT id FROM plinth.outbox_claim('short', lease => '1 s')");
ok(wait_until(sub { sql("SELECT attempt FROM plinth.outbox_claim('next')") eq '2' }), 'a lease ends by itself');

# ---- a crash, and a dump ---------------------------------------------------------------
sql("SELECT status FROM plinth.magic_link_request('u3\@test.test')");
$node->kill9;
ok(PlinthTest::start_again($node), 'killed and started');
my $after = sql("SELECT token FROM plinth.outbox_claim('after', lease => '1 hour')");
is(sql("SELECT status FROM plinth.magic_link_sign_in('$after')"), 'ok', 'a message outlives kill -9');
sql("SELECT status FROM plinth.magic_link_request('u4\@test.test')");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
unlike(slurp_file($dump), qr/COPY plinth\.(outbox_messages|one_time_tokens)/, 'neither messages nor tokens are dumped');
like(slurp_file($dump), qr/COPY plinth\.users/, 'users are');

# ---- what is over ------------------------------------------------------------------------
is(sql("SELECT count(*) > 0 FROM plinth.one_time_tokens"), 't', 'there are tokens');
sql('UPDATE plinth.one_time_tokens SET expires_at = now(); UPDATE plinth.outbox_messages SET expires_at = now()');
ok(wait_until(sub { sql('SELECT (SELECT count(*) FROM plinth.one_time_tokens) + (SELECT count(secret) FROM plinth.outbox_messages)') eq '0' }),
	'the housekeeper forgets them');
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.stat_workers WHERE service = 'housekeeper'") eq '0' }), 'and goes');
is(sql("SELECT count(*) FROM plinth.outbox_messages WHERE last_error = 'expired'"), '3', 'what was not acknowledged says why');

$node->stop;
done_testing();
