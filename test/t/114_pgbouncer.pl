# Fifty clients of four kinds behind PgBouncer in transaction mode, each as its
# own user: none ever sees another's context, whichever way transactions end.
use strict;
use warnings;

use IPC::Run;
use PlinthTest qw(wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my ($pgbouncer) = grep { -x } '/usr/sbin/pgbouncer', '/usr/local/bin/pgbouncer', '/usr/bin/pgbouncer';
plan skip_all => 'no PgBouncer' unless $pgbouncer;
my $seconds = $ENV{PLINTH_LONG} ? 60 : 20;
my $pgx = "$ENV{PLINTH_SERVERS}/go/pgx";
my ($python, $node_js, $libpq, $go) = -x $pgx ? (14, 14, 10, 12) : (20, 20, 10, 0);

my $node = PlinthTest::node('main', conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
log_min_messages = fatal
CONF
# No Argon2 for fifty: sessions made as sign_in makes them, by rows.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE marks (user_id uuid PRIMARY KEY);
ALTER TABLE marks ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON marks USING (user_id = (SELECT plinth.current_user_id()));
GRANT SELECT ON marks TO PUBLIC;
SELECT plinth.sign_up('first@test.test', 'secret password');
DO $$
DECLARE
    phc text;
    made uuid;
BEGIN
    SELECT p.phc INTO phc FROM plinth.passwords p;
    FOR n IN 1..50 LOOP
        INSERT INTO plinth.users (email) VALUES (format('user%s@test.test', n)) RETURNING id INTO made;
        INSERT INTO plinth.passwords (user_id, phc) VALUES (made, phc);
        INSERT INTO marks VALUES (made);
    END LOOP;
END
$$;
CREATE TABLE tokens AS SELECT n, s.token, s.user_id::text FROM generate_series(1, 50) n,
    LATERAL plinth.sign_in(format('user%s@test.test', n), 'secret password') s WHERE s.status = 'ok';
GRANT SELECT ON tokens TO authenticator;
SQL
is($node->safe_psql('postgres', 'SELECT count(*) FROM tokens'), '50', 'fifty sessions');
my @users = split /\n/, $node->safe_psql('postgres', "SELECT token || ' ' || user_id FROM tokens ORDER BY n");

# ---- PgBouncer, with far fewer connections than there are clients -----------------
my $dir = PostgreSQL::Test::Utils::tempdir();
my $port = PostgreSQL::Test::Cluster::get_free_port();
append_to_file("$dir/users", qq("authenticator" ""\n));
append_to_file("$dir/pgbouncer.ini", <<"INI");
[databases]
postgres = host=@{[$node->host]} port=@{[$node->port]} dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = trust
auth_file = $dir/users
pool_mode = transaction
default_pool_size = 6
max_client_conn = 100
log_connections = 0
log_disconnections = 0
INI
# To a file: nobody would empty a pipe.
my $bouncer = IPC::Run::start([ $pgbouncer, '-q', "$dir/pgbouncer.ini" ], '<', \undef, '>', "$dir/log", '2>&1');
my $conninfo = "host=127.0.0.1 port=$port user=authenticator dbname=postgres";
wait_until(sub { system("psql -XqAtc 'SELECT 1' '$conninfo' >/dev/null 2>&1") == 0 }) or die "PgBouncer did not start: " . slurp_file("$dir/log");

# ---- the clients --------------------------------------------------------------------
# pgbench ends with an error as soon as one statement divides by zero.
append_to_file("$dir/libpq.sql", <<'SQL');
SELECT token, user_id AS me FROM tokens WHERE n = 1 + :client_id \gset
\set pause random(0, 40)
\sleep :pause ms
BEGIN;
SELECT 1 / (plinth.current_user_id() IS NULL)::int;
SELECT plinth.context_begin(:token);
SELECT 1 / (plinth.current_user_id()::text = :me AND current_user = 'authenticated' AND (SELECT count(*) = 1 AND min(user_id::text) = :me FROM marks))::int;
END;
SELECT 1 / (plinth.current_user_id() IS NULL AND current_user = 'authenticator' AND NOT EXISTS (SELECT FROM marks))::int;
SQL
my ($with_psycopg) = grep { system("$_ -c 'import psycopg2' 2>/dev/null") == 0 } $ENV{PLINTH_PYTHON} || 'python3', '/usr/bin/python3';
my $servers = "$ENV{PLINTH_ROOT}/test/servers";
my %command = (
	'psycopg' => [ $with_psycopg, "$servers/context_clients.py", $conninfo, $seconds, $python ],
	'node-postgres' => [ 'node', "$servers/context_clients.mjs", "$ENV{PLINTH_SERVERS}/npm/node_modules", '127.0.0.1', $port, $seconds, $node_js ],
	'libpq' => [ 'pgbench', '-n', '-M', 'extended', '-c', $libpq, '-T', $seconds, '-f', "$dir/libpq.sql", $conninfo ]);
# Each kind has users of its own; those of libpq are the first.
my %users = (libpq => [], 'psycopg' => [], 'node-postgres' => [], pgx => []);
splice @users, 0, $libpq;
push @{ $users{psycopg} }, splice @users, 0, $python;
push @{ $users{'node-postgres'} }, splice @users, 0, $node_js;
push @{ $users{pgx} }, splice @users, 0, $go;
$command{pgx} = [ $pgx, '127.0.0.1', $port, $seconds, $go ] if $go > 0;
append_to_file("$dir/$_", join '', map { "$_\n" } @{ $users{$_} }) foreach keys %command;
my %run;
foreach my $kind (sort keys %command)
{
	$run{$kind} = IPC::Run::start($command{$kind}, '<', "$dir/$kind", '>', "$dir/$kind.out", '2>', "$dir/$kind.err",
		IPC::Run::timeout($seconds + $PlinthTest::patience));
}
foreach my $kind (sort keys %command)
{
	my $good = eval { $run{$kind}->finish };
	$run{$kind}->kill_kill unless defined $good;
	my ($count) = slurp_file("$dir/$kind.out") =~ ($kind eq 'libpq' ? qr/actually processed: (\d+)/ : qr/^(\d+)$/m);
	ok($good, "$kind: each saw its own user, and nobody between") or diag(substr(slurp_file("$dir/$kind.err"), 0, 2000));
	cmp_ok($count || 0, '>', 50, "$kind: in many transactions");
	note("$kind: $count transactions");
}

SKIP: {
	skip 'no pgx: no Go to build its client, or its modules cannot be had', 1 if $go == 0;
	is(join(' ', sort keys %command), 'libpq node-postgres pgx psycopg', 'clients of four kinds');
}

# ---- what stays in the connections ------------------------------------------------------
my $left = join '', map { `psql -XqAtc "SELECT plinth.current_user_id() IS NULL AND current_user = 'authenticator'" '$conninfo'` } 1 .. 12;
is($left, "t\n" x 12, 'nothing');
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE usename = 'authenticator'"), '<=', 6, 'six connections did it');

$bouncer->signal('TERM');
eval { $bouncer->finish };
$node->stop('fast');
done_testing();
