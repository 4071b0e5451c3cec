# tries: to change the machine for the interpreters that wait in it and for itself: preloads, library and loader paths
# passes: the files that decide what runs next cannot be written
# fails: one can
# timeout: 90
paths = %w[/etc/ld.so.preload /etc/ld.so.conf /etc/ld.so.cache /etc/passwd /etc/group /etc/hosts /etc/resolv.conf /etc/machine-id
           /usr/bin/ruby /usr/bin/python3 /usr/bin/node /bin/bash /sbin/init]
paths += $LOAD_PATH + Dir['/usr/lib/x86_64-linux-gnu/lib{c,ruby}*'] + Dir['/usr/lib/python3*/site*.py']
writable = paths.uniq.select { |path| File.writable?(path) || (!File.exist?(path) && File.writable?(File.dirname(path))) }
writable += Dir['/{etc,usr}/*'].select { |path| File.writable?(path) && !File.symlink?(path) }
puts writable.empty? ? 'ISOLATION pass: none can be written' : "ISOLATION fail: #{writable.uniq.first(10).join(', ')}"
