=pod

=head1 NAME

JoseTest - tokens by others than us, and by whoever means no good

=cut

package JoseTest;

use strict;
use warnings;

use IPC::Open2 ();
use JSON::PP;
use MIME::Base64 qw(encode_base64url decode_base64url);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

# PyJWT, whose private keys are files in a directory (see jose_peer.py).
sub python
{
	my ($directory) = @_;
	foreach my $python ($ENV{PLINTH_PYTHON} || 'python3', '/usr/bin/python3')
	{
		next if system("$python -c 'import jwt, cryptography' 2>/dev/null") != 0;
		return peer($python, "$ENV{PLINTH_ROOT}/test/servers/jose_peer.py", $directory);
	}
	die 'no Python here has PyJWT and cryptography';
}

# jose of npm.
sub node
{
	return peer('node', "$ENV{PLINTH_ROOT}/test/servers/jose_peer.mjs", "$ENV{PLINTH_SERVERS}/npm/node_modules");
}

sub peer
{
	my @command = @_;
	my $self = bless { command => $command[1] }, 'JoseTest';
	$self->{pid} = IPC::Open2::open2($self->{out}, $self->{in}, @command);
	$self->{in}->autoflush(1);
	return $self;
}

sub ask
{
	my ($self, $op, %what) = @_;
	print { $self->{in} } $json->encode({ op => $op, %what }) . "\n";
	my $answer = readline $self->{out};
	die "$self->{command} ended" unless defined $answer;
	return $json->decode($answer);
}

sub DESTROY
{
	my ($self) = @_;
	local $?;
	close $self->{in};
	waitpid $self->{pid}, 0;
	return;
}

# JSON text of a value, or the text itself when it is one.
sub text
{
	my ($value) = @_;
	return ref $value ? $json->encode($value) : $value;
}

# The first two parts of a token; header and claims are values, or JSON texts.
sub parts
{
	my ($header, $claims) = @_;
	return encode_base64url(text($header)) . '.' . encode_base64url(text($claims));
}

1;
