# What must not be left in any file, and files that must agree.
use strict;
use warnings;
use File::Find;
use JSON::PP;
use Test::More;

my (@files, @leftovers, @spaces, @foreign);
find({ no_chdir => 1, wanted => sub {
		$File::Find::prune = 1 if m{^\./(build|results|output_iso|tmp_check|\.git)$} || m{/node_modules$};
		push @files, $_ if -f && -T && !m{\.(o|out|so)$} && !m{/regression\.(diffs|out)$};
	} }, '.');

# Spelt so that this file does not find itself.
my $marks = join '|', map { "\\b$_\\b" } 'TO' . 'DO', 'FIX' . 'ME', 'XX' . 'X';
my $paths = join '|', '/wo' . 'rk/', '/tmp/' . 'dev', '/ro' . 'ot/';
foreach my $file (sort @files)
{
	open my $fh, '<', $file or die "$file: $!";
	while (my $line = <$fh>)
	{
		push @leftovers, "$file:$.: $line" if $line =~ /$marks/ || $line =~ m{(?<![\w./-])(?:$paths)};
		# The script runs in databases of any encoding.
		push @foreign, "$file:$." if $line =~ /[^\x00-\x7f]/ && $file =~ m{^\./sql/};
		push @spaces, "$file:$." if $line =~ /[ \t]+$/ && $file =~ /\.(c|h|sql|pl|pm|py|sh|md|java|json)$/;
	}
}
is(join('', @leftovers), '', 'no marks of unfinished work, no paths of somebody\'s machine');
is(join("\n", @foreign), '', 'no character in sql/ that some encodings do not have');
is(join("\n", @spaces), '', 'no white space at the end of a line');

sub slurp { open my $fh, '<', $_[0] or die "$_[0]: $!"; local $/; return <$fh>; }
my ($version) = slurp('plinth.control') =~ /^default_version = '([^']+)'/m;
my $meta = JSON::PP->new->decode(slurp('META.json'));
is($meta->{version}, $version, 'META.json has the version of plinth.control');
is($meta->{provides}{plinth}{version}, $version, 'also in what it provides');
like(slurp('CHANGELOG.md'), qr/^## \Q$version\E\b/m, 'CHANGELOG.md knows the version');
done_testing();
