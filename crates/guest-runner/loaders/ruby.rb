# Makes Ruby write at once, and parks it before its main script where the guest-runner asks for that.
#
# `-r` loads this file into every Ruby, parked or not. Ruby opens the main script *before* that, so a parked one was
# started with an empty line there, and is given the job's when it is released. Everything that this file leaves behind
# would be seen by the job, so there is no constant, method or global variable here; what cannot be undone is in
# docs/parking.md.

$stdout.sync = $stderr.sync = true

if (descriptor = ENV["GUEST_RUNNER_PARK"])
  # What scripts commonly require. Nothing here may keep what it found when it was loaded: a seed, the environment.
  warm = %w[
    date delegate digest fileutils forwardable json open3 ostruct pathname pp securerandom set shellwords stringio
    strscan tempfile time timeout
  ]

  # The strings of the release message; ends the process when the runner closes instead.
  receive = lambda do |runner|
    data = runner.read
    exit!(0) if data.empty?
    raise "the message was cut off" unless data.end_with?("\0.\0")
    data.delete_suffix("\0.\0").split("\0", -1).map { |text| text.force_encoding(Encoding.default_external) }
  end

  # What most jobs do not bring: another directory, arguments, variables.
  differ = lambda do |directory, strings|
    fields = -> { strings.shift(Integer(strings.shift, 10)) }
    Dir.chdir(directory) unless directory.empty?
    ARGV.concat(fields.().each(&:freeze))
    fields.().each { |name| ENV.delete(name) }
    fields.().each do |entry|
      name, value = entry.split("=", 2)
      ENV[name] = value
    end
    raise "the message is malformed" unless strings.empty?
  end

  begin
    runner = IO.for_fd(Integer(descriptor), "r+b")
    runner.sync = true
    warm.each do |name|
      require name
    rescue LoadError
      # Absent: the job sees that for itself.
    end
    script = ObjectSpace.each_object(File).find { |file| !file.closed? && file.path == $PROGRAM_NAME }
    raise "the main script is not open" unless script
    GC.start
    ENV.delete("GUEST_RUNNER_PARK")
    runner.write("P")

    # The host's name is asked for when it is needed.
    seed, _, directory, *strings = receive.(runner)
    raise "the message is malformed" unless seed.match?(/\A\h{64}\z/)

    # The only generator that keeps a state: SecureRandom and Random.urandom ask the kernel every time.
    Random.srand(Random.new_seed ^ seed.hex)
    differ.(directory, strings) unless directory.empty? && strings == %w[0 0 0]
    script.reopen($PROGRAM_NAME)

    runner.write("R")
    runner.close
  rescue Exception => error
    $stderr.puts("guest-runner: cannot release a parked Ruby: #{error.inspect}")
    exit!(70)
  end
end
