# Files in every way that the standard library knows.
require "fileutils"
require "find"
require "io/nonblock"
require "pstore"
require "tempfile"
require "tmpdir"
require "zlib"

def check(condition) = condition || raise("a check failed at #{caller.first}")

Dir.mktmpdir do |work|
  Dir.chdir(work)
  File.write("text", "line\n" * 1000)
  File.link("text", "hard")
  File.symlink("text", "soft")
  File.rename("hard", "renamed")
  File.chmod(0o640, "text")
  File.utime(1, 2, "text")
  File.truncate("renamed", 4000)
  File.mkfifo("pipe")
  check File.stat("text").size == 4000 && File.readlink("soft") == "text" && File.ftype("pipe") == "fifo"
  check File.identical?("text", "renamed") && File.realpath("soft").end_with?("text")
  FileUtils.mkdir_p("a/b/c")
  FileUtils.cp("text", "a/b/c/file")
  FileUtils.cp_r("a", "tree")
  check Find.find("tree").count == 4 && Dir.glob("**/file").size == 2 && Dir.each_child("a").to_a == ["b"]
  FileUtils.rm_rf("tree")
  File.open("data", "w+b") do |file|
    file.flock(File::LOCK_EX)
    file.pwrite("abcdef", 10)
    file.fsync
    file.fdatasync
    file.advise(:sequential, 0, 0)
    check file.pread(6, 10) == "abcdef"
    file.seek(0, IO::SEEK_END)
    file.flock(File::LOCK_UN)
  end
  check IO.copy_stream("text", "copied") == 4000
  Tempfile.create { |file| file.puts("temporary") }
  Zlib::GzipWriter.open("packed.gz") { |gz| gz.write("packed" * 1000) }
  check Zlib::GzipReader.open("packed.gz", &:read) == "packed" * 1000
  store = PStore.new("store")
  store.transaction { store[:key] = [1, 2] }
  check store.transaction(true) { store[:key] } == [1, 2]
  reader, writer = IO.pipe
  writer.write_nonblock("through")
  writer.close
  check reader.read == "through" && File.umask(0o22) && !$stdin.tty?
  check File.readlines("text", chomp: true).first == "line"
  Dir.chdir("/")
end
puts "done"
