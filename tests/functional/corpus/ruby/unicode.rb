# Encodings and text beyond ASCII.
p __ENCODING__, Encoding.default_external, Encoding.default_internal, Encoding.find("locale"), Encoding.find("filesystem")
puts "ünïcödé 漢字 🦀", "é".bytes.inspect, "🦀".length, "\xff".inspect
warn "to stderr ünï"
$stdout.write("\xff\n")
