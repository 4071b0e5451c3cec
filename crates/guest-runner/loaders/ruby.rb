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
    data = "".b
    until data.include?("\n")
      begin
        data << runner.readpartial(65_536)
      rescue EOFError
        raise unless data.empty?
        exit!(0)
      end
    end
    length, body = data.split("\n", 2)
    length = Integer(length, 10)
    body << runner.readpartial(length - body.bytesize) while body.bytesize < length
    raise "the message is malformed" unless body.bytesize == length && body.end_with?("\0")
    body.chop.split("\0", -1).map { |text| text.force_encoding(Encoding.default_external) }
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
    runner.write("P")

    message = receive.(runner)
    seed, directory = message.shift(2)
    arguments = message.shift(Integer(message.shift, 10))
    environment = message.shift(Integer(message.shift, 10))
    raise "the message is malformed" unless message.empty? && seed.match?(/\A\h{64}\z/)

    # The only generator that keeps a state: SecureRandom and Random.urandom ask the kernel every time.
    Random.srand(Random.new_seed ^ seed.hex)
    Dir.chdir(directory)
    ENV.clear
    environment.each do |entry|
      name, value = entry.split("=", 2)
      ENV[name] = value
    end
    ARGV.concat(arguments.each(&:freeze))
    script.reopen($PROGRAM_NAME)

    runner.write("R")
    runner.close
  rescue Exception => error
    $stderr.puts("guest-runner: cannot release a parked Ruby: #{error.inspect}")
    exit!(70)
  end
end
