# A room includes only the public headers of rooms above it in DESIGN.md's
# order (plain C that of base's, base/ids.h); only base/compat.h knows
# PG_VERSION_NUM; only mongo includes mongoc.h.
use strict;
use warnings;
use Test::More;

my @rooms = qw(base crypto worker decode limits audit identity session cache mongo sync fdw http app ops);
my %order = map { $rooms[$_] => $_ } 0 .. $#rooms;
my (@wrong, @versions, @foreign);

foreach my $file (sort glob 'src/*/*.[ch]')
{
	my (undef, $room) = split m{/}, $file;
	unless (exists $order{$room})
	{
		push @wrong, "$file: unknown room";
		next;
	}
	open my $fh, '<', $file or die "$file: $!";
	while (my $line = <$fh>)
	{
		push @versions, "$file:$." if $line =~ /\bPG_VERSION_NUM\b/ && $file ne 'src/base/compat.h';
		push @foreign, "$file:$." if $line =~ /#include\s*[<"](mongoc|bson)/ && $room ne 'mongo';
		next unless $line =~ /^\s*#\s*include\s+"([^"]+)"/;
		my $header = $1;
		next unless -e "src/$header" || -e "src/$room/$header";
		my $other = $header =~ m{^([^/]+)/} ? $1 : $room;
		next if $other eq $room;
		if (!exists $order{$other} || $order{$other} > $order{$room})
		{
			push @wrong, "$file:$.: $header is of a room below";
		}
		elsif ($header ne "$other/$other.h" && $header !~ m{^base/(compat|ids)\.h$})
		{
			push @wrong, "$file:$.: $header is private to its room";
		}
	}
}
is(join("\n", @wrong), '', 'rooms include only public headers of rooms above them');
is(join("\n", @versions), '', 'PG_VERSION_NUM is asked for only in compat.h');
is(join("\n", @foreign), '', 'libmongoc and libbson are included only in room mongo');
done_testing();
