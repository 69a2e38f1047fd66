
=pod

=head1 NAME

InsideTest - a process of PostgreSQL, stopped inside a function of plinth

=head1 SYNOPSIS

  use InsideTest qw(stop_inside);

  my $found = stop_inside($pid, 'claim|plinth_limits_table_decide');
  kill 'KILL', $pid;

=head1 DESCRIPTION

The process is stopped at moments that nobody chose until it is found in one
of the functions, by its instruction pointer and the library's symbols. It must
be busy with what leads there. Static functions that a compiler may have put
into their only caller are named together with that.

=cut

package InsideTest;

use strict;
use warnings;

# Addresses have 64 bits.
no warnings 'portable';

use Exporter 'import';
use PlinthTest qw(wait_until);
use Time::HiRes qw(sleep);

our @EXPORT_OK = qw(stop_inside);

my @symbols;

sub read_symbols
{
	my ($folder) = `$ENV{PG_CONFIG} --pkglibdir`;
	chomp $folder;
	@symbols = sort { $a->[0] <=> $b->[0] }
	  map { [ hex((split)[0]), (split)[2] ] } grep { / [tT] / } `nm $folder/plinth.so`;
	die "no symbols in $folder/plinth.so" unless @symbols > 100;
	return;
}

sub slurp_line
{
	open my $fh, '<', $_[0] or return undef;
	return scalar <$fh>;
}

# Where the library lies in a process.
sub base_of
{
	my ($pid) = @_;
	open my $maps, '<', "/proc/$pid/maps" or return undef;
	while (<$maps>)
	{
		return hex($1) - hex($2) if m{^([0-9a-f]+)-[0-9a-f]+ \S+ ([0-9a-f]+) .*/plinth\.so$};
	}
	return undef;
}

# The function of the library in which a stopped process is; '' for none, undef
# where it may not be known.
sub function_of
{
	my ($pid, $base) = @_;
	my $line = slurp_line("/proc/$pid/syscall") // return undef;
	my $at = hex((split ' ', $line)[-1] // 0) - $base;
	my ($low, $high) = (0, $#symbols);
	return '' if $at < $symbols[0][0] || $at > $symbols[-1][0];
	while ($low < $high)
	{
		my $middle = int(($low + $high + 1) / 2);
		if ($symbols[$middle][0] <= $at) { $low = $middle } else { $high = $middle - 1 }
	}
	return $symbols[$low][1];
}

# Stops a process where it is in one of these functions (a pattern), and
# returns which; 'somewhere' where that is not to be known (no right to look at
# it, or it has ended); '' when it never gets there.
sub stop_inside
{
	my ($pid, $functions) = @_;
	my $base = base_of($pid) // return 'somewhere';
	my $found = '';

	read_symbols() unless @symbols;
	wait_until(
		sub {
			foreach (1 .. 200)
			{
				sleep(rand(0.001));
				kill('STOP', $pid) || return 1;
				until ((slurp_line("/proc/$pid/stat") // ') T') =~ /\) [TtZ]/) { sleep(0.0001) }
				my $at = function_of($pid, $base) // 'somewhere';
				return $found = $at if $at eq 'somewhere' || $at =~ /^(?:$functions)(?:\.|$)/;
				kill 'CONT', $pid;
			}
			return 0;
		});
	return $found;
}

1;
