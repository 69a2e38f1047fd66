# Files have at most 600 lines, C functions at most 80 (brace to brace).
use strict;
use warnings;
use File::Find;
use Test::More;

my (@files, @long_files, @long_functions);
find({ no_chdir => 1, wanted => sub { push @files, $_ if /\.(c|h|pl|pm|py|sh|sql|java|spec)$/ && -f && !m{/(frozen|node_modules|results)/}; } },
	grep { -d } qw(src sql test examples bench));

foreach my $file (sort @files)
{
	open my $fh, '<', $file or die "$file: $!";
	my @lines = <$fh>;
	push @long_files, "$file: " . @lines if @lines > 600;
	next unless $file =~ /\.[ch]$/;
	my ($start, $name, $before) = (0, '', '');
	foreach my $i (0 .. $#lines)
	{
		if ($lines[$i] =~ /^\{/)
		{
			$start = $before =~ /\)\s*$/ ? $i + 1 : 0;
		}
		elsif ($lines[$i] =~ /^\}/ && $start)
		{
			my $length = $i + 2 - $start;
			push @long_functions, "$file:$start: $name, $length" if $length > 80;
			$start = 0;
		}
		elsif (!$start && $lines[$i] =~ /^(\w+)\(/)
		{
			$name = $1;
		}
		$before = $lines[$i] if $lines[$i] =~ /\S/;
	}
}
is(join("\n", @long_files), '', 'no file has more than 600 lines');
is(join("\n", @long_functions), '', 'no function has more than 80 lines');
done_testing();
