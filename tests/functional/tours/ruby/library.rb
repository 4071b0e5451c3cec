# The standard library and the gems that come with it.
$VERBOSE = nil

def check(condition) = condition || raise("a check failed at #{caller.first}")

loaded = %w[
  abbrev base64 benchmark bigdecimal cgi coverage csv date delegate did_you_mean digest digest/sha2 English erb error_highlight etc
  fcntl fiddle fileutils find forwardable getoptlong io/console io/wait ipaddr json logger matrix monitor net/http net/protocol
  nkf objspace observer open-uri open3 openssl optparse ostruct pathname pp prettyprint prime pstore psych pty readline
  resolv ripper securerandom set shellwords singleton socket stringio strscan syslog tempfile time timeout tmpdir tsort un uri
  weakref yaml zlib
].select do |name|
  require name
  true
rescue LoadError
  false
end
check loaded.size > 45

check JSON.parse(JSON.generate({ "a" => [1, nil, 2.5] })) == { "a" => [1, nil, 2.5] }
check YAML.load(YAML.dump("a" => [1, 2])) == { "a" => [1, 2] }
check ERB.new("<%= 6 * 7 %>").result == "42" && Digest::SHA256.hexdigest("tour").size == 64
check SecureRandom.hex(16).size == 32 && Random.urandom(8).size == 8 && Random.rand < 1
check Ripper.sexp("1 + 1") && RubyVM::InstructionSequence.compile("1 + 1").eval == 2
check OpenSSL::Digest.new("SHA512").digest("tour").size == 64
key = OpenSSL::PKey.generate_key("ED25519")
check key.verify(nil, key.sign(nil, "tour"), "tour")
getpid = Fiddle::Function.new(Fiddle.dlopen(nil)["getpid"], [], Fiddle::TYPE_INT)
check getpid.call == Process.pid
compare = Fiddle::Closure::BlockCaller.new(Fiddle::TYPE_INT, [Fiddle::TYPE_VOIDP] * 2) { |a, b| a[0, 4].unpack1("l") - b[0, 4].unpack1("l") }
numbers = Fiddle::Pointer[[3, 1, 2].pack("l3")]
qsort = Fiddle::Function.new(Fiddle.dlopen(nil)["qsort"], [Fiddle::TYPE_VOIDP, Fiddle::TYPE_LONG, Fiddle::TYPE_LONG, Fiddle::TYPE_VOIDP], Fiddle::TYPE_VOID)
qsort.call(numbers, 3, 4, compare)
check numbers[0, 12].unpack("l3") == [1, 2, 3]
check Gem::Specification.map(&:name).include?("json") && Gem::Version.new("1.10") > Gem::Version.new("1.9")
check Time.now.localtime.zone && Date.new(2024, 2, 29).leap? && Comparable && 2**200 > 0
check BigDecimal("1.1") + BigDecimal("2.2") == BigDecimal("3.3")
check [3, 1, 2].sort == [1, 2, 3] && "tour" =~ /o(?<x>u)/ && $~[:x] == "u"
log = StringIO.new
Logger.new(log).info("logged")
check log.string.include?("logged") && Benchmark.realtime { 1 } >= 0
pattern = { name: "x", list: [1, [2, 3]] }
case pattern
in { name: String, list: [Integer, [*, last]] } then check last == 3
end
puts "done"
