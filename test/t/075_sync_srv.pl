# mongodb+srv uris: SRV and TXT records asked of a name server over the wire.
# No privilege is needed for it: a library between tells the resolver to ask
# ours, and that names of the zone are this machine's.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();

# What is in the zone: the file's content changes at once.
sub zone
{
	open my $file, '>', "$dir/zone.new" or die $!;
	print $file map { "$_\n" } @_;
	close $file;
	rename "$dir/zone.new", "$dir/zone" or die $!;
	return;
}
zone();

package Dns
{
	our @ISA = ('PlinthTest::Server');

	sub start
	{
		my ($self) = @_;
		my $python = $ENV{PLINTH_PYTHON} || '/usr/bin/python3';
		$self->_spawn($python, "$ENV{PLINTH_ROOT}/test/servers/dns.py", '--stdin', '--port', $self->{port}, $self->{file});
		return;
	}
}
my $dns = bless { port => 0, file => "$dir/zone" }, 'Dns';
$dns->start;

open my $source, '>', "$dir/names.c" or die $!;
print $source <<'C';
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <resolv.h>
#include <stdlib.h>
#include <string.h>
typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
typedef int (*initializer)(res_state);
int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	const char *zone = name == NULL ? NULL : strstr(name, ".plinth.test");
	return ((resolver) dlsym(RTLD_NEXT, "getaddrinfo"))(zone == NULL ? name : "127.0.0.1", service, hints, result);
}
int
__res_ninit(res_state state)
{
	int result = ((initializer) dlsym(RTLD_NEXT, "__res_ninit"))(state);
	state->nscount = 1;
	state->nsaddr_list[0].sin_family = AF_INET;
	state->nsaddr_list[0].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	state->nsaddr_list[0].sin_port = htons((unsigned short) atoi(getenv("PLINTH_DNS_PORT")));
	return result;
}
C
close $source;
system_or_bail('gcc', '-shared', '-fPIC', '-o', "$dir/names.so", "$dir/names.c", '-ldl', '-lresolv');

my $node = PlinthTest::node('srv', start => 0, conf => <<'CONF');
plinth.sync_connect_timeout = '1s'
plinth.sync_timeout = '2s'
plinth.sync_retry_max = '500ms'
CONF
{
	local $ENV{LD_PRELOAD}      = "$dir/names.so";
	local $ENV{PLINTH_DNS_PORT} = $dns->port;
	$node->start;
}
$node->safe_psql('postgres', 'CREATE EXTENSION plinth');

my $mongo = PlinthTest::mongo_start(embedded => 1);
my $first = PlinthTest::proxy_start($mongo);
my $other = PlinthTest::proxy_start($mongo);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub synced
{
	my ($name, $uri) = @_;
	PlinthTest::sync_server($node, $name, $uri, 'srv');
	sql("CREATE TABLE $name (id int PRIMARY KEY, v text); SELECT plinth.sync_table('$name', '$name');"
		  . "INSERT INTO $name VALUES (1, 'first')");
	return;
}

sub shows
{
	my ($name, $pattern, $what) = @_;
	my $seen = '';
	ok(wait_until(sub { ($seen = sql("SELECT last_error FROM plinth.stat_sync WHERE name = '$name'")) =~ $pattern }), $what)
	  or diag("last_error: $seen");
	return;
}

sub there { my ($count) = @_; return wait_until(sub { $mongo->count('srv', 'found') == $count }); }

my $zone = 'cluster.plinth.test';
my $srv  = "_mongodb._tcp.$zone SRV";

# ---- a name without records, and one whose record comes later ----
synced('found', "mongodb+srv://$zone/?tls=false");
shows('found', qr/^dns: could not look up "\Q$zone\E": /, 'no record: told');
zone("$srv " . $first->port . " db1.$zone");
ok(there(1), 'a record is there: delivered');
cmp_ok($first->stats->{writes}, '>', 0, 'to the port that it names');

# ---- another host, as when a cluster moves ----
zone("$srv " . $other->port . " db2.$zone");
$first->refuse;
sql("INSERT INTO found VALUES (2, 'second')");
ok(there(2), 'the record changed: delivered there');
cmp_ok($other->stats->{writes}, '>', 0, 'to the port that it names now');
$first->pass;

# ---- options from a TXT record: a replica set that this server is not in ----
zone("$srv " . $other->port . " db2.$zone", "$zone TXT replicaSet=elsewhere");
$other->refuse;
sql("INSERT INTO found VALUES (3, 'third')");
shows('found', qr/could not connect to "db2\.\Q$zone\E:/, 'the server is away: records are asked for anew');
$other->pass;
shows('found', qr{suitable server}, 'options of a TXT record are heeded');
is($mongo->count('srv', 'found'), 2, 'so nothing is written');
zone("$srv " . $other->port . " db2.$zone");
ok(there(3), 'without it: delivered');

# ---- what the driver must not follow ----
zone("_mongodb._tcp.evil.plinth.test SRV " . $first->port . " db.elsewhere.example");
synced('astray', 'mongodb+srv://evil.plinth.test/?tls=false');
shows('astray', qr/^dns: could not look up "evil\.plinth\.test": /, 'a record that leads to another domain is refused');
zone("_mongodb._tcp.odd.plinth.test SRV " . $first->port . ' db.odd.plinth.test', 'odd.plinth.test TXT tls=false');
synced('odd', 'mongodb+srv://odd.plinth.test/?tls=false');
shows('odd', qr/^dns: could not look up "odd\.plinth\.test": /, 'and so is a TXT record that sets more than it may');

# ---- TLS is on where nothing else is said ----
zone("_mongodb._tcp.plain.plinth.test SRV " . $first->port . ' db.plain.plinth.test');
synced('secured', 'mongodb+srv://plain.plinth.test/');
shows('secured', qr/^(?:tls|unreachable): /, 'TLS is the default: a server without it is not spoken to');
is($mongo->count('srv', 'secured'), 0, 'and gets nothing');

# ---- a name server that does not answer ----
zone("_mongodb._tcp.mute.plinth.test hang");
synced('mute', 'mongodb+srv://mute.plinth.test/?tls=false');
shows('mute', qr/^dns: looking up "mute\.plinth\.test" did not end within 1000 ms/, 'a name server that is silent');
sql('CREATE DATABASE other');
PlinthTest::within_ok(5, 'DROP DATABASE of another database does not wait', sub { sql('DROP DATABASE other') });
PlinthTest::within_ok(3, 'a fast stop does not either', sub { $node->stop('fast') });
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal|exited with exit code [2-9]/, 'no worker crashed');

done_testing();
