# The limit that a script sets itself.
FUNCNEST=50
forever() { ((depth++)); forever; }
forever
echo "$? $depth"
