puts "the json of the script"
