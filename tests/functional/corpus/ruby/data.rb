# What follows __END__.
p DATA.class, DATA.path, DATA.read, DATA.fileno, DATA.lineno
__END__
some data ünï
more
