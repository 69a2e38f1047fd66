
=pod

=head1 NAME

PlinthServers - the MongoDB and the proxy that PlinthTest starts

=cut

# A server in a process of its own, which ends when this one does: it reads
# its standard input to the end.  It says "port N" first.
package PlinthTest::Server;

use strict;
use warnings;
use IPC::Run;
use Time::HiRes qw(time);

sub _spawn
{
	my ($self, @command) = @_;
	my ($in, $out, $log) = ('', '', '');
	$self->{in}  = \$in;
	$self->{out} = \$out;
	$self->{log} = $PostgreSQL::Test::Utils::log_path . '/server_' . $$ . '.log';
	$self->{run} = IPC::Run::start(\@command, '<', \$in, '>', \$out,
		'2>>', $self->{log}, IPC::Run::timeout(120));
	$self->{run}->pump until $out =~ /^port (\d+)\n/m || !$self->{run}->pumpable;
	$out =~ /^port (\d+)\n/m or die "@command did not start; see $self->{log}";
	$self->{port} = $1;

	# The timeout was for the start only.
	$self->{run}->{TIMERS} = [];
	return;
}

sub port { return $_[0]->{port}; }
sub address { return '127.0.0.1:' . $_[0]->{port}; }

# Ends it cleanly.
sub stop
{
	my ($self) = @_;
	$self->_end('TERM');
	return;
}

# Ends it with kill -9.
sub kill9
{
	my ($self) = @_;
	$self->_end('KILL');
	return;
}

sub _end
{
	my ($self, $signal) = @_;
	my $run = delete $self->{run} or return;
	$run->signal($signal);
	eval { $run->finish; };
	return;
}

# Stops it and starts it again on the same port.
sub restart
{
	my ($self) = @_;
	$self->stop;
	$self->start;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($@, $?);
	$self->_end('KILL') if $self->{run};
	return;
}

# ---------------------------------------------------------------------------
package PlinthTest::Mongo;

use strict;
use warnings;
our @ISA = ('PlinthTest::Server');

sub start
{
	my ($self) = @_;
	die "MONGODB_URI names a server that is not ours to start" if $self->{external};
	local $ENV{PLINTH_MONGO} = 'embedded' if $self->{embedded};
	$self->_spawn("$ENV{PLINTH_ROOT}/test/servers/mongo.sh", '--stdin',
		'--port', $self->{port}, @{ $self->{args} });
	return;
}

# False when the server is MONGODB_URI's: tests that stop it must be skipped.
sub controllable { return !$_[0]->{external}; }

sub uri
{
	my ($self) = @_;
	return $self->{uri} if $self->{external};
	return "mongodb://localhost:$self->{port}/?tls=true" if $self->{tls};
	return 'mongodb://' . $self->address . '/';
}

# As uri, with what PyMongo needs to trust a TLS server of ours.
sub client_uri
{
	my ($self) = @_;
	return $self->uri . ($self->{tls} ? '&tlsCAFile=' . $self->ca_file : '');
}

sub address
{
	my ($self) = @_;
	return $self->SUPER::address unless $self->{external};
	$self->{uri} =~ m{^mongodb://(?:[^@/]*@)?([^,/?]+)} or return undef;
	my $host = $1;
	return $host =~ /:\d+$/ ? $host : "$host:27017";
}

# Documents of a collection: see PlinthTest::mongo_docs.
sub docs
{
	my ($self, $db, $coll) = @_;
	return PlinthTest::mongo_docs($self->client_uri, $db, $coll);
}

sub count
{
	my ($self, $db, $coll) = @_;
	return $self->eval('client[' . PlinthTest::py($db) . '][' . PlinthTest::py($coll) . '].count_documents({})');
}

# See PlinthTest::mongo_eval.
sub eval
{
	my ($self, $code, %opts) = @_;
	return PlinthTest::mongo_eval($self->client_uri, $code, %opts);
}

sub ca_file { return $_[0]->{ca_file}; }

# A CA and a certificate for localhost.
sub _certificates
{
	my ($self) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my @run = (
		"openssl req -x509 -newkey rsa:2048 -nodes -days 3 -subj '/CN=plinth test CA' -keyout ca.key -out ca.pem",
		"openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
		"printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext",
		"openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile ext -out server.pem");
	foreach my $command (@run)
	{
		system("cd $dir && $command 2>>openssl.log") == 0 or die "failed: $command";
	}
	push @{ $self->{args} }, '--tls-cert', "$dir/server.pem", '--tls-key', "$dir/server.key";
	$self->{ca_file} = "$dir/ca.pem";
	return;
}

# ---------------------------------------------------------------------------
# See test/servers/proxy.py for what the commands do.
package PlinthTest::Proxy;

use strict;
use warnings;
use IO::Socket::INET;
use JSON::PP;
our @ISA = ('PlinthTest::Server');

sub start
{
	my ($self) = @_;
	my $python = $ENV{PLINTH_PYTHON} || '/usr/bin/python3';
	$self->_spawn($python, "$ENV{PLINTH_ROOT}/test/servers/proxy.py",
		'--stdin', '--port', $self->{port}, '--control', 0, $self->{target});
	($self->{control}) = ${ $self->{out} } =~ /^control (\d+)\n/m;
	return;
}

sub uri { return 'mongodb://' . $_[0]->address . '/'; }

# Sends a command, returns its answer.
sub command
{
	my ($self, $command) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{control})
	  or die "proxy: $!";
	print $socket "$command\n";
	$socket->flush;
	my $answer = <$socket>;
	die "proxy closed its control connection at \"$command\"" unless defined $answer;
	chomp $answer;
	die "proxy: $answer" if $answer =~ /^error/;
	$answer =~ s/^ok ?//;
	return $answer;
}

sub pass      { return $_[0]->command('pass'); }
sub cut       { return $_[0]->command('cut'); }
sub refuse    { return $_[0]->command('refuse'); }
sub blackhole { return $_[0]->command('blackhole'); }
sub delay     { return $_[0]->command("delay $_[1]"); }
sub cut_request { return $_[0]->command("cut-request $_[1]"); }
sub cut_reply { return $_[0]->command("cut-reply $_[1]"); }
sub hold      { return $_[0]->command('hold'); }
sub release   { return $_[0]->command('release'); }
sub stats     { return JSON::PP->new->decode($_[0]->command('stats')); }

1;
