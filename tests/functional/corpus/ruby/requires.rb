# Files next to the script, found although the working directory is another.
Dir.chdir("/")
p require_relative("neighbour"), VALUE, require_relative("lib/inner"), require_relative("json")
$LOAD_PATH.unshift(File.join(__dir__, "lib"))
p require("inner"), load("/job/neighbour.rb")
require "json"
require "set"
require "time"
p JSON.parse('{"a": [1, null]}'), Set[1, 2], Time.at(0).utc.iso8601
puts JSON.pretty_generate(a: 1)
p $LOADED_FEATURES.grep(%r{/job/})
require "absent"
