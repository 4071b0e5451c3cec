# What a script finds about itself and the process.
p __FILE__, $0, $PROGRAM_NAME, __dir__, __method__, self.to_s, ARGV, ARGV.map(&:encoding), ARGV.map(&:frozen?), ARGF.class
p Dir.pwd, $;, $,, $/, $\, $VERBOSE, $DEBUG, $-w, $~, $_, $!, $@, $?, $stdin.fileno, $stdout.sync, $stderr.sync
p $LOAD_PATH, Process.uid, caller, binding.local_variables, local_variables, RUBY_VERSION
p global_variables.sort, $LOADED_FEATURES.grep(/guest-runner/), ENV["RUBYOPT"], ENV["RUBYLIB"]
p Object.private_instance_methods(false).sort - [:DelegateClass, :Digest, :JSON, :j, :jj, :pp]
p Thread.list.size, Thread.main == Thread.current, Thread.current.name, GC.stress, GC.disable, GC.enable
