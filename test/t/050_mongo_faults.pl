# What can be wrong between a worker and MongoDB: names, ports, certificates,
# credentials.  Each is told in stat_sync by its kind, delays nobody else, gives
# no secret away, does not flood the log, and holds up neither a stop of the
# server nor DROP DATABASE of another database.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# A resolver that hangs for one name and is the system's for others.
my $dir = PostgreSQL::Test::Utils::tempdir();
open my $source, '>', "$dir/hang.c" or die $!;
print $source <<'C';
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	if (name != NULL && strstr(name, "hangs") != NULL)
		sleep(600);
	return ((resolver) dlsym(RTLD_NEXT, "getaddrinfo"))(name, service, hints, result);
}
C
close $source;
system_or_bail('gcc', '-shared', '-fPIC', '-o', "$dir/hang.so", "$dir/hang.c", '-ldl');

my $node = PlinthTest::node('faults', start => 0, conf => <<'CONF');
plinth.sync_connect_timeout = '1s'
plinth.sync_timeout = '2s'
plinth.sync_retry_max = '500ms'
CONF
{
	local $ENV{LD_PRELOAD} = "$dir/hang.so";
	$node->start;
}
$node->safe_psql('postgres', 'CREATE EXTENSION plinth');

my $mongo   = PlinthTest::mongo_start();
my $tls     = PlinthTest::mongo_start(tls => 1);
my $plain   = PlinthTest::mongo_start(embedded => 1);
my $proxy   = PlinthTest::proxy_start($plain);
my $tls_uri = 'mongodb://localhost:' . $tls->port . '/';
my $secret  = 'T0psecret-word';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub last_error { return sql("SELECT last_error FROM plinth.stat_sync WHERE name = '$_[0]'"); }

# A server with a table of its own under the same name.
sub synced
{
	my ($name, $uri, %opts) = @_;
	PlinthTest::sync_server($node, $name, $uri, 'faults', %opts);
	sql("CREATE TABLE $name (id int PRIMARY KEY, v text); SELECT plinth.sync_table('$name', '$name');"
		  . "INSERT INTO $name VALUES (1, 'first')");
	return;
}

sub shows
{
	my ($name, $pattern) = @_;
	my $seen = '';
	ok(wait_until(sub { ($seen = last_error($name)) =~ $pattern }), "$name is told") or diag("last_error: $seen");
	return;
}

synced('healthy', $mongo->uri);
synced('trusted', $tls_uri, tls_ca_file => $tls->ca_file);
synced('lax', "$tls_uri?tls=true", tls_allow_invalid_certificates => 'true');
foreach my $name (qw(trusted lax))
{
	ok(wait_until(sub { $tls->count('faults', $name) == 1 }), "TLS: $name");
}

synced('untrusted', $tls_uri, tls => 'true');
synced('misnamed', 'mongodb://[::ffff:127.0.0.1]:' . $tls->port . '/', tls_ca_file => $tls->ca_file);
synced('no_ca', $tls_uri, tls_ca_file => "$dir/nowhere.pem");
synced('not_tls', $tls_uri);
synced('refused', 'mongodb://127.0.0.1:1/');
synced('nameless', 'mongodb://no-such-name.invalid/');
synced('srvless', 'mongodb+srv://no.such-name.invalid/');
synced('hanging', 'mongodb://hangs.invalid/');
synced('silent', $proxy->uri);
synced('intruder', $plain->uri, mapping => "OPTIONS (username 'someone', password '$secret')");
synced('fileless', $plain->uri, mapping => "OPTIONS (username 'someone', password_file '$dir/nowhere')");
$proxy->blackhole;
sql("INSERT INTO silent VALUES (2, 'second')");

shows('untrusted', qr/^tls: certificate of "localhost" was not accepted: /);
shows('misnamed', qr/^tls: certificate of ".*" was not accepted: IP address mismatch/);
shows('no_ca', qr/^tls: could not load tls_ca_file "\Q$dir\E\/nowhere.pem"/);
shows('not_tls', qr/^unreachable: /);
shows('refused', qr/^unreachable: could not connect to "127.0.0.1:1": Connection refused/);
shows('nameless', qr/^dns: could not look up "no-such-name.invalid": /);
shows('srvless', qr/^dns: could not look up "no.such-name.invalid": /);
shows('hanging', qr/^dns: looking up "hangs.invalid" did not end within 1000 ms/);
shows('silent', qr/^unreachable: /);
shows('intruder', qr/^auth: /);
shows('fileless', qr/^config: could not open password_file "\Q$dir\E\/nowhere": No such file or directory/);

# It is tried again and again, and the log has it once.
my $retries = sql("SELECT retries FROM plinth.stat_sync WHERE name = 'refused'");
my $offset  = -s $node->logfile;
my $begin   = time();
ok(wait_until(sub { sql("SELECT retries FROM plinth.stat_sync WHERE name = 'refused'") >= $retries + 6 }), 'it is tried again');
my $log = slurp_file($node->logfile);
foreach my $name (qw(refused nameless hanging intruder no_ca))
{
	like($log, qr/LOG:  sync to server "$name": .*, will try again/, "$name is in the log");
	my %lines;
	$lines{$_}++ foreach substr($log, $offset) =~ /(sync to server "$name".*)/g;
	my ($most) = (sort { $b <=> $a } values %lines, 0);
	cmp_ok($most, '<=', 1 + (time() - $begin) / 60, "$name: and not with each try");
}

# Everything else goes on.
sql("INSERT INTO healthy SELECT g, 'x' FROM generate_series(2, 500) g");
ok(wait_until(sub { $mongo->count('faults', 'healthy') == 500 }), 'a healthy server is not delayed');

# What is mended is found without any further ado.
sql("ALTER USER MAPPING FOR PUBLIC SERVER fileless OPTIONS (DROP username, DROP password_file)");
sql("ALTER SERVER untrusted OPTIONS (ADD tls_ca_file '" . $tls->ca_file . "')");
ok(wait_until(sub { $plain->count('faults', 'fileless') == 1 }), 'credentials that are mended');
ok(wait_until(sub { $tls->count('faults', 'untrusted') == 1 }), 'a certificate that is trusted after all');
$proxy->pass;
ok(wait_until(sub { $plain->count('faults', 'silent') == 2 }), 'a server that speaks again');

# A connection that ends when the driver is due to look at its servers again, and none that takes its place.
my $fading = PlinthTest::proxy_start($plain);
synced('fading', $fading->uri . '?heartbeatFrequencyMS=500');
ok(wait_until(sub { $plain->count('faults', 'fading') == 1 }), 'a server that will go');
sleep 1;
$fading->refuse;
sql("INSERT INTO fading VALUES (2, 'second')");
shows('fading', qr/^unreachable: could not connect to /);
$fading->pass;
ok(wait_until(sub { $plain->count('faults', 'fading') == 2 }), 'and is back');

# Another database can be dropped meanwhile, and the server stops at once.
$proxy->blackhole;
sql("INSERT INTO silent VALUES (3, 'third')");
sql('CREATE DATABASE other');
PlinthTest::within_ok(5, 'DROP DATABASE of another database does not wait', sub { sql('DROP DATABASE other') });
PlinthTest::within_ok(3, 'a fast stop with a server that is silent and a name that hangs', sub { $node->stop('fast') });

$log = slurp_file($node->logfile);
unlike($log, qr/\Q$secret\E/, 'no password in the log');
unlike($log, qr/PANIC|terminated by signal|exited with exit code [2-9]/, 'no worker crashed');

done_testing();
